"""Swaps, exchanges with the shadow and reloads while frames come: every result has the score of its own frame."""

from __future__ import annotations

import logging
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from level_bundle import (
    ENGINES,
    LEVELS,
    OFFSETS,
    frame_of,
    is_its_own,
    level_of,
    make_level_bundle,
    numbered,
    open_any,
)
from waiting import wait_until

import edgead
from edgead.bundle import Bundle
from edgead.decision import Verdict
from edgead.errors import BundleError, ConfigError, DeviceError
from edgead.runtime import handover, observer
from edgead.runtime.control import Control
from edgead.runtime.health import HealthLimits
from edgead.runtime.inspector import Inspector
from edgead.runtime.observer import Line
from edgead.runtime.result import Result
from edgead.runtime.shadow import Shadow
from edgead.runtime.sources.python import IterableSource
from edgead.runtime.stream import Policy, Stream


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
                with pytest.raises(BundleError, match=r"golden\.npz is missing"):
                    stream.swap(unready)
                with pytest.raises(ConfigError, match="is closed"):
                    stream.swap(closed)
                stream.call_soon(lambda: stream.take_over(unready))
    assert stream.inspector is inspector
    assert len(results) == 8
    assert all(is_its_own(result) for result in results)
    assert "the stream continues: " in caplog.text
    with pytest.raises(ConfigError, match="first is closed"):
        Stream(closed, [IterableSource(numbered(8))])


@pytest.mark.parametrize("begun", [False, True])
def test_a_swap_after_the_end_is_an_error_and_one_before_it_is_made(first: Bundle, second: Bundle, begun: bool) -> None:
    """It was taken without a word, and never made: nobody released the old inspector."""
    one, other = (Inspector(bundle, open_any("onnxruntime", bundle)) for bundle in (first, second))
    retired: list[Inspector] = []
    with Stream(one, [IterableSource(numbered(2))], max_frames=2) as stream:
        for result in stream if begun else ():
            if result.frame_id == 1:  # the last one
                stream.swap(other, retired.append)
        if not begun:
            stream.swap(other, retired.append)
    assert (stream.inspector, retired) == (other, [one])
    with pytest.raises(ConfigError, match="The stream has ended"):
        stream.swap(one, retired.append)
    assert not stream.call_soon(lambda: retired.append(one))
    assert (stream.inspector, retired) == (other, [one])
    began = time.monotonic()
    with pytest.raises(ConfigError, match="The run has ended"):
        Line(stream, Control(None, print), stream.ledger, []).set_threshold(second.manifest.digest, 1.0)
    assert time.monotonic() - began < observer.ANSWER_WITHIN


def test_actions_that_come_while_the_stream_ends_are_run_or_refused(first: Bundle) -> None:
    with edgead.load(first.path, engine="onnxruntime") as inspector:
        for _ in range(20):
            ran: list[int] = []
            taken: list[int] = []
            stream = Stream(inspector, [IterableSource(numbered(1))])
            begin = threading.Event()

            def add(
                stream: Stream = stream,
                ran: list[int] = ran,
                taken: list[int] = taken,
                begin: threading.Event = begin,
            ) -> None:
                begin.wait()
                for number in range(200):
                    if stream.call_soon(lambda number=number: ran.append(number)):
                        taken.append(number)

            thread = threading.Thread(target=add)
            thread.start()
            for _result in stream:
                begin.set()
            thread.join()
            assert sorted(ran) == taken


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


def test_no_frame_is_decided_that_the_new_bundle_holds_for_unhealthy(
    first: Bundle, second: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a product of dark parts a frame waits, prepared, while the one of light parts takes over."""
    dark = {True}
    monkeypatch.setattr(handover, "limits_from", lambda frames, *_: HealthLimits(dark=dark.pop()))
    policy = Policy(health="all", frozen_after=0)
    results: list[Result] = []
    with (
        edgead.load(first.path, engine="onnxruntime") as inspector,
        edgead.load(second.path, engine="onnxruntime") as successor,
        Stream(inspector, [IterableSource([frame_of(0)] * 8)], policy) as stream,
    ):
        dark.add(False)
        for result in stream:
            results.append(result)
            if len(results) == 2:
                wait_until(lambda: stream._queue._sources[0].frames > 0)
                stream.swap(successor)
    decided = [(result.bundle, result.cause) for result in results]
    assert decided == [("first", "")] * 2 + [("second", "black")] * 6


def test_kept_frames_of_the_models_size_stay_what_they_are_after_a_swap(
    first: Bundle, second: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames that waited, checked again by the new bundle's limits, were written over by later ones: a reject had
    another part's picture, and arrays of the caller were changed."""
    limits = [HealthLimits(dark=True), HealthLimits(dark=True, blurred_below=0.2)]
    monkeypatch.setattr(handover, "limits_from", lambda frames, *_: limits.pop(0))
    frames, results = list(numbered(40)), list[Result]()
    with (
        edgead.load(first.path, engine="onnxruntime") as inspector,
        edgead.load(second.path, engine="onnxruntime") as successor,
        Stream(inspector, [IterableSource(frames)], Policy(health="all", frozen_after=0), keep_frames=True) as stream,
    ):
        for result in stream:
            results.append(result)
            if len(results) == 2:
                wait_until(lambda: stream._queue._sources[0].frames > 0)
                stream.swap(successor)
    assert {result.bundle for result in results} == {"first", "second"}
    assert all(is_its_own(result) for result in results)
    levels = [level_of(number) for number in range(40)]
    assert [int(result.frame.max()) for result in results if result.frame is not None] == levels
    assert [int(frame.max()) for frame in frames] == levels


def test_a_threshold_is_not_set_on_another_product_of_the_same_bundle(first: Bundle) -> None:
    """Somebody looked at the scores of one product, and the line changed over to one that shares its bundle."""
    with (
        edgead.load(first.path, engine="onnxruntime", threshold=500.0) as bottle,
        edgead.load(first.path, engine="onnxruntime", threshold=600.0) as sample,
        Stream(bottle, [IterableSource(numbered(8))]) as stream,
    ):
        bottle.recipe, sample.recipe = "bottle 1", "sample 1"
        line = Line(stream, Control(None, print), stream.ledger, [])
        stream.swap(sample)
        results = iter(stream)
        next(results)
        asks = threading.Thread(target=lambda: list(results))
        asks.start()
        with pytest.raises(ConfigError, match="Another bundle or product decides now"):
            line.set_threshold(first.manifest.digest, 7.0, "bottle 1")
        asks.join()
        assert (bottle.threshold, sample.threshold) == (500.0, 600.0)


def test_a_threshold_is_never_set_on_a_bundle_that_leaves(
    first: Bundle, second: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The live page would say that it is set. Another bundle comes in at the same moment; or nobody decides."""
    said: list[str] = []
    with (
        edgead.load(first.path, engine="onnxruntime", threshold=500.0) as inspector,
        edgead.load(second.path, engine="onnxruntime", threshold=500.0) as successor,
        Stream(inspector, [IterableSource(numbered(8))]) as stream,
    ):
        line = Line(stream, Control(None, said.append), stream.ledger, [])

        def set_threshold(value: float) -> None:
            try:
                line.set_threshold(first.manifest.digest, value)
            except ConfigError as error:
                said.append(str(error))

        monkeypatch.setattr(observer, "ANSWER_WITHIN", 0.01)
        set_threshold(7.0)
        assert said == ["The line decides nothing now, and the threshold is as it was."]
        monkeypatch.undo()
        results = iter(stream)
        asks = threading.Thread(target=set_threshold, args=(400.0,))
        asks.start()
        wait_until(lambda: len(stream._requests._actions) == 2)  # with the one that was given up
        assert next(results).threshold == 400.0
        asks.join()
        stream.swap(successor)
        asks = threading.Thread(target=set_threshold, args=(300.0,))
        asks.start()
        wait_until(lambda: len(stream._requests._actions) == 2)
        assert {result.threshold for result in results} == {500.0}
        asks.join()
        assert said[1:] == ["Another bundle or product decides now. Look at its scores before you set a threshold."]


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
        running.hear("Bundle reloaded: first")
        assert [str(error) in line for line in running.said] == [True, True, False]
        assert running.stream.inspector is new
        assert old.closed
    assert new.closed


def test_the_same_bundle_keeps_the_threshold_that_was_set_during_the_run(first: Bundle, second: Bundle) -> None:
    """Somebody has set it on the live page; a signal to read the bundle again does not undo that."""
    opened = [edgead.load(bundle.path, engine="onnxruntime") for bundle in (first, first, second)]
    old, again, other = opened
    outcomes = [again, other]
    with Reloading(old, None, lambda path: outcomes.pop(0)) as running:
        old.threshold = 77.0
        running.control._want_reload(0, None)
        running.hear("keeps the threshold of this run, 77")
        running.hear("Bundle reloaded: first")
        assert (running.stream.inspector, again.threshold) == (again, 77.0)
        running.control._want_reload(0, None)
        running.hear("Bundle reloaded: second")
        assert other.threshold == second.manifest.threshold.value


def test_a_threshold_of_the_live_page_ends_when_the_shadow_decides(first: Bundle, second: Bundle) -> None:
    """It came back with its bundle at the second signal USR1."""
    champion, challenger = (edgead.load(bundle.path, engine="onnxruntime") for bundle in (first, second))
    own = champion.threshold
    with Reloading(champion, Shadow(challenger), lambda path: champion) as running:
        champion.threshold = 77.0
        running.control._want_exchange(0, None)
        running.hear("The shadow second now decides")
        running.hear(f"first: the threshold that was set during the run, 77, is over; it is {own:.6g} again")
        running.control._want_exchange(0, None)
        running.hear("The shadow first now decides")
        assert champion.threshold == own
    champion.close()
    challenger.close()


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
        running.hear("Bundle reloaded: first")
        assert running.stream.inspector is challenger
        assert shadow.inspector is opened[0]
        assert champion.closed
        running.control._want_reload(0, None)
        running.hear("Bundle reloaded: second")
        assert running.stream.inspector is opened[1]
        assert challenger.closed
    assert all(inspector.closed for inspector in opened)


@pytest.mark.parametrize("with_shadow", [False, True])
def test_a_reload_does_not_undo_a_changeover(first: Bundle, second: Bundle, with_shadow: bool, tmp_path: Path) -> None:
    """Somebody chose another bundle on the live page while HUP still opened the old one, which decided in the end."""
    third = make_level_bundle(tmp_path / "first.edgead").path
    champion, beside = (edgead.load(path, engine="onnxruntime") for path in (first.path, third))
    read, go_on, opened = [], threading.Event(), []

    def opens(path: Path) -> Inspector:
        read.append(path)
        assert path != first.path or go_on.wait(20)
        opened.append(edgead.load(path, engine="onnxruntime"))
        return opened[-1]

    shadow = Shadow(beside)
    with beside, Reloading(champion, shadow if with_shadow else None, opens) as running:
        running.control._want_reload(0, None)
        wait_until(lambda: read == [first.path])
        running.control.change_over(running.stream, second.path)
        go_on.set()
        running.hear("first no longer decides")
        assert running.stream.inspector is opened[0]
        assert shadow.inspector is beside
        assert running.control.reloads == {"done": 0, "refused": 1}
        assert opened[1].closed


def test_a_shadow_that_is_copied_file_by_file_is_taken_when_it_is_whole(
    first: Bundle, second: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifest comes first, as where a folder is copied over a slow network."""
    monkeypatch.setattr("edgead.runtime.control.LOOK_AGAIN", 0.02)
    place, shadow = tmp_path / "second.edgead", Shadow(None)
    running = Reloading(edgead.load(first.path, engine="onnxruntime"), shadow, edgead.load)
    running.control.shadow_path = place
    with running:
        place.mkdir()
        shutil.copy(second.path / "manifest.json", place)
        running.hear("cannot become the shadow")
        for file in second.path.iterdir():
            shutil.copy2(file, place)
        running.hear("second is the shadow now")
        assert shadow.inspector
        assert shadow.inspector.bundle.manifest.digest == second.manifest.digest
        running.control._ended.set()


def test_what_is_wanted_before_the_stream_is_done_when_there_is_one(first: Bundle, second: Bundle) -> None:
    champion, challenger = (edgead.load(bundle.path, engine="onnxruntime") for bundle in (first, second))
    running = Reloading(champion, Shadow(challenger), lambda path: edgead.load(path, engine="onnxruntime"))
    running.control._want_exchange(0, None)
    running.control._want_reload(0, None)
    with running:
        running.hear("now decides")
        running.hear("Bundle reloaded: second")
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
