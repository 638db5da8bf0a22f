"""The stream: policies, order, deadlines, stopping, swapping; and the ledger's equation at every instant."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from running import Camera
from waiting import wait_until

import edgead
from edgead.decision import Verdict
from edgead.errors import ConfigError, DeviceError
from edgead.runtime.inspector import Inspector
from edgead.runtime.ledger import Ledger
from edgead.runtime.pipeline import run_stream
from edgead.runtime.result import Result
from edgead.runtime.sources.python import IterableSource
from edgead.runtime.stream import Policy, Stream

NOISE = np.random.default_rng(1).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)


def is_balanced(snapshot: dict[str, Any]) -> bool:
    """The equation, over all and for each source."""
    parts = [snapshot, *snapshot.get("sources", {}).values()]
    return all(
        part["captured"] == part["inferred"] + part["dropped"] + part["in_flight"]
        and part["dropped"] == sum(part["dropped_by_cause"].values())
        and part["inferred"] == part["passed"] + part["failed"] + part["unknown"]
        for part in parts
    )


def test_files_lose_nothing_and_keep_their_order(inspector: Inspector) -> None:
    ledger = Ledger()
    with Stream(inspector, [list(NOISE)], ledger=ledger) as stream:
        results = []
        for result in stream:
            time.sleep(0.002)
            results.append(result.frame_id)
    assert results == list(range(40))
    assert ledger.snapshot()["captured"] == ledger.inferred == 40
    assert ledger.dropped == ledger.in_flight == 0


@pytest.mark.parametrize(
    ("on_full", "cause"), [("drop-oldest", "overtaken"), ("drop-newest", "refused"), ("wait", None)]
)
def test_live_source_drops_by_the_named_policy(inspector: Inspector, on_full: str, cause: str | None) -> None:
    camera, ledger = Camera(frames=60), Ledger()
    with Stream(inspector, [camera], Policy(on_full=on_full), ledger) as stream:
        frames = []
        for result in stream:
            time.sleep(0.01)
            frames.append(result.frame_id)
    assert frames == sorted(frames)
    snapshot = ledger.snapshot()
    assert is_balanced(snapshot)
    assert snapshot["in_flight"] == 0
    assert set(snapshot["dropped_by_cause"]) == ({cause} if cause else set())
    assert snapshot["captured"] == 60
    assert frames[0] == 0 if on_full == "drop-newest" else frames[-1] == 59


def test_equation_holds_at_every_instant(inspector: Inspector) -> None:
    ledger = Ledger()
    wrong: list[dict[str, Any]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            snapshot = ledger.snapshot()
            if not is_balanced(snapshot):
                wrong.append(snapshot)

    watcher = threading.Thread(target=watch)
    watcher.start()
    cameras = [Camera(frames=150, name=f"camera-{number}") for number in range(3)]
    with Stream(inspector, [*cameras, list(NOISE)], Policy(batch=4), ledger) as stream:
        seen = [(result.source_id, result.frame_id) for result in stream]
    done.set()
    watcher.join()
    assert not wrong
    assert ledger.captured == 3 * 150 + 40
    assert ledger.captured == ledger.inferred + ledger.dropped
    for name in {source for source, _ in seen}:
        numbers = [number for source, number in seen if source == name]
        assert numbers == sorted(numbers)


def test_batches_of_several_sources_score_as_single_frames_do(inspector: Inspector) -> None:
    sources = [IterableSource(list(NOISE[start::4]), name=str(start)) for start in range(4)]
    alone = {(str(i % 4), i // 4): inspector.inspect(frame).score for i, frame in enumerate(NOISE)}
    with Stream(inspector, sources, Policy(batch=4)) as stream:
        together = {(result.source_id, result.frame_id): result.score for result in stream}
    assert together == pytest.approx(alone, abs=1e-5)


def test_late_decision_is_unknown_and_keeps_its_score(inspector: Inspector) -> None:
    with Stream(inspector, [list(NOISE[:3])], Policy(deadline=1e-3)) as stream:
        results = list(stream)
    assert {result.verdict for result in results} == {Verdict.UNKNOWN}
    assert {result.cause for result in results} == {"late"}
    assert np.isfinite([result.score for result in results]).all()


def test_stale_frame_is_unknown_without_inference(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspector.engine, "infer", pytest.fail)
    ledger = Ledger()
    with Stream(inspector, [list(NOISE[:3])], Policy(max_staleness=1e-3), ledger) as stream:
        assert {(result.verdict, result.cause) for result in stream} == {(Verdict.UNKNOWN, "stale")}
    assert ledger.snapshot()["unknown_by_cause"] == {"stale": 3}


def test_failing_engine_gives_unknown_and_the_stream_goes_on(
    inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer, calls = inspector.engine.infer, iter(range(100))

    def fails_at_first(frames: Any) -> Any:
        if next(calls) < 2:
            raise DeviceError("the device is gone")
        return infer(frames)

    monkeypatch.setattr(inspector.engine, "infer", fails_at_first)
    with Stream(inspector, [list(NOISE[:4])]) as stream:
        results = list(stream)
    assert [result.cause for result in results] == ["failed", "failed", "", ""]
    assert "the device is gone" in results[0].reason
    assert Verdict.UNKNOWN not in {result.verdict for result in results[2:]}


def test_source_that_raises_is_named_and_the_others_go_on(inspector: Inspector) -> None:
    def breaks() -> Iterator[np.ndarray]:
        yield NOISE[0]
        raise RuntimeError("cable pulled")

    with Stream(inspector, [IterableSource(breaks(), "bad"), IterableSource(list(NOISE[:5]), "good")]) as stream:
        results = list(stream)
    bad = [result for result in results if result.source_id == "bad"]
    assert [result.cause for result in bad] == ["", "lost"]
    assert "cable pulled" in bad[1].reason
    assert len(results) == 7


def test_stop_drains_what_was_captured(inspector: Inspector) -> None:
    camera, ledger = Camera(), Ledger()
    with Stream(inspector, [camera], Policy(on_full="wait", capacity=8), ledger) as stream:
        results = 0
        for _ in stream:
            results += 1
            if results == 5:
                stream.stop()
    assert ledger.captured == ledger.inferred == results
    assert ledger.dropped == 0


@pytest.mark.parametrize("wrong", [-1, 1.5, "2", True])
def test_max_frames_that_make_no_sense_are_refused(inspector: Inspector, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="max_frames must be"):
        Stream(inspector, [list(NOISE)], max_frames=wrong)  # -1 gave no results, and no error


def test_max_frames_captures_no_more_of_a_file(inspector: Inspector) -> None:
    ledger = Ledger()
    with Stream(inspector, [list(NOISE)], ledger=ledger, max_frames=3) as stream:
        assert len(list(stream)) == 3
    assert ledger.captured == 3


def test_leaving_early_accounts_for_what_was_in_flight(inspector: Inspector) -> None:
    ledger = Ledger()
    with Stream(inspector, [Camera()], Policy(capacity=5), ledger) as stream:
        next(iter(stream))
        wait_until(lambda: ledger.in_flight >= 5)
    assert ledger.in_flight == 0
    assert ledger.snapshot()["dropped_by_cause"]["stopped"] >= 5
    assert is_balanced(ledger.snapshot())


def test_swap_changes_the_inspector_between_two_frames(inspector: Inspector, line_bundle: Any) -> None:
    other = edgead.load(line_bundle, engine="openvino" if _has_openvino() else "onnxruntime", threshold=-1.0)
    retired: list[Inspector] = []
    with other, Stream(inspector, [list(NOISE)]) as stream:
        results = []
        for result in stream:
            results.append(result)
            if len(results) == 10:
                stream.swap(other, retire=retired.append)
    assert [result.frame_id for result in results] == list(range(40))
    assert {result.threshold for result in results[10:]} == {-1.0}
    assert retired == [inspector]


def _has_openvino() -> bool:
    import importlib.util

    return importlib.util.find_spec("openvino") is not None


def test_silent_camera_is_reported_again_and_again(inspector: Inspector) -> None:
    camera = Camera(pause=3600)
    with Stream(inspector, [camera], Policy(silence=0.05)) as stream:
        results = [result for _, result in zip(range(2), stream)]
    assert {(result.verdict, result.cause) for result in results} == {(Verdict.UNKNOWN, "silent")}


def test_slow_consumer_is_not_taken_for_a_silent_camera(inspector: Inspector) -> None:
    with Stream(inspector, [Camera(frames=20)], Policy(silence=1.0, on_full="wait")) as stream:
        causes = set()
        for result in stream:
            time.sleep(1.2)
            causes.add(result.cause)
            if result.frame_id == 0:
                stream.stop()
    assert causes == {""}


def test_keep_warm_infers_on_nothing_while_nothing_comes(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    camera, warmed = Camera(pause=3600), threading.Event()
    keep_warm = inspector.keep_warm

    def noted() -> None:
        keep_warm()
        warmed.set()
        camera.stop()

    monkeypatch.setattr(inspector, "keep_warm", noted)
    with Stream(inspector, [camera], Policy(keep_warm=0.05)) as stream:
        assert not list(stream)
    assert warmed.is_set()


def test_callable_and_bare_iterable_are_sources(inspector: Inspector) -> None:
    frames = iter([*NOISE[:3], None])
    assert [result.source_id for result in inspector.stream(lambda: next(frames))][-1] == "callable"
    assert len(list(inspector.stream(iter(NOISE[:3])))) == 3
    with pytest.raises(ConfigError, match="not int"):
        next(iter(inspector.stream(3)))  # type: ignore[arg-type]


def test_what_is_no_frame_becomes_unknown(inspector: Inspector) -> None:
    results = list(inspector.stream([NOISE[0], np.zeros((4, 4), np.float32)]))
    assert [result.cause for result in results] == ["", "unreadable"]
    assert "uint8" in results[1].reason


def test_policy_names_what_it_does_not_know() -> None:
    with pytest.raises(ConfigError, match="drop-oldest, drop-newest, wait"):
        Policy(on_full="drop-all")
    with pytest.raises(ConfigError, match=r"silence must be positive, not 5\.0 of the type float32; take float"):
        Policy(silence=np.float32(5))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"silence must be positive, not None\.$"):
        Policy(silence=None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="deadline must be positive"):
        Policy(deadline=0)


def test_prometheus_text_holds_the_equation(inspector: Inspector) -> None:
    ledger = Ledger()
    run_stream(inspector, IterableSource(list(NOISE[:5]), 'a "quoted" name'), [], ledger)
    text = ledger.to_prometheus()
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert samples['edgead_frames_captured_total{source="a \\"quoted\\" name"}'] == "5"
    assert sum(int(value) for key, value in samples.items() if key.startswith("edgead_frames_inferred")) == 5
    assert samples['edgead_latency_seconds_count{source="a \\"quoted\\" name"}'] == "5"


def test_result_does_not_hold_its_frame_unless_a_sink_wants_it(inspector: Inspector) -> None:
    seen: list[Result] = []
    run_stream(inspector, list(NOISE[:2]), [], Ledger(), on_result=seen.append)
    assert all(result.frame is None for result in seen)


def test_what_a_caller_leaves_of_a_batch_is_dropped_by_name(inspector: Inspector) -> None:
    frames, ledger = list(np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)), Ledger()
    with Stream(inspector, [IterableSource(frames)], Policy(batch=4, capacity=4), ledger) as stream:
        wait_until(lambda: ledger.in_flight == 4)
        results = iter(stream)
        next(results)
        results.close()  # type: ignore[attr-defined]
    assert (ledger.captured, ledger.inferred, ledger.dropped, ledger.in_flight) == (4, 1, 3, 0)
