"""How a stream begins and ends: with and without `with`, with sources that hang or fail, with callbacks that raise."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from running import Camera
from test_stream import NOISE, is_balanced
from waiting import wait_until

from edgead.errors import ConfigError, DeviceError, SourceError
from edgead.images import encode_png
from edgead.runtime import stream as stream_module
from edgead.runtime.inspector import Inspector
from edgead.runtime.ledger import Ledger
from edgead.runtime.pipeline import run_stream
from edgead.runtime.sources import Captured, FrameSource
from edgead.runtime.sources.live import CameraError
from edgead.runtime.sources.opening import AwaitedCamera, open_all, split_name
from edgead.runtime.sources.python import IterableSource, SyntheticSource
from edgead.runtime.stream import Policy, Stream


def capture_threads() -> int:
    return sum(thread.name.startswith("capture-") for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = capture_threads()
    yield
    gc.collect()
    wait_until(lambda: capture_threads() <= before)


class Stubborn(FrameSource):
    """Hangs where it is told to, until it is released."""

    live = True

    def __init__(self, where: str, name: str = "stubborn") -> None:
        super().__init__(name)
        self.where, self.released = where, threading.Event()

    def _hang(self, where: str) -> None:
        if where == self.where:
            self.released.wait(60)

    def __enter__(self) -> Iterator[Captured]:
        self._hang("open")
        return super().__enter__()

    def read(self) -> Iterator[Captured]:
        for number in range(3):
            yield Captured(NOISE[number], "", self.name, number, time.monotonic())
        self._hang("read")
        while self.where == "ignores stop" and not self.released.is_set():
            yield Captured(NOISE[0], "", self.name, 3, time.monotonic())
        self.stopped.wait(60)

    def stop(self) -> None:
        self._hang("stop")
        super().stop()

    def close(self) -> None:
        self._hang("close")


@pytest.mark.parametrize("where", ["open", "read", "stop", "close", "ignores stop"])
@pytest.mark.parametrize("how", ["stop", "leave"])
def test_source_that_hangs_does_not_hang_the_end(
    inspector: Inspector, where: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "LEAVE_WITHIN", 0.3)
    sources, ledger = [Stubborn(where), Camera(frames=0)], Ledger()
    stream = Stream(inspector, sources, ledger=ledger)
    begun = 0.0
    for number, _ in enumerate(stream):
        if number == 20:
            begun = time.monotonic()
            if how == "leave":
                break
            stream.stop()
    gc.collect()  # the iterator that was left
    assert begun
    assert time.monotonic() - begun < 6
    sources[0].released.set()
    wait_until(lambda: ledger.in_flight == 0)
    assert is_balanced(ledger.snapshot())


def test_stream_runs_without_a_with_block(inspector: Inspector) -> None:
    assert len([result.verdict for result in Stream(inspector, [list(NOISE[:5])])]) == 5


def test_stream_runs_once(inspector: Inspector) -> None:
    stream = Stream(inspector, [list(NOISE[:2])])
    assert len(list(stream)) == 2
    with pytest.raises(ConfigError, match="iterated over only once"):
        iter(stream)
    with pytest.raises(ConfigError, match="runs only once"), stream:
        pass


def test_iterator_that_is_left_releases_the_camera(inspector: Inspector) -> None:
    camera = Camera()
    iterator = iter(Stream(inspector, [camera]))
    next(iterator)
    assert not camera.stopped.is_set()
    del iterator
    assert camera.stopped.is_set()


@pytest.mark.parametrize("with_block", [False, True])
def test_error_in_the_loop_body_ends_the_capture(inspector: Inspector, with_block: bool) -> None:
    camera = Camera()

    def consume(stream: Stream) -> None:
        for _ in stream:
            raise RuntimeError("the gate is stuck")

    stream = Stream(inspector, [camera])
    with pytest.raises(RuntimeError, match="gate is stuck"), stream if with_block else contextlib.nullcontext():
        consume(stream)
    assert camera.stopped.is_set()


def test_frames_that_ctrl_c_interrupts_are_dropped(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(inspector.engine.inner, "infer", interrupted)
    told: list[tuple[int | None, str]] = []
    stream = Stream(
        inspector, [list(NOISE[:3])], Policy(batch=2), on_drop=lambda one, cause: told.append((one.frame_id, cause))
    )
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    figures = stream.ledger.snapshot()
    assert is_balanced(figures)
    assert figures["in_flight"] == 0
    assert sorted(told) == [(number, "stopped") for number in range(figures["dropped"])]


def test_drop_callback_hears_of_results_that_are_left(inspector: Inspector) -> None:
    told: list[int | None] = []
    policy = Policy(batch=2, capacity=2)
    stream = Stream(inspector, [list(NOISE[:2])], policy, on_drop=lambda one, _: told.append(one.frame_id))
    with stream:
        wait_until(lambda: not capture_threads())  # both frames wait for the engine
        for _ in stream:
            break
    assert told == [1]
    assert stream.ledger.in_flight == 0


@pytest.mark.parametrize("cause", ["lost", "silent", "drift"])
def test_a_report_with_a_number_is_no_frame(inspector: Inspector, cause: str) -> None:
    class Reports(FrameSource):
        def read(self) -> Iterator[Captured]:
            yield Captured(NOISE[0], "", self.name, 0, time.monotonic())
            yield Captured(None, "cable pulled", self.name, 1, time.monotonic(), cause=cause)
            yield Captured(NOISE[1], "", self.name, 1, time.monotonic())

    stream = Stream(inspector, [Reports("own")])
    assert [(result.frame_id, result.cause) for result in stream] == [(0, ""), (None, cause), (1, "")]
    figures = stream.ledger.snapshot()
    assert is_balanced(figures)
    assert (figures["captured"], figures["in_flight"], figures["reported_by_cause"][cause]) == (2, 0, 1)


def test_drop_callback_that_raises_stops_nothing_and_is_said_once(inspector: Inspector) -> None:
    said: list[str] = []

    def on_drop(captured: Captured, cause: str) -> None:
        raise SystemExit("enough") if captured.frame_id % 2 else IndexError(str(captured.frame_id))

    ledger = Ledger()
    stream = Stream(inspector, [Camera(frames=60)], ledger=ledger, on_drop=on_drop, say=said.append)
    for _ in stream:
        time.sleep(0.005)
    assert ledger.captured == 60
    assert ledger.dropped > 2
    assert not stream.failed
    assert is_balanced(ledger.snapshot())
    about = [text for text in said if "on_drop" in text]
    assert all(text.startswith(("on_drop raised IndexError: ", "on_drop raised SystemExit: enough")) for text in about)
    assert 1 <= len(about) <= 2


def test_drop_callback_may_ask_the_stream(inspector: Inspector) -> None:
    """It is not called with the queue's lock held."""
    seen: list[int] = []
    stream = Stream(inspector, [Camera(frames=50)], on_drop=lambda captured, cause: seen.append(stream.ledger.dropped))
    with stream:
        for _ in stream:
            time.sleep(0.005)
    assert seen


@pytest.mark.parametrize("error", [RuntimeError("cable pulled"), SystemExit("bye"), KeyboardInterrupt()])
def test_source_that_failed_for_good_is_an_error_at_the_end(inspector: Inspector, error: BaseException) -> None:
    def breaks() -> Iterator[np.ndarray]:
        yield NOISE[0]
        raise error

    ledger, causes = Ledger(), []
    with pytest.raises(SourceError, match=r"The source bad failed: \w+"):
        run_stream(
            inspector,
            [IterableSource(breaks(), "bad"), IterableSource(list(NOISE[:3]), "good")],
            [],
            ledger,
            on_result=lambda result: causes.append((result.source_id, result.cause, result.frame_id)),
        )
    assert ("bad", "lost", None) in causes
    assert [number for name, _, number in causes if name == "good"] == [0, 1, 2]
    assert ledger.captured == 4
    assert ledger.snapshot()["reported_by_cause"]["lost"] == 1


def test_failing_engine_while_idle_ends_nothing(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    camera, said = Camera(pause=3600), []
    monkeypatch.setattr(inspector, "keep_warm", lambda: (_ for _ in ()).throw(DeviceError("gone")))

    def say(text: str) -> None:
        said.append(text)
        camera.stop()

    assert not list(Stream(inspector, [camera], Policy(keep_warm=0.05), say=say))
    assert said == ["Keeping the engine warm failed: gone"]


def test_report_pushes_out_no_frame(inspector: Inspector) -> None:
    """The last frame before a camera is lost is decided on, also where frames may be dropped."""

    def read() -> Iterator[Captured]:
        for number in range(4):
            yield Captured(NOISE[number], "", "camera", number, time.monotonic())
            wait_until(lambda wanted=number + 1: ledger.inferred == wanted or wanted == 4)
        yield Captured(None, "camera stopped", "camera", None, time.monotonic(), cause="lost")

    ledger = Ledger()
    results = []
    for result in Stream(inspector, [IterableSource(read(), "camera", live=True)], Policy(health="off"), ledger):
        time.sleep(0.05)
        results.append((result.frame_id, result.cause))
    assert results == [(0, ""), (1, ""), (2, ""), (3, ""), (None, "lost")]
    assert ledger.captured == ledger.inferred == 4


def test_silence_of_one_camera_is_reported_while_another_is_busy(inspector: Inspector) -> None:
    sources, ledger = [Camera(name="busy"), Camera(pause=3600, name="dead")], Ledger()
    stream = Stream(inspector, sources, Policy(silence=0.2), ledger)
    for result in stream:
        if result.cause == "silent":
            assert (result.source_id, result.frame_id) == ("dead", None)
            break
    assert "dead" not in {name for name, part in ledger.snapshot()["sources"].items() if part["captured"]}


def test_two_waiting_cameras_that_are_silent_for_long_lose_nothing(inspector: Inspector) -> None:
    def camera() -> Iterator[np.ndarray]:
        for frame in NOISE[:3]:
            yield frame
            time.sleep(0.4)

    sources = [IterableSource(camera(), name=name, live=True) for name in "AB"]
    results = []
    for result in Stream(inspector, sources, Policy(on_full="wait", silence=0.1, health="off")):
        time.sleep(0.2)
        results.append((result.source_id, result.frame_id))
    for name in "AB":
        assert [number for source, number in results if source == name and number is not None] == [0, 1, 2]
    assert None in {number for _, number in results}


def test_sources_of_one_name_are_refused(inspector: Inspector) -> None:
    with pytest.raises(ConfigError, match="2 sources have the name iterable"):
        Stream(inspector, [NOISE[:1], NOISE[1:]])
    mine = [Camera(), Camera()]
    with pytest.raises(ConfigError, match="--source left=URI"):
        Stream(inspector, mine)
    assert not any(camera.stopped.is_set() for camera in mine)  # what the caller opened is left alone
    named = Stream(inspector, {"left": NOISE[:2], "right": NOISE[2:3]})
    assert sorted((result.source_id, result.frame_id) for result in named) == [("left", 0), ("left", 1), ("right", 0)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("front=rtsp://u:p@host/x?a=b", ("front", "rtsp://u:p@host/x?a=b")),
        ("cell-7.left=0", ("cell-7.left", "0")),
        ("synthetic:?frames=2", ("", "synthetic:?frames=2")),
        ("http://host/x?channel=1", ("", "http://host/x?channel=1")),
        ("0", ("", "0")),
    ],
)
def test_names_of_sources(text: str, parts: tuple[str, str]) -> None:
    assert split_name(text) == parts


def test_path_with_an_equals_sign_is_a_path(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "date=2026").mkdir()
    assert split_name("date=2026") == ("", "date=2026")


@pytest.mark.parametrize(
    "sources",
    [("in", "./in"), ("in", "link"), ("in", Path("in/day")), ("in/*.png", "in/a.png"), ("a.avi", "b.avi")],
    ids=str,
)
def test_a_file_that_two_sources_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: tuple[Any, Any]
) -> None:
    """It had two results. Who names both sources wants that."""
    monkeypatch.chdir(tmp_path)
    Path("in/day").mkdir(parents=True)
    for path in ("in/a.png", "in/day/b.png"):
        Path(path).write_bytes(encode_png(NOISE[0]))
    Path("link").symlink_to("in")
    writer = cv2.VideoWriter("a.avi", cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    Path("b.avi").symlink_to("a.avi")
    with pytest.raises(ConfigError, match=r"both read .*, which would have two results.\nName both"):
        open_all(sources)
    opened = [*open_all(dict(zip("LR", sources))), *open_all(["in/a.png", "in/day"])]
    opened += open_all([f"{name}={source}" for name, source in zip("LR", sources)])
    for source in opened:
        source.__exit__(None, None, None)


def test_one_dead_camera_of_several_is_reported_and_tried_again(inspector: Inspector) -> None:
    uri = "front=rtsp://me:secret@127.0.0.1:9/line"
    good = Camera(name="good")
    stream = Stream(inspector, [uri, good])
    causes = set()
    for result in stream:
        causes.add((result.source_id, result.cause))
        assert "secret" not in result.reason
        if ("front", "lost") in causes and ("good", "") in causes:
            break
    with pytest.raises(SourceError, match="Connection refused"):  # alone, a wrong name is seen at once
        open_all([uri])
    with pytest.raises(SourceError, match="does not exist"):  # and what is no camera is not waited for
        open_all([Camera(), "no/such/file"])


def test_awaited_camera_is_opened_as_soon_as_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = iter([CameraError("not yet"), CameraError("not yet"), SyntheticSource((8, 8), frames=2)])

    def open_uri(uri: str, pixels: Any) -> Any:
        found = next(tries)
        if isinstance(found, Exception):
            raise found
        return found

    source = AwaitedCamera("left=0", None, CameraError("dead"), open_uri)  # type: ignore[arg-type]
    waits: list[float] = []
    monkeypatch.setattr(source.stopped, "wait", lambda seconds: waits.append(seconds))
    with source as frames:
        given = [(captured.source_id, captured.frame_id, captured.cause) for captured in frames]
    assert given == [("left", None, "lost"), ("left", 0, ""), ("left", 1, "")]
    assert waits == [0.5, 1.0, 2.0]


def test_old_picture_of_a_camera_is_stale_without_any_option(inspector: Inspector) -> None:
    def read() -> Iterator[Captured]:
        for number, age in enumerate([0.0, 12.0, 1.0]):
            now = time.monotonic()
            yield Captured(NOISE[number], "", "camera", number, now, t_made=now - age)

    def decide(**options: Any) -> list[str]:
        source = IterableSource(read(), "camera", live=True)
        policy = Policy(on_full="wait", health="off", **options)
        return [result.cause for result in Stream(inspector, [source], policy)]

    assert decide() == ["", "stale", ""]
    assert decide(max_staleness=500) == ["", "stale", "stale"]
    assert decide(max_staleness=float("inf")) == ["", "", ""]
    assert decide(max_staleness=60_000, deadline=500) == ["", "late", "late"]


def test_age_is_in_the_results_times(inspector: Inspector) -> None:
    now = time.monotonic()
    source = IterableSource([Captured(NOISE[0], "", "camera", 0, now, t_made=now - 1.5)], live=True)
    [result] = Stream(inspector, [source], Policy(health="off"))
    assert result.t_capture == now - 1.5
    assert result.latency_ms["source"] == pytest.approx(1500)
    assert result.latency_ms["total"] >= 1500


@pytest.mark.parametrize(
    "options",
    [
        {name: value}
        for name in ("capacity", "batch", "silence", "max_staleness", "deadline", "blurred_below", "frozen_after")
        for value in (-1, float("nan"), "5", True)
    ]
    + [{"keep_warm": -1}, {"keep_warm": float("nan")}, {"keep_warm": float("inf")}, {"batch": 1.5}, {"capacity": 0}]
    + [{"untrained_aspect": "fail"}, {"health": "some"}],
)
def test_policy_refuses_what_makes_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Policy(**options)
