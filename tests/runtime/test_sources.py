"""Sources by name, from Python and from plug-ins; health; and that credentials are never shown."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import edgead
from edgead.bundle.manifest import ImageSizes
from edgead.decision import Verdict
from edgead.errors import ConfigError, SourceError
from edgead.geometry import Geometry
from edgead.images import PixelFormat, encode_png
from edgead.runtime.handover import activate
from edgead.runtime.health import Health, HealthLimits, limits_from
from edgead.runtime.inspector import Inspector
from edgead.runtime.sources import Captured, LiveSource, Source, open_source, redact
from edgead.runtime.sources import live as live_module
from edgead.runtime.sources.csi import csi_pipeline
from edgead.runtime.sources.opening import as_source
from edgead.runtime.sources.python import IterableSource, SyntheticSource
from edgead.runtime.stream import Policy, Stream
from tests.level_bundle import make_level_bundle

NOISE = np.random.default_rng(1).integers(0, 256, (8, 48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://user:secret@cam-3:554/line?token=secret", "rtsp://cam-3:554/line?token=…"),
        ("http://user@host/x#secret", "http://host/x"),
        ("/plain/path", "/plain/path"),
        ("0", "0"),
    ],
)
def test_redact(uri: str, shown: str) -> None:
    assert redact(uri) == shown


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("ftp://host/x", "Unknown source 'ftp://…'"),
        ("no/such/file", "does not exist"),
        ("watch:no/such/folder", "does not exist"),
        ("replay:no/such/folder", "is not a recording"),
        ("replay:", "replay: needs the folder of a recording. Is the variable"),
        ("rtsp://user:secret@127.0.0.1:9/line", "rtsp://127.0.0.1:9/line cannot be opened: Connection refused"),
        ("http://user:secret@127.0.0.1:9/x?key=secret", "cannot be opened: Connection refused"),
        ("v4l2:///dev/video99", "cannot be opened. Is it connected"),
        ("77", "Camera 77 cannot be opened"),
    ],
)
def test_what_is_not_there_is_named_without_credentials(uri: str, says: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(uri)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value) + "".join(capfd.readouterr())


def test_options_of_a_uri_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"Unknown option 'speed' of synthetic:.*Available: width"):
        open_source("synthetic:?speed=3")
    with pytest.raises(ConfigError, match="come behind a"):
        open_source("synthetic:frames=3")
    with pytest.raises(ConfigError, match="fps must be a number"):
        open_source("synthetic:?fps=fast")


def test_csi_says_what_opencv_lacks() -> None:
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        pytest.skip("this OpenCV has GStreamer")
    with pytest.raises(SourceError, match="needs an OpenCV with GStreamer"):
        open_source("csi://0")
    with pytest.raises(ConfigError, match="as in csi://0"):
        open_source("csi://left")
    assert "sensor-id=1 " in csi_pipeline(1, 1280, 720, 60)


def test_camera_that_nobody_read_for_long_is_opened_again() -> None:
    """Pictures have piled up since it was opened, and their times say nothing about how long ago that was."""
    old, new = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4, 3), np.uint8)
    captures = iter([FakeCapture([old]), FakeCapture([new])])
    source = LiveSource("cam", lambda: next(captures))
    source._opened_at -= 5
    captured = next(iter(source.__enter__()))
    assert captured.image is not None
    assert captured.image[0, 0, 0] == 1


def test_synthetic_frames_are_the_same_for_the_same_seed() -> None:
    first, second = (list(open_source("synthetic:?frames=3&width=32&height=24&seed=5").__enter__()) for _ in range(2))
    assert [captured.frame_id for captured in first] == [0, 1, 2]
    assert first[0].image is not None
    assert first[0].image.shape == (24, 32, 3)
    np.testing.assert_array_equal(first[2].image, second[2].image)
    assert SyntheticSource(fps=25).live
    assert not SyntheticSource().live


def test_plugin_brings_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[PixelFormat] = []

    class Plugin:
        name = "vendor"

        def load(self) -> Any:
            return self.open

        def open(self, uri: str, pixels: PixelFormat) -> Source:
            given.append(pixels)
            return IterableSource([], name=uri)

    monkeypatch.setattr(metadata, "entry_points", lambda group: [Plugin()] if group == "edgead.sources" else [])
    wanted = PixelFormat(12, (0.2, 1.4))
    assert open_source("vendor://serial", wanted).name == "vendor://serial"
    assert given == [wanted]


def test_watched_folder_gives_each_whole_file_once(tmp_path: Path, inspector: Inspector) -> None:
    (tmp_path / "before.png").write_bytes(encode_png(NOISE[0]))
    source = open_source(f"watch:{tmp_path}?poll=0.02")
    results: list[str] = []
    with Stream(inspector, [source]) as stream:
        data = encode_png(NOISE[1])
        with (tmp_path / "slow.png").open("wb") as half:
            half.write(data[:50])
            half.flush()
            # Written while the first half lies there; its own result says that the folder is being looked at.
            (tmp_path / "fast.png").write_bytes(data)
            for result in stream:
                results.append(f"{Path(result.path).name} {result.cause}")
                if results == ["fast.png "] or (len(results) == 2 and "slow.png unreadable" in results):
                    half.write(data[50:])
                    half.flush()
                if "slow.png " in results:
                    stream.stop()
    assert "fast.png " in results
    assert results[-1] == "slow.png "
    assert not any("before" in name for name in results)


def test_watched_folder_survives_its_removal(tmp_path: Path, inspector: Inspector) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    source = open_source(f"watch:{folder}?poll=0.02&existing=1")
    (folder / "a.png").write_bytes(encode_png(NOISE[0]))
    with Stream(inspector, [source]) as stream:
        results = iter(stream)
        assert next(results).verdict is not Verdict.UNKNOWN
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "b.png").write_bytes(encode_png(NOISE[1]))
        assert Path(next(results).path).name == "b.png"


class FakeCapture:
    """Gives some frames and then nothing, like a camera that is unplugged."""

    def __init__(self, frames: list[np.ndarray]) -> None:
        self.frames = list(frames)
        self.there = bool(frames)

    def isOpened(self) -> bool:  # noqa: N802
        return self.there

    def read(self) -> tuple[bool, np.ndarray | None]:
        return (True, self.frames.pop(0)) if self.frames else (False, None)

    def release(self) -> None:
        self.there = False


def test_lost_camera_is_opened_again_for_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    captures = iter([FakeCapture([NOISE[0]])] + [FakeCapture([])] * 8 + [FakeCapture([NOISE[1], NOISE[2]])])
    source = LiveSource("cam", lambda: next(captures))
    monkeypatch.setattr(source.stopped, "wait", lambda seconds: waits.append(seconds))
    given: list[Captured] = []
    for captured in source.read():
        given.append(captured)
        if len(given) == 5:
            source.stop()
    assert [captured.cause for captured in given] == ["", "lost", "", "", "lost"]
    assert [captured.frame_id for captured in given] == [0, None, 1, 2, None]
    assert waits == [0.5, 1, 2, 4, 8, 10, 10, 10, 10]
    assert live_module.LONGEST_DELAY == 10


def test_camera_that_changes_its_resolution_goes_on(inspector: Inspector) -> None:
    sizes = [(48, 64), (96, 128), (30, 20)]
    frames = [np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    results = list(inspector.stream(IterableSource(frames, live=False)))
    assert [result.frame_size for result in results] == sizes
    assert [result.mask.shape for result in results] == sizes
    assert Verdict.UNKNOWN not in {result.verdict for result in results}


def test_health_names_black_blurred_and_frozen(inspector: Inspector) -> None:
    golden = inspector.bundle.golden().frames
    good = golden[0]
    pictures = {
        "": good,
        "black": np.random.default_rng(0).integers(0, 6, good.shape, dtype=np.uint8),
        "blurred": cv2.GaussianBlur(good, (0, 0), 6),
    }
    for cause, picture in pictures.items():
        assert Health(limits_from(golden)).check(picture, picture)[0] == cause
    health = Health(limits_from(golden, frozen_after=2.0))

    def check(frame: np.ndarray, now: float) -> str:
        health.look(frame, now)
        return health.check(frame, good)[0]

    assert [check(good, now) for now in (0.0, 1.0, 1.9, 2.0, 2.5)] == ["", "", "", "frozen", "frozen"]
    assert check(golden[1], 3.0) == ""
    assert check(golden[1][::2, ::2], 3.1) == ""  # another resolution


def test_an_alpha_channel_is_no_depth_camera(inspector: Inspector) -> None:
    golden = inspector.bundle.golden().frames
    health = Health(limits_from(golden, frozen_after=2.0))
    opaque = np.full((*golden.shape[1:3], 1), 255, np.uint8)
    for second, frame in enumerate([*golden[:2], *golden[:2]]):
        health.look(np.dstack([frame, opaque]), 2.0 * second)
        assert health.check(frame, frame)[0] == ""


@pytest.mark.parametrize("trained", [None, (1.30, 1.34), (1.0, 1.0)])
def test_frames_that_change_their_shape_are_not_judged(trained: tuple[float, float] | None) -> None:
    noticed: list[str] = []
    limits = HealthLimits(aspects=trained, blurred_below=0, frozen_after=0)
    health = Health(limits, lambda name, text: noticed.append(name))

    def check(width: int, height: int) -> str:
        return health.check(np.full((height, width, 3), 90, np.uint8), NOISE[0])[0]

    assert [check(640, 480), check(640, 480), check(1280, 960), check(1920, 480)] == ["", "", "", "resized"]
    assert [check(1920, 480), check(640, 480), check(644, 480)] == ["resized", "", ""]
    assert noticed.count("resized") == 4
    assert noticed.count("untrained") == {None: 0, (1.30, 1.34): 1, (1.0, 1.0): 5}[trained]


def test_aspect_that_was_trained_is_judged_whatever_came_before() -> None:
    health = Health(HealthLimits(aspects=(1.3, 1.35), blurred_below=0, frozen_after=0))
    shapes = [(480, 1920), (480, 640), (480, 1920)]
    causes = [health.check(np.full((*shape, 3), 90, np.uint8), NOISE[0])[0] for shape in shapes]
    assert causes == ["", "", ""]  # it began with 1920×480, which is only reported
    strict = Health(HealthLimits(aspects=(1.3, 1.35), refuse_untrained=True, blurred_below=0, frozen_after=0))
    causes = [strict.check(np.full((*shape, 3), 90, np.uint8), NOISE[0])[0] for shape in shapes]
    assert causes == ["untrained", "", "untrained"]


def test_manifest_knows_the_shape_of_training_images_and_the_stream_says_what_differs(inspector: Inspector) -> None:
    assert inspector.bundle.manifest.images == ImageSizes((256, 256), (256, 256), (1.0, 1.0))
    said: list[str] = []
    stream = Stream(inspector, [list(NOISE)], say=said.append)
    assert Verdict.UNKNOWN not in {result.verdict for result in stream}
    assert said == [
        "iterable: frames have another shape: 64×48 has an aspect ratio of 1.33; the training images had 1.00"
    ]
    assert stream.ledger.snapshot()["reported_by_cause"] == {"untrained": 1}
    camera = IterableSource(list(NOISE[:2]), live=True)
    asked = Stream(inspector, [camera], Policy(on_full="wait", untrained_aspect="unknown"))
    assert [result.cause for result in asked] == ["untrained", "untrained"]


def test_coarse_frames_are_reported_and_asked_for_not_judged(inspector: Inspector) -> None:
    limits = activate(inspector, Policy()).limits
    assert limits.least == (32, 32)  # training images had 256×256 pixels, of which the network sees 64×64
    square = [np.ascontiguousarray(frame[:side, :side]) for frame in NOISE[:2] for side in (48, 24)]
    said: list[str] = []
    stream = Stream(inspector, [square], say=said.append)
    assert Verdict.UNKNOWN not in {result.verdict for result in stream}
    assert [line for line in said if "coarse" in line] == [
        "iterable: frames are too coarse: 24×24 is less than half of what the network saw of each side in training; "
        "small defects do not show"
    ]
    asked = Stream(inspector, [IterableSource(square, live=True)], Policy(on_full="wait", untrained_aspect="unknown"))
    assert [result.cause for result in asked] == ["", "untrained"] * 2


def test_least_size_of_frames_is_that_of_the_whole_frame_with_a_crop(tmp_path: Path) -> None:
    crop = Geometry(crop=(0.25, 0.25, 0.5, 0.5))
    bundle = make_level_bundle(tmp_path / "level.edgead", geometry=crop)
    with edgead.load(bundle.path, engine="onnxruntime") as level:
        assert activate(level, Policy()).limits.least is None
        for side, least in ((1000, 64.0), (100, 50.0)):  # the canvas shows 64 pixels of 128
            sizes = ImageSizes((side, 2000), (side, 2000), (1.0, 1.0))
            level.bundle = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, images=sizes))
            assert activate(level, Policy()).limits.least == (least, least)


def test_camera_that_comes_back_with_another_aspect_is_unknown(inspector: Inspector) -> None:
    frames = [np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8) for size in ((48, 64), (48, 192))]
    source = IterableSource([frames[0], frames[1], frames[0]], live=True)
    stream = Stream(inspector, [source], Policy(on_full="wait"))
    assert [result.cause for result in stream] == ["", "resized", ""]


def test_camera_that_comes_back_with_fewer_pixels_passes_no_defect_as_too_small(tmp_path: Path) -> None:
    """After a power cut it has its default format: a quarter of the pixels, and every defect was below the limit."""
    rng = np.random.default_rng(0)

    def shown(side: int) -> np.ndarray:
        frame = rng.integers(40, 60, (side, side, 3), dtype=np.uint8)
        frame[: side // 4, : side // 4] = 220
        return frame

    frames = [shown(side) for side in (256, 252, 128, 256, 512)]
    bundle = make_level_bundle(tmp_path / "level.edgead")
    with edgead.load(bundle.path, engine="onnxruntime", min_area=2000) as level:
        stream = Stream(level, [IterableSource(frames, live=True)], Policy(on_full="wait"))
        results = list(stream)
        assert [result.verdict.value for result in results] == ["FAIL", "FAIL", "UNKNOWN", "FAIL", "FAIL"]
        assert (results[2].cause, "128×128 has fewer pixels than 256×256" in results[2].reason) == ("resized", True)
        level.min_area = 0
        without = Stream(level, [IterableSource(frames, live=True)], Policy(on_full="wait"))
        assert {result.verdict.value for result in without} == {"FAIL"}


def test_health_checks_can_be_turned_off() -> None:
    flat = np.zeros((64, 64, 3), np.uint8)
    off = Health(HealthLimits(dark=True, blurred_below=0, frozen_after=0, sharpness=9.0))
    assert [(off.look(flat, now), off.check(flat, flat)[0])[1] for now in (0.0, 100.0)] == ["", ""]


@pytest.mark.parametrize(("health", "cause"), [("all", "black"), ("live", ""), ("off", "")])
def test_unhealthy_frame_is_never_judged(inspector: Inspector, health: str, cause: str) -> None:
    black = [np.zeros((48, 64, 3), np.uint8)]
    with Stream(inspector, [IterableSource(black)], Policy(health=health)) as stream:
        [result] = list(stream)
    assert result.cause == cause
    assert (result.verdict is Verdict.UNKNOWN) == bool(cause)
    assert np.isnan(result.score) == bool(cause)


def test_frozen_camera_is_unknown_until_it_moves(inspector: Inspector) -> None:
    moving = False

    def grab() -> Iterator[np.ndarray]:
        number = 0
        while True:
            number += moving
            yield NOISE[number % 8]

    source = IterableSource(grab(), live=True)
    with Stream(inspector, [source], Policy(frozen_after=0.05, blurred_below=0)) as stream:
        causes = []
        for result in stream:
            causes.append(result.cause)
            if result.cause == "frozen":
                moving = True
            elif moving:
                stream.stop()
    assert causes[0] == ""
    assert "frozen" in causes
    assert "" in causes[causes.index("frozen") :]


def test_a_path_is_a_source_and_a_single_frame_is_none(tmp_path: Path) -> None:
    """The rows of a frame would be inspected as frames, and most of them pass."""
    (tmp_path / "1.png").write_bytes(encode_png(np.zeros((4, 5, 3), np.uint8)))
    with as_source(tmp_path) as frames:
        [captured] = frames
    assert captured.image.shape == (4, 5, 3)
    for shape in ((4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)):
        with pytest.raises(ConfigError, match="a single frame"):
            as_source(np.zeros(shape, np.uint8))
    for shape in ((2, 4, 5), (2, 4, 5, 3)):
        with as_source(np.zeros(shape, np.uint8)) as frames:
            assert [each.image.shape for each in frames] == [shape[1:]] * 2


@pytest.mark.parametrize("text", ["", "  ", "front= "])
def test_an_empty_source_is_not_the_current_folder(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--source "$CAMERA"`` where the variable is not set."""
    (tmp_path / "1.png").write_bytes(encode_png(np.zeros((4, 5, 3), np.uint8)))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="A source is empty"):
        as_source(text)
