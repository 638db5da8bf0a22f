"""`edgead demo` in small: what it makes, says and advises."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import cv2
import pytest

from edgead import demo
from edgead.cli import cli
from edgead.console import Console
from edgead.errors import GateError

TINY = ("size=64", "reconstructive_width=4", "discriminative_width=4", "steps=12", "batch_size=2")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo with few parts."""
    full = demo.make_parts
    monkeypatch.setattr(demo, "make_parts", lambda root, console: full(root, train=24, good=4, bad=2, console=console))


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_demo_compares_precisions_and_names_the_next_commands(tmp_path: Path) -> None:
    out = tmp_path / "my demo"
    outcome = demo.run_demo(out, 0, Console(), TINY)
    rows = {(row.bundle, row.precision) for row in outcome.report.rows}
    assert ("washer", "fp32") in rows
    if outcome.int8 is None:
        assert outcome.gate  # the reason
    else:
        assert ("washer-int8", "int8") in rows
        assert "layers in float32" in outcome.gate
    still, overlays = (cv2.imread(str(path)) for path in (outcome.still, outcome.overlays))
    assert still.shape == (256, 256, 3)
    assert overlays.shape == (2 * 256, 5 * 256, 3)
    commands = re.findall(r"edgead [a-z]+ .*", outcome.summary)
    assert [command.split()[1] for command in commands] == ["predict", "plan", "run"]
    for command in commands:
        words = shlex.split(command)
        assert str(outcome.bundle) in words  # also where the path has blanks
        assert words[1] in cli.commands
    assert json.loads(json.dumps(outcome.to_dict()))["gate"] == outcome.gate


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_gate_that_fails_does_not_end_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgead import export

    make = export.export

    def refuse_int8(run: Path, precision: str = "fp32", **options: object) -> object:
        if precision == "int8":
            raise GateError("3 of 100 settled verdicts change.\nUse another precision.")
        return make(run, precision=precision, **options)

    monkeypatch.setattr(export, "export", refuse_int8)
    outcome = demo.run_demo(tmp_path / "demo", 0, Console(), TINY)
    assert (outcome.int8, outcome.gate) == (None, "3 of 100 settled verdicts change.")
    assert "INT8: 3 of 100 settled verdicts change." in outcome.summary
    assert {row.precision for row in outcome.report.rows} == {"fp32"}
