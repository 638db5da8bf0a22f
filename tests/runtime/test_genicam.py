"""The GenICam plug-in: real harvesters up to the producer, and a producer's cameras made up behind its interface."""

from __future__ import annotations

import inspect
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from edgead.errors import SourceError
from edgead.runtime.inspector import Inspector
from edgead.runtime.sources import genicam, open_source
from edgead.runtime.sources import live as live_module
from edgead.runtime.stream import Policy, Stream

core = pytest.importorskip("harvesters.core", reason="harvesters is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
RNG = np.random.default_rng(0)


class Camera:
    """What `Harvester.create` gives: noise, and an error in place of some frames."""

    def __init__(self, pixel_format: str = "Mono8", fails_at: int = -1, incomplete_at: int = -1) -> None:
        self.remote_device = SimpleNamespace(node_map=SimpleNamespace(PixelFormat=SimpleNamespace(value=pixel_format)))
        self._format, self._fails_at, self._numbers = pixel_format, fails_at, itertools.count()
        self._incomplete_at = incomplete_at
        self.destroyed = False

    def start(self) -> None:
        """Nothing to start."""

    def try_fetch(self, *, timeout: float) -> Any:
        number = next(self._numbers)
        if number == self._fails_at:
            time.sleep(timeout)
        return None if number in (self._fails_at, self._incomplete_at) else Buffer(self._format, number)

    def destroy(self) -> None:
        self.destroyed = True


class Buffer:
    def __init__(self, pixel_format: str, number: int) -> None:
        self.timestamp_ns = number * 40_000_000
        data = RNG.integers(0, 256, 48 * 64, dtype=np.uint8)
        part = SimpleNamespace(data=data, height=48, width=64, data_format=pixel_format)
        self.payload = SimpleNamespace(components=[part])

    def __enter__(self) -> Buffer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.payload.components.clear()


class Harvester:
    """Stands in for `harvesters.core.Harvester`, with the calls that the plug-in makes."""

    cameras: ClassVar[tuple[Camera, ...]] = ()
    wanted: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        self._left = list(self.cameras)

    def add_file(self, file_path: str, check_existence: bool = False, check_validity: bool = False) -> None:
        """Takes any file."""

    def update(self) -> None:
        """Nothing new."""

    def create(self, search_key: Any = None) -> Camera:
        Harvester.wanted.append(search_key)
        if not self._left:
            raise ValueError("no device available: check the system setup")
        return self._left.pop(0)


@pytest.fixture
def producer(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "maker.cti"
    file.write_text("not a library")
    yield file
    genicam._open_producers.cache_clear()


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> type[Harvester]:
    monkeypatch.setattr(core, "Harvester", Harvester)
    Harvester.cameras, Harvester.wanted = (), []
    return Harvester


def test_stand_ins_have_the_real_calls() -> None:
    real: dict[str, Any] = {
        name: inspect.signature(getattr(core.Harvester, name)).parameters for name in ("add_file", "create", "update")
    }
    assert list(real["add_file"])[:4] == ["self", "file_path", "check_existence", "check_validity"]
    assert list(real["create"])[:2] == ["self", "search_key"]
    assert "timeout" in inspect.signature(core.ImageAcquirer.try_fetch).parameters
    for name in ("start", "destroy", "remote_device"):
        assert hasattr(core.ImageAcquirer, name)
    for name in ("data", "height", "width", "data_format"):
        assert hasattr(core.Component2DImage, name)


def test_a_producer_that_is_missing_or_none(producer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"No GenTL producer found at .*/none\.cti"):
        open_source(f"genicam://{producer.with_name('none.cti')}")
    monkeypatch.delenv(genicam.VARIABLE, raising=False)
    with pytest.raises(SourceError, match="No GenTL producer found"):
        open_source("genicam:")
    monkeypatch.setenv(genicam.VARIABLE, str(producer.parent))
    with pytest.raises(SourceError, match=r"is not a GenTL producer for this machine: .*too short"):
        open_source("genicam:")


def test_a_lost_camera_is_opened_again(
    producer: Path, made_up: type[Harvester], inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "FIRST_DELAY", 0.01)
    first, second = Camera(fails_at=2), Camera()
    made_up.cameras = (first, second)
    causes: list[str] = []
    with Stream(inspector, [f"genicam://{producer}?serial=A7&timeout=0.1"], Policy(on_full="wait")) as stream:
        for result in stream:
            causes.append(result.cause)
            assert result.source_id == "genicam:A7"
            if len(causes) == 5:
                stream.stop()
    assert causes[:5] == ["", "", "lost", "", ""]
    assert made_up.wanted == [{"serial_number": "A7"}] * 2
    assert first.destroyed
    assert second.destroyed


def test_a_picture_of_which_packets_are_missing_is_an_error(
    producer: Path, made_up: type[Harvester], inspector: Inspector
) -> None:
    made_up.cameras = (Camera(incomplete_at=1),)
    with Stream(inspector, [f"genicam://{producer}"], Policy(on_full="wait"), max_frames=3) as stream:
        causes = [result.cause for result in stream]
    assert causes == ["", "unreadable", ""]
    assert hasattr(core.Buffer, "timestamp_ns")


class TriggeredCamera(Camera):
    """Makes pictures 1 and 2 when it is fired, and none afterwards."""

    def __init__(self) -> None:
        super().__init__()
        names = ("Selector", "Mode", "Source", "Activation")
        self.nodes = {name: SimpleNamespace(value=None) for name in names}
        node_map = self.remote_device.node_map
        for name, node in self.nodes.items():
            setattr(node_map, f"Trigger{name}", node)
        self._waits = [0.0, 0.03, 0.0]

    def try_fetch(self, *, timeout: float) -> Any:
        if not self._waits or self._waits.pop(0) > 0:
            time.sleep(timeout)
            return None
        return Buffer("Mono8", next(self._numbers))


def test_a_camera_that_its_input_fires_waits_without_end_and_is_not_lost(
    producer: Path, made_up: type[Harvester], inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(genicam, "TICK", 0.02)
    camera = TriggeredCamera()
    made_up.cameras = (camera,)
    uri = f"genicam://{producer}?trigger=Line1&timeout=0.02"
    with Stream(inspector, [uri], Policy(on_full="wait", health="off", silence=0.2)) as stream:
        causes = []
        for result in stream:
            causes.append(result.cause)
            if result.cause == "silent":
                stream.stop()
    assert causes == ["", "", "silent"]
    assert {name: node.value for name, node in camera.nodes.items()} == {
        "Selector": "FrameStart",
        "Mode": "On",
        "Source": "Line1",
        "Activation": "RisingEdge",
    }
    assert stream.failed == {}
    made_up.cameras = (Camera(),)  # without the feature
    genicam._open_producers.cache_clear()
    with pytest.raises(SourceError, match=r"cannot be opened: .*Trigger"):
        open_source(uri)


def test_cameras_that_are_opened_at_once_load_a_producer_once(
    producer: Path, made_up: type[Harvester], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def add_file(_self: Harvester, file_path: str, **_: bool) -> None:
        loaded.append(file_path)
        time.sleep(0.1)

    monkeypatch.setattr(Harvester, "add_file", add_file)
    made_up.cameras = (Camera(), Camera())
    with ThreadPoolExecutor(2) as pool:
        opened = list(pool.map(open_source, [f"genicam://{producer}"] * 2))
    for source in opened:
        source.__exit__(None, None, None)
    assert loaded == [str(producer)]


def test_no_camera_and_pixels_that_are_not_supported(producer: Path, made_up: type[Harvester]) -> None:
    with pytest.raises(SourceError, match="cannot be opened: no device available"):
        open_source(f"genicam://{producer}")
    genicam._open_producers.cache_clear()
    made_up.cameras = (Camera("YUV422_8"),)
    with pytest.raises(SourceError, match="cannot be opened: pixel format YUV422_8 is not supported"):
        open_source(f"genicam://{producer}")


def test_pixel_formats() -> None:
    grey = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
    assert np.array_equal(genicam.to_bgr(grey.ravel(), 6, 8, "Mono8")[..., 1], grey)
    assert np.array_equal(genicam.to_bgr(grey.ravel().astype(np.uint16) << 4, 6, 8, "Mono12")[..., 2], grey)
    colour = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    assert np.array_equal(genicam.to_bgr(colour.ravel(), 6, 8, "RGB8"), colour[..., ::-1])
    assert np.array_equal(genicam.to_bgr(colour.ravel(), 6, 8, "BGR8"), colour)
    assert not np.shares_memory(genicam.to_bgr(colour.ravel(), 6, 8, "BGR8"), colour)


@pytest.mark.parametrize("pattern", ["RG", "GB", "GR", "BG"])
def test_bayer_patterns_give_the_colours_that_they_were_made_of(pattern: str) -> None:
    bgr = np.empty((32, 32, 3), np.uint8)
    bgr[:] = (30, 90, 200)
    first, second = pattern
    row = {"R": 2, "G": 1, "B": 0}
    others = {"RG": ("G", "B"), "GB": ("R", "G"), "GR": ("B", "G"), "BG": ("G", "R")}[pattern]
    mosaic = np.empty((32, 32), np.uint8)
    for y, names in enumerate(((first, second), others)):
        for x, name in enumerate(names):
            mosaic[y::2, x::2] = bgr[0, 0, row[name]]
    image = genicam.to_bgr(mosaic.ravel(), 32, 32, f"Bayer{pattern}8")
    assert np.array_equal(image[4:-4, 4:-4], bgr[4:-4, 4:-4])
    assert cv2.countNonZero(mosaic)
