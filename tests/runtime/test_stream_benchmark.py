"""The benchmark of the stream writes what it says; its figures are nobody's business here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgead.benchmark import stream
from edgead.bundle import read_bundle
from edgead.errors import DeviceError
from edgead.runtime.inspector import Inspector


def test_results_file(line_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, out = tmp_path / "line.avi", tmp_path / "stream.json"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for number in range(8):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()
    options = ["--out", str(out), "--rounds", "2", "--pause", "0.005", "--memory-frames", "50"]
    options += ["--engine", "onnxruntime", "--engine", "openvino"]
    monkeypatch.setattr(sys, "argv", ["stream", str(line_bundle), str(video), *options])
    stream.main()
    report = json.loads(out.read_text())
    assert report["engines"].keys() == {"onnxruntime-cpu", "openvino-cpu"}
    results = report["engines"]["onnxruntime-cpu"]
    assert results["latency"]["frames"] > 0
    assert results["latency"]["stream_over_bare"].keys() == {"p50", "p90", "p99"}
    assert results["latency"]["stages_ms"].keys() == {"queue", "fit", "infer", "post"}
    assert results["latency"]["bare_stages_ms"].keys() == {"fit", "infer"}
    assert results["throughput"]["sources"] == 4
    assert results["memory"]["frames"] == 50
    assert len(results["memory"]["rss_mib"]) >= 20
    assert report["machine"]["cores"]
    assert str(tmp_path) not in out.read_text()


class Fails:
    """An engine that is fast because it fails."""

    name = "fails"

    def infer(self, frames: Any) -> Any:
        raise DeviceError("the device is gone")

    def close(self) -> None:
        """Nothing is kept open."""


def test_what_was_not_decided_is_not_measured(line_bundle: Path) -> None:
    frames = [np.full((48, 64, 3), 20 * number, np.uint8) for number in range(8)]
    inspector = Inspector(read_bundle(line_bundle), Fails())
    with pytest.raises(DeviceError, match="the measurement is not valid: DeviceError: the device is gone"):
        stream.measure_throughput(inspector, frames, 2, 1)
