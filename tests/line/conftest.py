"""A bundle whose score is the grey level of its frame, on an engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
from level_bundle import make_level_bundle

from edgead.bundle import Bundle
from edgead.runtime import clock
from edgead.runtime.inspector import Inspector, load


@pytest.fixture(scope="session")
def level(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_level_bundle(tmp_path_factory.mktemp("level") / "level.edgead")


@pytest.fixture
def inspector(level: Bundle) -> Iterator[Inspector]:
    with load(level.path, engine="onnxruntime") as opened:
        yield opened


@pytest.fixture
def suspend(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the machine sleep for so many seconds, which `time.monotonic` does not include."""
    slept, really = [0.0], clock.elapsed
    monkeypatch.setattr(clock, "elapsed", lambda: really() + slept[0])
    monkeypatch.setattr(clock.standstill, "_pauses", {})  # as it is again after the test

    def sleep(seconds: float) -> None:
        slept[0] += seconds
        assert clock.standstill.since(-math.inf, clock.SHORT_PAUSE) >= seconds  # awake again

    return sleep
