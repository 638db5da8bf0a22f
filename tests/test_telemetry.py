"""No library that edgead uses reports to its maker, whichever way edgead is entered."""

from __future__ import annotations

from pathlib import Path

import pytest
from network_apart import RAY, end, skip_without, start

from edgead.bundle import Bundle

LOADED = """
import sys, time
import numpy as np
import edgead
for engine in sys.argv[2:]:
    with edgead.load(sys.argv[1], engine=engine) as inspector:
        inspector.inspect(np.zeros((64, 64, 3), np.uint8))
time.sleep(SECONDS)  # uploads wait for a moment of rest
"""
REPORTS = """
import sys, time
import numpy, onnxruntime
onnxruntime.InferenceSession(sys.argv[1]).run(None, {"frames": numpy.zeros((1, 64, 64, 3), numpy.uint8)})
time.sleep(SECONDS)
"""
TRAINED = """
import sys, time
import edgead.train.training, edgead.benchmark
import edgead.export.imports.onnx_model, edgead.export.imports.published_checkpoint
import huggingface_hub, accelerate, onnxruntime
from edgead.cli import main
try:
    main(["methods"])
except SystemExit:
    time.sleep(SECONDS)
"""
ON_RAY = """
import os, sys, time
from pathlib import Path
from edgead.cluster import connected
with connected() as ray:
    print(ray.get(ray.remote(lambda: os.getpid()).remote()))
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    listening = {line[1].partition(":")[0] for line in lines if line[3] == "0A"}
    time.sleep(SECONDS)
loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
assert len(lines) > 5 and listening <= loopback, listening
"""


def engines() -> list[str]:
    from edgead.runtime.engines.opening import installed_engines

    return [name for name in installed_engines() if name in ("onnxruntime", "openvino")]


@pytest.fixture(autouse=True)
def _network() -> None:
    skip_without()


def waiting(code: str, seconds: float) -> str:
    return code.replace("SECONDS", str(seconds))


@pytest.mark.long
def test_nothing_is_reported(bundle: Bundle, tmp_path: Path) -> None:
    """All at the same time. The last one shows that uploads are seen, where this ONNX Runtime has telemetry."""
    import onnxruntime

    model, seconds = str(bundle.model), 12.0  # the first upload comes after 9
    processes = {
        "runtime": start(waiting(LOADED, seconds), tmp_path / "runtime", str(bundle.path), *engines()),
        "training": start(waiting(TRAINED, seconds), tmp_path / "training"),
        "reports": start(waiting(REPORTS, seconds), tmp_path / "reports", model, ORT_DISABLE_TELEMETRY="0"),
    }
    found = {name: end(process, tmp_path / name) for name, process in processes.items()}
    assert found["runtime"] == (set(), [])
    assert found["training"] == (set(), [])
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 32):
        heard, left = found["reports"]
        assert heard
        assert left


@pytest.mark.long
def test_ray_reports_nothing_and_listens_on_loopback_alone(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    folder = tmp_path / "ray"
    heard, left = end(start(waiting(ON_RAY, 8), folder), folder)
    assert (heard - RAY, left) == (set(), [".ray/auth_token"])


def test_a_user_can_turn_it_on(bundle: Bundle, tmp_path: Path) -> None:
    import onnxruntime

    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 32):
        pytest.skip("this ONNX Runtime reports nothing")
    folders = {value: tmp_path / value for value in ("0", "1")}
    started = {
        value: start(waiting(LOADED, 0), folder, str(bundle.path), "onnxruntime", ORT_DISABLE_TELEMETRY=value)
        for value, folder in folders.items()
    }
    left = {value: end(process, folders[value])[1] for value, process in started.items()}
    assert left["0"]
    assert not left["1"]
