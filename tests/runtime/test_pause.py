"""A paused stream passes nothing and loses nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from running import Camera

from edgead.decision import Verdict
from edgead.runtime.inspector import Inspector
from edgead.runtime.ledger import Ledger
from edgead.runtime.record import Recorder
from edgead.runtime.sink_worker import SinkWorker
from edgead.runtime.sources import open_source
from edgead.runtime.stream import Stream


def test_frames_of_a_camera_are_unknown_while_it_is_paused(inspector: Inspector, tmp_path: Path) -> None:
    ledger = Ledger()
    recorder = SinkWorker(Recorder(tmp_path / "recording", inspector), capacity=1000)
    causes = []
    with Stream(inspector, [Camera(pause=0.002)], ledger=ledger, max_frames=30, keep_frames=True) as stream:
        for number, result in enumerate(stream):
            stream.paused = 9 <= number < 19
            causes.append(result.cause)
            recorder.offer(result, wait=True)
    recorder.close()
    assert causes == [""] * 10 + ["paused"] * 10 + [""] * 10
    assert ledger.snapshot()["unknown_by_cause"] == {"paused": 10}
    assert ledger.captured == ledger.inferred + ledger.dropped + ledger.in_flight
    with Stream(inspector, [open_source(f"replay:{tmp_path / 'recording'}")]) as replay:
        assert [result.cause for result in replay] == causes


def test_files_wait_while_they_are_paused(inspector: Inspector) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    with Stream(inspector, [iter(frames)]) as stream:
        results = iter(stream)
        first = next(results)
        stream.paused = True
        stream.call_soon(lambda: setattr(stream, "paused", False))
        rest = list(results)
    assert len(rest) == 5
    assert all(result.verdict is not Verdict.UNKNOWN for result in [first, *rest])


def test_a_paused_stream_can_be_stopped(inspector: Inspector) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    with Stream(inspector, [iter(frames)]) as stream:
        stream.paused = True
        stream.call_soon(stream.stop)
        results = list(stream)
    assert len(results) <= 3
    assert stream.ledger.captured == stream.ledger.inferred + stream.ledger.dropped
