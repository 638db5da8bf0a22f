"""V4L2 cameras. No test machine has one: OpenCV's VideoCapture is stood in for, with what its V4L2 part does."""

from __future__ import annotations

from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from edgead.errors import ConfigError, SourceError
from edgead.runtime.sources import open_source, v4l2
from edgead.runtime.sources.v4l2 import V4l2Capture, Wish, fourcc_text

JPEG = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))[1].tobytes()
MJPG, YUYV = (cv2.VideoWriter_fourcc(*code) for code in ("MJPG", "YUYV"))


class VideoCapture:
    """Takes what it supports; gives undecoded pictures where it is told to."""

    fixed: ClassVar[dict[int, float]] = {}
    given: ClassVar[list[bytes]] = []
    set_to: ClassVar[list[tuple[int, float]]] = []

    def __init__(self, device: int | str, backend: int) -> None:
        assert backend == cv2.CAP_V4L2
        self._is_open = device != "/dev/video9"
        self._has = {cv2.CAP_PROP_FRAME_WIDTH: 640, cv2.CAP_PROP_FRAME_HEIGHT: 480, cv2.CAP_PROP_FPS: 30}
        self._has |= {cv2.CAP_PROP_FOURCC: YUYV, cv2.CAP_PROP_CONVERT_RGB: 1, cv2.CAP_PROP_POS_MSEC: 12500.0}
        self._has |= self.fixed
        VideoCapture.set_to = []

    def isOpened(self) -> bool:  # noqa: N802
        return self._is_open

    def set(self, name: int, value: float) -> bool:
        self.set_to.append((name, value))
        if name in self.fixed:
            return False
        self._has[name] = value
        return True

    def get(self, name: int) -> float:
        return float(self._has.get(name, -1))

    def read(self) -> tuple[bool, Any]:
        if not self.given:
            return False, None
        data = self.given.pop(0)
        if self._has[cv2.CAP_PROP_CONVERT_RGB]:
            return True, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return True, np.frombuffer(data, np.uint8)[None]

    def release(self) -> None:
        self._is_open = False


@pytest.fixture(autouse=True)
def _camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", VideoCapture)
    monkeypatch.setattr(VideoCapture, "fixed", {})
    monkeypatch.setattr(VideoCapture, "given", [])


def test_what_is_asked_is_set_in_the_order_that_cameras_need() -> None:
    open_source("v4l2:///dev/video0?gain=4&exposure=120&fps=15&height=720&width=1280&fourcc=MJPG&focus=30").stop()
    names = [name for name, _ in VideoCapture.set_to]
    assert names == [
        cv2.CAP_PROP_FOURCC,
        cv2.CAP_PROP_FRAME_WIDTH,
        cv2.CAP_PROP_FRAME_HEIGHT,
        cv2.CAP_PROP_FPS,
        cv2.CAP_PROP_AUTO_EXPOSURE,
        cv2.CAP_PROP_EXPOSURE,
        cv2.CAP_PROP_AUTOFOCUS,
        cv2.CAP_PROP_FOCUS,
        cv2.CAP_PROP_GAIN,
        cv2.CAP_PROP_CONVERT_RGB,
    ]
    values = dict(VideoCapture.set_to)
    assert values[cv2.CAP_PROP_AUTO_EXPOSURE] == 1
    assert values[cv2.CAP_PROP_AUTOFOCUS] == 0
    assert values[cv2.CAP_PROP_EXPOSURE] == 120


@pytest.mark.parametrize(
    ("fixed", "uri", "says"),
    [
        ({cv2.CAP_PROP_FRAME_WIDTH: 1920}, "width=640&height=480", "width 640 was requested, but it is 1920"),
        ({cv2.CAP_PROP_FOURCC: YUYV}, "fourcc=MJPG", "fourcc MJPG was requested, but it is YUYV"),
        ({cv2.CAP_PROP_EXPOSURE: 157}, "exposure=120", "exposure 120 was requested, but it is 157"),
        ({cv2.CAP_PROP_AUTO_EXPOSURE: 3}, "exposure=120", "automatic exposure 1 was requested, but it is 3"),
        ({cv2.CAP_PROP_GAIN: -1}, "gain=2", "gain 2 was requested, but it is -1"),
    ],
)
def test_what_a_camera_does_not_take_is_an_error_that_names_both(
    fixed: dict[int, float], uri: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VideoCapture, "fixed", fixed)
    with pytest.raises(SourceError) as caught:
        open_source(f"v4l2:///dev/video0?{uri}")
    assert says in str(caught.value)
    assert "v4l2-ctl --device /dev/video0 --list-formats-ext" in str(caught.value)


def test_another_rate_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(VideoCapture, "fixed", {cv2.CAP_PROP_FPS: 29.97})
    open_source("v4l2:///dev/video0?fps=30").stop()
    assert not caplog.text
    open_source("v4l2:///dev/video0?fps=60").stop()
    assert "fps 60 was requested, but it is 29.97" in caplog.text


def test_options_that_cannot_be_used_are_named() -> None:
    for options, says in (
        ("fourcc=MJPEG", "four characters"),
        ("exposure=auto", "number"),
        ("iris=2", "Unknown option"),
    ):
        with pytest.raises(ConfigError, match=says):
            open_source(f"v4l2:///dev/video0?{options}")
    with pytest.raises(SourceError, match=r"cannot be opened\. Is it connected"):
        open_source("v4l2:///dev/video9")


@pytest.mark.parametrize("uri", ["v4l2:///dev/video0?fourcc=MJPG", "v4l2://0", "0"])
def test_jpegs_of_a_camera_are_checked_however_it_came_to_send_them(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VideoCapture, "fixed", {cv2.CAP_PROP_FOURCC: MJPG})
    broken = [JPEG[:900], JPEG[:900] + b"\xff\xd9", JPEG[:900] + bytes(len(JPEG) - 900), b""]
    monkeypatch.setattr(VideoCapture, "given", [JPEG, *broken, JPEG])
    with open_source(uri) as frames:
        given = [next(frames) for _ in range(6)]
    assert [captured.cause for captured in given] == ["", *["unreadable"] * 4, ""]
    assert given[0].image.shape == (48, 64, 3)


def test_other_formats_stay_with_opencv_and_frames_have_the_drivers_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VideoCapture, "given", [JPEG])
    capture = V4l2Capture(0, [Wish("width", "CAP_PROP_FRAME_WIDTH", 640)], [])
    there, image = capture.read()
    assert there
    assert image.shape == (48, 64, 3)
    assert (capture.stamp, capture.flaw) == (12.5, "")


def test_every_option_is_a_property_of_opencv() -> None:
    for name in (*v4l2._FORMAT.values(), *v4l2._CONTROLS.values(), *(name for name, _ in v4l2._AUTOMATIC.values())):
        assert hasattr(cv2, name)
    assert fourcc_text(MJPG) == "MJPG"
    assert fourcc_text(-1) == "ÿÿÿÿ"
