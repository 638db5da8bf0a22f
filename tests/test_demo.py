"""`edgead demo` in small: what it makes, says and advises."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny import TINY

import edgead
from edgead import demo, export
from edgead.benchmark.figures import FailedRow
from edgead.cli import cli
from edgead.console import Console
from edgead.errors import GateError
from edgead.export import Budget, PrecisionOptions
from edgead.images import read_frame
from edgead.machine import overflows_int8
from edgead.runtime.engines.opening import usable_engines


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo with few parts, and a comparison of seconds."""
    monkeypatch.setattr(demo, "TIMING_SECONDS", 0.5)
    full = demo.make_parts
    monkeypatch.setattr(demo, "make_parts", lambda root, console: full(root, train=24, good=4, bad=2, console=console))


@pytest.mark.long
@pytest.mark.usefixtures("small")
def test_the_demo_compares_precisions_and_names_the_next_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "my demo"
    outcome = demo.run_demo(out, 0, Console(), settings=TINY, int8=PrecisionOptions("int8", budget=Budget(1.0, 1.0)))
    rows = {(row.bundle, row.precision) for row in outcome.report.rows}
    assert rows == {("washer", "fp32"), ("washer-int8", "int8")}
    engines = usable_engines()
    assert len(outcome.report.rows) + len(outcome.report.failed or ()) == 2 * len(engines)
    lines = str(outcome.comparison).splitlines()
    assert lines[0].split() == [
        *["model", "precision", "engine"],
        "p50",
        "ms",
        *["times", "AUROC", "found", "rejected", "gate"],
    ]
    assert [line.split()[-1] for line in lines if " fp32 " in line].count("reference") == len(engines)
    overflown = [failed.engine for failed in outcome.report.failed or ()]
    assert [line.split()[-1] for line in lines if " int8 " in line].count("passed") == len(engines) - len(overflown)
    assert set(overflown) <= ({"openvino"} if overflows_int8() else set())
    assert f"{lines[2].split()[4]}" == "1.0"  # the slowest one
    assert "layers in float32" in outcome.gate
    refused = dataclasses.replace(
        outcome,
        int8=None,
        report=dataclasses.replace(outcome.report, failed=(FailedRow("washer", "tensorrt", "no GPU"),)),
    )
    assert [line.split()[-1] for line in str(refused.comparison).splitlines()[-2:]] == ["failed", "passed"]
    assert "washer on tensorrt: no GPU\n" in refused.summary
    assert refused.fastest == outcome.bundle
    still, overlays = (cv2.imread(str(path)) for path in (outcome.still, outcome.overlays))
    with edgead.load(outcome.bundle) as inspector:  # the picture of one result shows the part that is clearest
        shown = [read_frame(outcome.parts / "test" / kind / "001.png") for kind in ("good", *demo.DEFECTS)]
        clearest = max(map(inspector.inspect, shown), key=lambda result: result.score)
        assert np.array_equal(still, cv2.imread(str(clearest.save(tmp_path / "clearest.png"))))
    assert still.shape == (256, 256, 3)
    assert overlays.shape == (2 * 256, 5 * 256, 3)
    commands = re.findall(r"edgead [a-z]+ .*", outcome.summary)
    assert [command.split()[1] for command in commands] == ["predict", "plan", "run"]
    for command in commands:
        words = shlex.split(command)
        assert str(outcome.fastest) in words  # also where the path has blanks
        assert words[1] in cli.commands
    assert "http://127.0.0.1:8080/" in outcome.summary
    monkeypatch.setenv("PATH", str(Path(sys.prefix, "bin")))
    assert "activate" not in outcome.summary
    monkeypatch.setenv("PATH", str(tmp_path))
    assert f"            source {os.path.relpath(sys.prefix)}/bin/activate\n" in outcome.summary
    assert json.loads(json.dumps(outcome.to_dict()))["gate"] == outcome.gate


def test_a_gate_that_fails_does_not_end_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise GateError("3 of 100 settled verdicts change.\nUse another precision.")

    monkeypatch.setattr(export, "export", refuse)
    found = demo._export_int8(tmp_path, tmp_path / "x.edgead", "int8", Console())
    assert found == (None, "3 of 100 settled verdicts change.")
