"""`auto` measures once, remembers, proves what it remembered, and says why an engine was left out."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import Listener

import edgead
from edgead.bundle import Bundle, read_bundle
from edgead.errors import DeviceError
from edgead.runtime.engines import auto, opening
from edgead.runtime.engines.checked import check
from edgead.runtime.engines.opening import open_engine

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="no openvino")


@pytest.fixture
def opened(line_bundle: Path) -> Bundle:
    return read_bundle(line_bundle)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "edgead" / "engines.json"


class Odd:
    """An engine whose outputs are wrong or missing, or that raises after so many inferences."""

    name = "odd"

    def __init__(self, raises_after: int | None = None, silent: bool = False) -> None:
        self.raises_after, self.silent, self.closed = raises_after, silent, False

    def infer(self, frames: Any) -> Any:
        if self.raises_after is not None:
            self.raises_after -= 1
            if self.raises_after < 0:
                raise DeviceError("the device is gone")
        return np.zeros(0 if self.silent else len(frames), np.float32), np.zeros(frames.shape[:3], np.float32)

    def close(self) -> None:
        self.closed = True


@needs_openvino
def test_measured_once_and_remembered(
    line_bundle: Path, opened: Bundle, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = auto.open_fastest(opened)
    [entry] = json.loads(notes.read_text()).values()
    assert entry["engine"] == min(entry["milliseconds"], key=entry["milliseconds"].get)
    assert first.name.startswith(entry["engine"])
    assert entry["milliseconds"].keys() == {"onnxruntime", "openvino"}
    monkeypatch.setattr(auto, "time_engines", pytest.fail)
    assert auto.open_fastest(opened).name == first.name
    with edgead.load(line_bundle) as inspector:
        assert inspector.engine.name == first.name


@pytest.mark.parametrize("damage", ["{broken", "[]", '{"KEY": 3}', '{"KEY": {"engine": ["x"]}}', '{"KEY": {}}'])
def test_measured_again_where_the_notes_are_damaged(
    opened: Bundle, notes: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "_key", lambda *facts: "KEY")
    notes.parent.mkdir(parents=True)
    notes.write_text(damage)
    assert auto.open_fastest(opened).name.partition("-")[0] in opening.installed_engines()
    assert json.loads(notes.read_text())["KEY"]["milliseconds"]


@needs_openvino
@pytest.mark.parametrize("fault", ["wrong", "silent", "raises", "missing"])
def test_a_remembered_engine_that_fails_is_measured_again(
    opened: Bundle, notes: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto.open_fastest(opened).close()
    [(key, entry)] = json.loads(notes.read_text()).items()
    notes.write_text(json.dumps({key: {**entry, "engine": "openvino"}}))
    odd = Odd(0 if fault == "raises" else None, silent=fault == "silent")

    def open_odd(name: str, bundle: Bundle, **options: Any) -> Any:
        if name != "openvino":
            return open_engine(name, bundle, **options)
        if fault == "missing":
            raise DeviceError("no such device here")
        return check(odd, bundle)

    monkeypatch.setattr(opening, "open_engine", open_odd)
    console = Listener()
    assert auto.open_fastest(opened, console=console).name == "onnxruntime-cpu"
    assert "The cached choice, engine openvino, cannot be used: " in console.said[0]
    entry = json.loads(notes.read_text())[key]
    reasons = {
        "raises": "the device is gone",
        "missing": "no such device here",
        "silent": "returned scores float32 (0,)",
        "wrong": "the output of odd differs from the reference outputs",
    }
    assert entry["engine"] == "onnxruntime"
    assert reasons[fault] in entry["left_out"]["openvino"]
    assert odd.closed or fault == "missing"


def test_bf16_is_never_chosen(opened: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict at the threshold must not depend on whether the machine has AMX."""
    asked: list[str] = []

    def spy(name: str, bundle: Bundle, **options: Any) -> Any:
        asked.append(name)
        return open_engine(name, bundle, **options)

    monkeypatch.setattr(opening, "open_engine", spy)
    auto.open_fastest(opened).close()
    assert "onnxruntime" in asked
    assert "openvino-bf16" not in asked


def test_an_engine_that_raises_while_it_is_timed_is_left_out(opened: Bundle) -> None:
    engines: dict[str, Any] = {"onnxruntime": open_engine("onnxruntime", opened), "odd": Odd(raises_after=3)}
    reasons: dict[str, str] = {}
    assert auto.time_engines(engines, opened.golden().frames, reasons=reasons).keys() == {"onnxruntime"}
    assert reasons == {"odd": "the device is gone"}


def test_an_engine_rests_and_warms_up_before_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr(auto.time, "sleep", lambda seconds: events.append("rest"))

    class Noted:
        def __init__(self, name: str) -> None:
            self.name = name

        def infer(self, frames: Any) -> None:
            events.append(self.name)

    engines: dict[str, Any] = {name: Noted(name) for name in "ab"}
    auto.time_engines(engines, np.zeros((1, 8, 8, 3), np.uint8), rounds=2)
    assert events == ["rest", "a", "a", "rest", "b", "b"] * 2
    events.clear()
    auto.time_engines({"a": engines["a"]}, np.zeros((1, 8, 8, 3), np.uint8), rounds=2)
    assert events == ["a", "a"]


def test_where_none_is_right_each_has_its_reason(opened: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "open_engine", lambda name, bundle, **options: check(Odd(), bundle))
    with pytest.raises(DeviceError, match=r"(?s)No engine can run.*onnxruntime: .*the output of odd differs"):
        auto.open_fastest(opened)


CHOOSES = """
import json, sys
import edgead
with edgead.load(sys.argv[1]) as inspector:
    print(inspector.engine.name)
"""


@needs_openvino
@pytest.mark.slow
def test_a_processor_on_which_openvino_raises(line_bundle: Path, notes: Path) -> None:
    """A real case: OpenVINO 2026.4 on a CPU with SSE 4.1 alone opens DRAEM's graph and raises when it infers.

    On a single core it does not even raise, and gives no scores.
    """
    root = str(Path(edgead.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "ONEDNN_MAX_CPU_ISA": "SSE41"}
    done = subprocess.run(
        [sys.executable, "-c", CHOOSES, str(line_bundle)], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.stdout == "onnxruntime-cpu\n", done.stderr[-2000:]
    [entry] = json.loads(notes.read_text()).values()
    assert "openvino" in entry["left_out"]
