"""An engine has one owner: threads, swaps, exchanges and closing; every result has the score of its own frame."""

from __future__ import annotations

import importlib.util
import logging
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import wait_until
from level_bundle import LEVELS, frame_of, make_level_bundle
from numpy.typing import NDArray

import edgead
from edgead.bundle import Bundle
from edgead.decision import Verdict
from edgead.errors import BundleError, ConfigError, DeviceError
from edgead.export.complete import run_singly
from edgead.runtime.engines import open_engine
from edgead.runtime.engines.checked import CheckedEngine, check
from edgead.runtime.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine
from edgead.runtime.golden import check_golden, open_proven
from edgead.runtime.inspector import Inspector
from edgead.runtime.result import Result
from edgead.runtime.run import Control
from edgead.runtime.shadow import Shadow
from edgead.runtime.sources.python import IterableSource
from edgead.runtime.stream import Policy, Stream

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="no openvino")
ENGINES = [
    "onnxruntime",
    "bound buffers",
    pytest.param("openvino", marks=needs_openvino),
    pytest.param("openvino:hint=throughput", marks=needs_openvino),
]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_level_bundle(tmp_path_factory.mktemp("level") / "first.edgead")


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_level_bundle(tmp_path_factory.mktemp("level") / "second.edgead", offset=1000.0)


OFFSETS = {"first": 0.0, "second": 1000.0}


def open_any(name: str, bundle: Bundle) -> CheckedEngine:
    """An engine by name; ``bound buffers`` is what runs on CUDA, on the CPU provider."""
    if name == "bound buffers":
        return check(OnnxRuntimeCudaEngine(bundle.model, (64, 64), (1, 3), "cpu", "CPUExecutionProvider", {}), bundle)
    return open_engine(name, bundle, batch=3)


def in_threads(work: Callable[[int], None], count: int = 4) -> None:
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


@pytest.mark.parametrize("name", ENGINES)
def test_threads_get_the_scores_of_their_own_frames(first: Bundle, name: str) -> None:
    engine = open_any(name, first)
    inspector = Inspector(first, engine)

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        for _ in range(60):
            levels = rng.choice(LEVELS, rng.integers(1, 6))
            scores, maps = engine.infer(np.stack([frame_of(level) for level in levels]))
            result = inspector.inspect(frame_of(levels[0]))
            time.sleep(0)  # another thread infers before the outputs are looked at
            np.testing.assert_allclose(scores, levels, atol=0.01)
            np.testing.assert_allclose(maps.mean(axis=(1, 2)), levels, atol=0.01)
            assert result.score == pytest.approx(levels[0], abs=0.01)
            assert result.anomaly_map is not None
            assert result.anomaly_map.mean() == pytest.approx(levels[0], abs=0.01)
            maps[:], scores[:] = -1, -1  # they are the caller's

    in_threads(work)
    inspector.close()


@pytest.mark.parametrize("name", ENGINES)
def test_closing_while_others_infer_is_an_error_and_no_crash(first: Bundle, name: str) -> None:
    for _ in range(3):
        inspector = Inspector(first, open_any(name, first))
        running = threading.Event()

        def work(number: int, inspector: Inspector = inspector, running: threading.Event = running) -> None:
            level = LEVELS[number]
            if number == 0:
                assert running.wait(10)
                inspector.close()
                inspector.close()

            def until_closed() -> None:
                while True:
                    assert inspector.inspect(frame_of(level)).score == pytest.approx(level, abs=0.01)
                    running.set()

            with pytest.raises(DeviceError, match="closed"):
                until_closed()

        in_threads(work)


def test_closing_does_not_wait_for_an_engine_that_hangs(first: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.runtime.engines.checked.LONGEST_CALL", 0.05)
    release, inside = threading.Event(), threading.Event()

    class Hangs:
        name, closed = "hangs", False

        def infer(self, frames: Any) -> Any:
            inside.set()
            release.wait(20)
            return np.zeros(1, np.float32), np.zeros((1, 64, 64), np.float32)

        def close(self) -> None:
            self.closed = True

    engine = Hangs()
    inspector = Inspector(first, engine)
    thread = threading.Thread(target=inspector.inspect, args=(frame_of(0),))
    thread.start()
    assert inside.wait(10)
    inspector.close()
    assert not engine.closed  # it is in use
    release.set()
    thread.join(10)


def test_a_decision_is_made_by_one_threshold(first: Bundle) -> None:
    inspector, done = Inspector(first, open_any("onnxruntime", first)), threading.Event()

    def change() -> None:
        while not done.is_set():
            inspector.threshold = random.choice((50.0, 60.0))

    thread = threading.Thread(target=change)
    thread.start()
    results = [inspector.inspect(frame_of(55)) for _ in range(200)]
    done.set()
    thread.join()
    assert {result.threshold for result in results} == {50.0, 60.0}
    assert all((result.verdict is Verdict.FAIL) == (result.threshold == 50.0) for result in results)
    inspector.close()


def numbered(count: int, pause: float = 0.0) -> Iterator[NDArray[np.uint8]]:
    """Frames whose level follows from their number."""
    for number in range(count):
        time.sleep(pause)
        yield frame_of(level_of(number))


def level_of(number: int) -> int:
    return int(LEVELS[number * 7 % len(LEVELS)])


def is_its_own(result: Result) -> bool:
    return abs(result.score - level_of(result.frame_id) - OFFSETS[result.bundle]) < 0.01


@pytest.mark.parametrize("name", ENGINES)
def test_swaps_and_exchanges_at_any_moment_keep_scores_and_frames_together(
    first: Bundle, second: Bundle, name: str
) -> None:
    """A shadow sees the same frames meanwhile, in its own thread, and two more threads use the same inspectors."""
    one, other = (Inspector(bundle, open_any(name, bundle)) for bundle in (first, second))
    shadow, seen, wrong, done = Shadow(other), [], [], threading.Event()
    rng = random.Random(0)
    with Stream(one, [IterableSource(numbered(150))], Policy(batch=3), keep_frames=True) as stream:

        def disturb(number: int) -> None:
            while not done.is_set():
                inspector = (one, other)[number % 2]
                score = inspector.inspect(frame_of(LEVELS[number])).score
                if abs(score - LEVELS[number] - OFFSETS[inspector.bundle.manifest.name]) > 0.01:
                    wrong.append(score)

        def watch() -> None:
            while not done.is_set():
                for result in seen[-2:]:
                    shadow.write(result)

        def exchange() -> None:
            shadow.inspector = stream.take_over(shadow.inspector)

        threads = [threading.Thread(target=disturb, args=(number,)) for number in range(2)]
        threads.append(threading.Thread(target=watch))
        for thread in threads:
            thread.start()
        for result in stream:
            seen.append(result)
            for _ in range(rng.choice((0, 0, 1, 2))):
                stream.call_soon(exchange)
        done.set()
        for thread in threads:
            thread.join()
        assert {stream.inspector, shadow.inspector} == {one, other}
    assert [result.frame_id for result in seen] == list(range(150))
    assert {result.bundle for result in seen} == {"first", "second"}
    assert all(result.verdict is not Verdict.UNKNOWN for result in seen)
    assert [result for result in seen if not is_its_own(result)] == wrong == []
    one.close()
    other.close()


def test_requests_within_one_frame_are_all_done_in_their_order(first: Bundle, second: Bundle) -> None:
    inspectors = [Inspector(bundle, open_any("onnxruntime", bundle)) for bundle in (first, second, first)]
    retired: list[Inspector] = []
    with Stream(inspectors[0], [IterableSource(numbered(6))]) as stream:
        results = []
        for result in stream:
            results.append(result)
            if len(results) == 3:
                for inspector in inspectors[1:]:
                    stream.swap(inspector, retire=retired.append)
    assert retired == inspectors[:2]
    assert stream.inspector is inspectors[2]
    assert all(is_its_own(result) for result in results)


def test_a_swap_that_cannot_be_leaves_the_old_one_deciding(
    first: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inspector = Inspector(first, open_any("onnxruntime", first))
    gone = make_level_bundle(tmp_path / "gone.edgead")
    unready = Inspector(gone, open_any("onnxruntime", gone))
    shutil.rmtree(gone.path)
    closed = Inspector(first, open_any("onnxruntime", first))
    closed.close()
    with Stream(inspector, [IterableSource(numbered(8))]) as stream:
        results = []
        for result in stream:
            results.append(result)
            if len(results) == 2:
                with pytest.raises(BundleError, match="does not hold golden frames"):
                    stream.swap(unready)
                with pytest.raises(ConfigError, match="is closed"):
                    stream.swap(closed)
                stream.call_soon(lambda: stream.take_over(unready))
    assert stream.inspector is inspector
    assert len(results) == 8
    assert all(is_its_own(result) for result in results)
    assert "the stream goes on: " in caplog.text
    with pytest.raises(ConfigError, match="first is closed"):
        Stream(closed, [IterableSource(numbered(8))])


def test_a_successor_needs_nothing_from_its_folder_any_more(first: Bundle, tmp_path: Path) -> None:
    bundle = make_level_bundle(tmp_path / "second.edgead", offset=1000.0)
    successor = edgead.load(bundle.path, engine="onnxruntime")
    shutil.rmtree(bundle.path)
    policy = Policy(health="all", frozen_after=0)
    with (
        edgead.load(first.path, engine="onnxruntime") as inspector,
        Stream(inspector, [IterableSource(numbered(8))], policy) as stream,
    ):
        stream.swap(successor)
        assert {result.bundle for result in stream} == {"second"}
    successor.close()


def test_a_retire_that_raises_does_not_end_the_stream(
    first: Bundle, second: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(old: Inspector) -> None:
        raise OSError("the device does not answer")

    one, other = (Inspector(bundle, open_any("onnxruntime", bundle)) for bundle in (first, second))
    with caplog.at_level(logging.WARNING), Stream(one, [IterableSource(numbered(8))]) as stream:
        stream.swap(other, retire=fails)
        results = list(stream)
    assert {result.bundle for result in results} == {"second"}
    assert len(results) == 8
    assert "the device does not answer" in caplog.text


def test_an_engine_that_fails_while_it_is_kept_warm_does_not_end_the_stream(
    first: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspector, warmed = Inspector(first, open_any("onnxruntime", first)), threading.Event()

    def fails() -> None:
        warmed.set()
        raise DeviceError("the device is gone")

    monkeypatch.setattr(inspector, "keep_warm", fails)
    frames = (frame for frame in numbered(2, pause=0.3))
    with Stream(inspector, [IterableSource(frames)], Policy(keep_warm=0.05)) as stream:
        assert len(list(stream)) == 2
    assert warmed.is_set()


class Reloading:
    """A running stream under a `Control`, whose bundles open as the test says."""

    def __init__(self, inspector: Inspector, shadow: Shadow | None, opens: Callable[[Path], Inspector]) -> None:
        self.said: list[str] = []
        self.control = Control(opens, self.said.append)
        self.control.shadow = shadow
        self.stream = Stream(inspector, [IterableSource(numbered(10**6, pause=0.002))])
        self.results: list[Result] = []

    def __enter__(self) -> Reloading:
        self.stream.__enter__()
        self.control.take(self.stream)
        self.thread = threading.Thread(target=self._iterate)
        self.thread.start()
        return self

    def _iterate(self) -> None:
        for result in self.stream:
            self.results.append(result)

    def hear(self, text: str, count: int = 1) -> None:
        wait_until(lambda: sum(text in line for line in self.said) >= count)

    def __exit__(self, *exception: object) -> None:
        self.stream.stop()
        self.thread.join(20)
        self.stream.__exit__()
        self.control.close()
        assert all(is_its_own(result) for result in self.results)


@pytest.mark.parametrize("error", [TypeError("'int' object is not subscriptable"), KeyError("x"), BundleError("bad")])
def test_whatever_a_new_bundle_is_like_the_next_one_is_still_read(first: Bundle, error: Exception) -> None:
    outcomes: list[Any] = [error, error, edgead.load(first.path, engine="onnxruntime")]

    def opens(path: Path) -> Inspector:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[no-any-return]

    old, new = edgead.load(first.path, engine="onnxruntime"), outcomes[-1]
    with Reloading(old, None, opens) as running:
        for _ in range(3):
            running.control._want_reload(0, None)
        running.hear("The bundle was read again: first")
        assert [str(error) in line for line in running.said] == [True, True, False]
        assert running.stream.inspector is new
        assert old.closed
    assert new.closed


def test_a_successor_that_cannot_take_over_is_closed_and_said(first: Bundle, tmp_path: Path) -> None:
    """Its 16-bit images have 12 significant bits; a running camera's frames would mean something else to it."""
    twelve = make_level_bundle(tmp_path / "first.edgead", bit_depth=12)
    old, other = (edgead.load(bundle.path, engine="onnxruntime") for bundle in (first, twelve))
    with Reloading(old, None, lambda path: other) as running:
        running.control._want_reload(0, None)
        running.hear("they cannot share frames")
        assert running.stream.inspector is old
        assert other.closed
    old.close()


def test_a_reload_replaces_what_it_read_wherever_that_is_by_then(first: Bundle, second: Bundle) -> None:
    """USR1 comes while HUP still opens the bundle."""
    champion, challenger = (edgead.load(bundle.path, engine="onnxruntime") for bundle in (first, second))
    read, go_on, opened = [], threading.Event(), []

    def opens(path: Path) -> Inspector:
        read.append(path.name)
        assert go_on.wait(20)
        opened.append(edgead.load(path, engine="onnxruntime"))
        return opened[-1]

    shadow = Shadow(challenger)
    with Reloading(champion, shadow, opens) as running:
        running.control._want_reload(0, None)
        wait_until(lambda: read == ["first.edgead"])
        running.control._want_exchange(0, None)
        running.hear("now decides")
        go_on.set()
        running.hear("The bundle was read again: first")
        assert running.stream.inspector is challenger
        assert shadow.inspector is opened[0]
        assert champion.closed
        running.control._want_reload(0, None)
        running.hear("The bundle was read again: second")
        assert running.stream.inspector is opened[1]
        assert challenger.closed
    assert all(inspector.closed for inspector in opened)


def test_what_is_wanted_before_the_stream_is_done_when_there_is_one(first: Bundle, second: Bundle) -> None:
    champion, challenger = (edgead.load(bundle.path, engine="onnxruntime") for bundle in (first, second))
    running = Reloading(champion, Shadow(challenger), lambda path: edgead.load(path, engine="onnxruntime"))
    running.control._want_exchange(0, None)
    running.control._want_reload(0, None)
    with running:
        running.hear("now decides")
        running.hear("The bundle was read again: second")
    champion.close()


def test_two_bundles_of_one_name_are_two(first: Bundle, tmp_path: Path) -> None:
    same_name = make_level_bundle(tmp_path / "first.edgead", offset=0.0)
    said: list[str] = []
    with Inspector(first, open_any("onnxruntime", first)) as champion:
        result = champion.inspect(frame_of(200))
        result.frame = frame_of(200)
        for bundle, agreed in ((first, 0), (same_name, 0)):
            shadow = Shadow(Inspector(bundle, open_any("onnxruntime", bundle)), said.append)
            shadow.write(result)
            assert shadow.account()["agreed"] == agreed  # the very bundle that decided is none to compare with
        other = make_level_bundle(tmp_path / "b" / "first.edgead", offset=1e-3)
        shadow = Shadow(Inspector(other, open_any("onnxruntime", other)), said.append)
        shadow.write(result)
        assert (shadow.account(), said) == ({"agreed": 1, "disagreed": 0}, [])


@pytest.mark.parametrize("name", ["onnxruntime", pytest.param("openvino", marks=needs_openvino), "auto"])
def test_no_engine_decides_that_does_not_give_the_golden_outputs(tmp_path: Path, name: str) -> None:
    wrong = make_level_bundle(tmp_path / "wrong.edgead", golden_error=0.5)
    with pytest.raises(DeviceError, match="does not give what the bundle must give"):
        edgead.load(wrong.path, engine=name)


class Wrong:
    """An engine that is right on single frames, and wrong by so much in a batch."""

    name = "wrong in batches"

    def __init__(self, bundle: Bundle, error: float, exact: bool = True) -> None:
        self.engine, self.error, self.exact, self.closed = open_engine("onnxruntime", bundle), error, exact, False

    def infer(self, frames: Any) -> Any:
        scores, maps = self.engine.infer(frames)
        return scores + np.float32(self.error * (len(frames) > 1)), maps

    def close(self) -> None:
        self.closed = True


def test_a_batch_is_proven_too(first: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_golden(first, Wrong(first, 1.0), batch=1).good
    assert not check_golden(first, Wrong(first, 1.0), batch=3).good
    assert check_golden(first, Wrong(first, 0.0), batch=7).good
    wrong = Wrong(first, 1.0)
    monkeypatch.setattr("edgead.runtime.golden.open_engine", lambda name, bundle, **options: check(wrong, bundle))
    with pytest.raises(DeviceError, match="wrong in batches does not give what"):
        open_proven("onnxruntime", first, batch=3)
    assert wrong.closed


def test_an_engine_that_is_less_precise_by_name_may_differ_by_a_quarter_of_the_spread(first: Bundle) -> None:
    assert check_golden(first, Wrong(first, 60.0, exact=False), batch=2).good  # the golden scores are 0 to 250
    assert not check_golden(first, Wrong(first, 65.0, exact=False), batch=2).good


@needs_openvino
def test_bf16_opens_by_name_and_says_how_far_it_is(first: Bundle) -> None:
    assert not open_engine("openvino-bf16", first).exact
    assert open_engine("openvino", first).exact
    open_proven("openvino-bf16", first).close()


@pytest.mark.parametrize("outputs", [(np.zeros(2, np.float32), 0), (np.zeros(1), np.zeros((1, 64, 64))), None])
def test_outputs_of_another_shape_are_refused_where_bundles_are_made(outputs: Any) -> None:
    class Odd:
        name = "odd"

        def infer(self, frames: Any) -> Any:
            return outputs

        def close(self) -> None:
            """Nothing is kept open."""

    with pytest.raises(DeviceError, match="The engine odd returned"):
        run_singly(Odd(), np.zeros((2, 64, 64, 3), np.uint8), iter)
