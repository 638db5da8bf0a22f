"""Sources: every frame of files, the newest of cameras, errors as frames."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.errors import SourceError
from edgead.runtime.sources import CameraSource, Captured, open_source

Write = Callable[..., Path]


def read_all(uri: Path | str) -> list[Captured]:
    with open_source(str(uri)) as frames:
        return list(frames)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for index in range(12):
        writer.write(np.full((48, 64, 3), index * 20, np.uint8))
    writer.release()
    return path


def test_images_folders_and_globs(tmp_path: Path, write_image: Write) -> None:
    first = write_image(tmp_path / "b.png", seed=1)
    write_image(tmp_path / "sub" / "a.png", seed=2)
    (tmp_path / "notes.txt").write_text("")
    [single] = read_all(first)
    assert (single.image.shape, single.error, single.frame_id, single.path) == ((32, 40, 3), "", 0, str(first))  # type: ignore[union-attr]
    assert [Path(captured.path).name for captured in read_all(tmp_path)] == ["b.png", "a.png"]
    assert [Path(captured.path).name for captured in read_all(f"{tmp_path}/**/*.png")] == ["b.png", "a.png"]
    assert [captured.frame_id for captured in read_all(tmp_path)] == [0, 1]


def test_an_unreadable_image_is_a_frame_with_an_error(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"damaged")
    write_image(tmp_path / "2.png")
    captured = read_all(tmp_path)
    assert [item.image is not None for item in captured] == [True, False, True]
    assert "1.png" in captured[1].error


def test_a_video_gives_every_frame_in_order(video: Path) -> None:
    captured = read_all(video)
    assert [item.frame_id for item in captured] == list(range(12))
    means = [float(item.image.mean()) for item in captured if item.image is not None]
    assert np.allclose(means, np.arange(12) * 20, atol=3)


def test_a_cut_video_says_how_much_is_missing(video: Path, tmp_path: Path) -> None:
    data = video.read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(data[: int(len(data) * 0.6)])
    try:
        captured = read_all(cut)
    except SourceError:
        return  # this OpenCV refuses it as a whole, which says it too
    assert sum(item.image is not None for item in captured) < 12
    if captured[-1].image is not None:
        pytest.skip("this OpenCV repairs the index of a cut video and reports the shorter length")
    assert "ends after" in captured[-1].error


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("absent.png", "does not exist"),
        ("none/*.png", "holds no images"),
        ("rtsp://user:secret@host/line", "is not supported"),
        ("text.mp4", "neither an image nor a video"),
        ("empty", "holds no images"),
    ],
)
def test_what_is_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.mp4").write_text("not a video")
    Path("empty").mkdir()
    with pytest.raises(SourceError, match=message) as error:
        open_source(uri)
    assert "secret" not in str(error.value)


@pytest.mark.skipif(os.path.exists("/dev/video63"), reason="there is a camera with number 63 here")
def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(SourceError, match="Camera 63 cannot be opened"):
        open_source("63")


class Line:
    """A video file, opened as if it were a camera: frames come when the test lets them, and then it hangs or ends."""

    def __init__(self, video: Path, hang: bool = False) -> None:
        self.capture, self.hang = cv2.VideoCapture(str(video)), hang
        self.released, self.taken = threading.Event(), 0
        self.tickets = threading.Semaphore(0)

    def __call__(self, index: int) -> Line:
        return self

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return bool(self.capture.isOpened())

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.tickets.acquire()
        there, image = self.capture.read()
        self.taken += 1
        return there, image

    def release(self) -> None:
        self.released.set()
        self.capture.release()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_camera_gives_the_newest_frame_and_counts_the_overtaken(video: Path) -> None:
    line = Line(video)
    source = CameraSource(0, line, silence=20)
    with source as frames:
        for _ in range(5):
            line.tickets.release()
        wait_until(lambda: source.dropped == 4)
        newest = next(frames)
        assert newest.frame_id == 4
        assert newest.image is not None
        line.tickets.release()
        assert next(frames).frame_id == 5
        for _ in range(20):
            line.tickets.release()
        rest = list(frames)
    assert rest[-1].error == "camera 0 stopped"
    delivered = 2 + sum(item.image is not None for item in rest)
    assert delivered + source.dropped == 12
    assert line.released.is_set()


def test_a_camera_that_is_silent_is_reported_and_waited_for(video: Path) -> None:
    line = Line(video)
    source = CameraSource(0, line, silence=0.05)
    with source as frames:
        assert next(frames).error == "camera 0 gave no frame for 0.05 s"
        assert next(frames).image is None
        line.tickets.release()
        wait_until(lambda: line.taken == 1)
        while (captured := next(frames)).image is None:
            pass
        assert captured.frame_id == 0
        line.tickets.release(50)
    assert line.released.is_set()
