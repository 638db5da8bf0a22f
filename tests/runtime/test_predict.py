"""`predict` takes the rules, the batch and the sinks that `run` takes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from level_bundle import frame_of, make_level_bundle

import edgead
from edgead.cli import cli
from edgead.decision import Verdict
from edgead.errors import ConfigError, SinkError
from edgead.images import encode_png
from edgead.runtime.predict import Collected, collect_images, predict
from edgead.runtime.result import Result
from edgead.runtime.sinks import BaseSink

LEVELS = (0, 100, 150, 200, 250)


@pytest.fixture
def level(tmp_path: Path) -> Path:
    return make_level_bundle(tmp_path / "level.edgead").path


@pytest.fixture
def images(tmp_path: Path) -> Collected:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, grey in enumerate(LEVELS):
        (folder / f"{number}.png").write_bytes(encode_png(frame_of(grey)))
    (folder / "1-damaged.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return collect_images([folder])


def test_an_image_that_is_named_twice_has_one_result(images: Collected, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (tmp_path / "link").symlink_to(folder)
    (folder / "latest.png").symlink_to("0.png")  # a second name in one folder is an image of its own
    found = collect_images([folder, tmp_path / "link", folder / "0.png", tmp_path / "images" / ".." / "images"])
    assert [path for path, _ in found.images] == [path for path, _ in collect_images([folder]).images]
    assert found.left_out == "left out: 15 × image that was named before"


def test_overlays_of_long_and_of_like_names(level: Path, tmp_path: Path) -> None:
    """The first long name ended the command: the images behind it had no result."""
    longest = 255 - len(".png")
    names = ["a" * longest, "a" * (longest - 1), "é" * (longest // 2), "b", "B"]
    (tmp_path / "images").mkdir()
    for name in names:
        (tmp_path / "images" / f"{name}.png").write_bytes(encode_png(frame_of(100)))
    collected, overlays = collect_images([tmp_path / "images"]), tmp_path / "overlays"
    with edgead.load(level, engine="onnxruntime") as inspector:
        assert len(list(predict(inspector, collected, overlays))) == len(names)
    saved = {path.name for path in overlays.iterdir()}
    assert saved == {name.name for _, name in collected.images}
    assert len({name.casefold() for name in saved}) == len(names)  # also on a stick that does not tell b from B


def test_a_place_for_overlays_that_is_a_file_is_refused_before_the_first_image(level: Path, images: Collected) -> None:
    """Every overlay was lost, and that was said after the last image."""
    with edgead.load(level) as inspector, pytest.raises(NotADirectoryError):
        next(predict(inspector, images, level / "manifest.json"))


def test_images_that_show_too_little_are_named(line_bundle: Path, tmp_path: Path) -> None:
    for name, size in (("good", (256, 256)), ("point", (1, 1)), ("wide", (64, 256))):
        (tmp_path / f"{name}.png").write_bytes(encode_png(np.full((*size, 3), 90, np.uint8)))
    said: list[tuple[str, str]] = []
    with edgead.load(line_bundle, engine="onnxruntime") as inspector:
        results = list(predict(inspector, collect_images([tmp_path]), notice=lambda *line: said.append(line)))
    assert Verdict.UNKNOWN not in {result.verdict for result in results}
    assert [headline for headline, _ in said] == ["frames are too coarse", "frames have another shape"]
    assert said[0][1].startswith(f"{tmp_path / 'point.png'}: 1×1 is less than half")
    ran = CliRunner().invoke(cli, ["predict", str(line_bundle), str(tmp_path), "--engine", "onnxruntime"])
    assert ran.exit_code == 0
    assert (
        f"Warning: frames are too coarse (1 of 3 images). The first is {tmp_path / 'point.png'}: 1×1 is" in ran.stderr
    )


class Frames(BaseSink):
    """Keeps the size of each frame it gets."""

    wants_frames = True

    def __init__(self) -> None:
        super().__init__("frames")
        self.sizes: list[tuple[int, ...] | None] = []
        self.closed = False

    def write(self, result: Result) -> None:
        self.sizes.append(None if result.frame is None else result.frame.shape)

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(("batch", "largest"), [(1, 1), (4, 3), (64, 5)])  # the damaged image takes a place
def test_a_batch_changes_no_result(level: Path, images: Collected, batch: int, largest: int) -> None:
    with edgead.load(level, engine="onnxruntime", batch=batch) as inspector:
        calls: list[int] = []
        infer = inspector.engine.infer
        inspector.engine.infer = lambda frames: calls.append(len(frames)) or infer(frames)  # type: ignore[method-assign]
        results = list(predict(inspector, images, batch=batch))
    assert [Path(result.path).name for result in results] == [path.name for path, _ in images.images]
    readable = [result for result in results if result.verdict is not Verdict.UNKNOWN]
    assert sorted(result.score for result in readable) == pytest.approx(LEVELS)
    assert [result.cause for result in results if result.verdict is Verdict.UNKNOWN] == ["unreadable"]
    assert sum(calls) == len(LEVELS)
    assert max(calls) == largest


def test_rules_of_a_run_hold(level: Path, images: Collected) -> None:
    options = {"engine": "onnxruntime", "roi": ["0,0,0.5,1"], "ignore": ["0,0,0.5,0.5"], "shapes": ("boxes",)}
    with edgead.load(level, min_area=1, **options) as inspector:  # type: ignore[arg-type]
        results = list(predict(inspector, images))
        failed = [result for result in results if result.verdict is Verdict.FAIL]
        assert len(failed) == sum(grey > 130 for grey in LEVELS)
        assert failed[0].to_dict()["boxes"] == [{"x": 0, "y": 32, "width": 32, "height": 32, "area": 1024}]
    with edgead.load(level, min_area=1025, **options) as inspector:  # type: ignore[arg-type]
        results = list(predict(inspector, images))  # no defect can be so large
        assert sum(result.verdict is Verdict.FAIL for result in results) == len(failed)
    with pytest.raises(ConfigError, match="either region, or roi and ignore"):
        edgead.load(level, region=failed[0].mask, roi=["0,0,1,1"])


def test_sinks_get_every_result_with_its_frame(level: Path, images: Collected, tmp_path: Path) -> None:
    file, frames = tmp_path / "out.jsonl", Frames()
    with edgead.load(level, engine="onnxruntime") as inspector:
        results = list(predict(inspector, images, batch=3, sinks=[f"jsonl:{file}", frames]))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["id"] for line in lines] == [result.id for result in results]
    assert sorted(map(str, frames.sizes)) == sorted(["(64, 64, 3)"] * len(LEVELS) + ["None"])
    assert frames.closed


def test_a_sink_that_fails_is_an_error_after_the_last_image(level: Path, images: Collected) -> None:
    class Full(BaseSink):
        def write(self, result: Result) -> None:
            raise OSError("full")

    given = []
    with edgead.load(level, engine="onnxruntime") as inspector, pytest.raises(SinkError, match="disk did not take 6"):
        given += list(predict(inspector, images, sinks=[Full("disk")])) or [None]
    assert not given
    with edgead.load(level, engine="onnxruntime") as inspector:
        assert len(list(itertools.islice(predict(inspector, images, sinks=[Full("disk")]), 6))) == 6


def test_what_was_opened_is_closed_where_a_later_sink_cannot_be(level: Path, images: Collected) -> None:
    frames = Frames()
    with edgead.load(level, engine="onnxruntime") as inspector:
        with pytest.raises(ConfigError, match="Unknown sink"):
            next(predict(inspector, images, sinks=[frames, "nothing:at-all"]))
        assert frames.closed
        with pytest.raises(ConfigError, match="batch must be at least 1"):
            next(predict(inspector, images, batch=0))
