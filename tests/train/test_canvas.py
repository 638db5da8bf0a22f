"""Crop, letterbox and tiles from training to the line: the same picture, the same threshold, what defects keep."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from full_disk import run_on_small_disk
from listener import Listener
from tiny import TINY

import edgead
from edgead.bundle import Bundle
from edgead.console import Console
from edgead.datasets import cut_tiles, load_frames, open_category
from edgead.datasets import frames as frames_module
from edgead.decision import conformal_threshold
from edgead.errors import ConfigError, DataError
from edgead.export import export
from edgead.geometry import STRETCH, Geometry, GeometryRequest
from edgead.geometry.tiling import Tiling
from edgead.images import COLOUR, encode_png, fit_frame, read_frame
from edgead.masks import place_mask
from edgead.train import resume, train
from edgead.train.canvas import busiest_tile, describe_shrink, fix_geometry, tile_masks
from edgead.train.foreground import load_foreground_masks
from edgead.train.methods import get_method
from edgead.train.new_run import check_same
from edgead.train.run_config import load_run_config

SMALL = ("size=32", *TINY[1:])


@pytest.fixture(scope="module")
def said() -> Listener:
    return Listener()


@pytest.fixture(scope="module")
def run(parts: Path, tmp_path_factory: pytest.TempPathFactory, said: Listener) -> Path:
    """A run on the right part of the sample parts, in 2×2 tiles."""
    [made] = train(
        "draem",
        parts,
        preset="nano",
        settings=SMALL,
        out=tmp_path_factory.mktemp("tiles") / "run",
        crop="0.1,0,0.9,1",
        fit="letterbox",
        tiles="2x2",
        overlap=0.25,
        scale=10,
        console=said,
    )
    return made


@pytest.fixture(scope="module")
def cut(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Its bundle."""
    return export(run, out=tmp_path_factory.mktemp("tiles") / "cut.edgead")


def test_run_and_bundle_keep_the_geometry(run: Path, cut: Bundle, said: Listener) -> None:
    geometry = Geometry((0.1, 0, 0.9, 1), "letterbox", (2, 2), 0.25)
    assert load_run_config(run).geometry == cut.manifest.geometry == geometry
    assert (cut.manifest.size, cut.manifest.canvas, cut.manifest.format) == ((32, 32), (56, 56), 2)
    assert cut.manifest.images is not None
    assert cut.golden().frames.shape[1:] == (32, 32, 3)
    text = "\n".join(said.said)
    assert "Tiles: 2×2 of 32×32 from a canvas of 56×56 pixels; 48 tiles of 12 images take" in text
    assert "of a defect of 1 mm (10 pixels)" in text
    assert resume(run) == run


def test_the_threshold_is_that_of_stitched_scores(run: Path, cut: Bundle) -> None:
    """What the line computes on the held-out pictures is what the threshold was fitted to, map maxima too."""
    config, stored = load_run_config(run), cut.manifest.threshold
    with edgead.load(cut.path, engine="onnxruntime") as inspector:
        results = [inspector.inspect(read_frame(Path(config.data, name))) for name in config.held_out]
    scores = sorted(result.score for result in results)
    np.testing.assert_allclose(scores, stored.scores, rtol=1e-5)
    maxima = sorted(float(result.anomaly_map.max()) for result in results if result.anomaly_map is not None)
    np.testing.assert_allclose(maxima, stored.map_maxima, rtol=1e-4, atol=1e-5)
    assert stored.value == pytest.approx(conformal_threshold(np.float32(scores)).value, rel=1e-5)
    assert {result.anomaly_map.shape for result in results if result.anomaly_map is not None} == {(56, 56)}


def test_look_of_whole_canvases_is_kept(cut: Bundle) -> None:
    from edgead.runtime.handover import activate
    from edgead.runtime.policy import Policy

    held_out = cut.manifest.held_out
    assert held_out is not None
    assert not held_out.dark
    with edgead.load(cut.path, engine="onnxruntime") as inspector:
        assert activate(inspector, Policy()).limits.sharpness == min(held_out.sharpness)


def test_benchmark_masks_and_predict_use_the_frames_pixels(cut: Bundle, parts: Path, tmp_path: Path) -> None:
    from edgead.benchmark.accuracy import measure_accuracy
    from edgead.runtime.predict import collect_images, predict

    with edgead.load(cut.path, engine="onnxruntime") as inspector:
        measured = measure_accuracy(inspector, open_category(parts), 64, Console())
        assert measured.metrics.aupro is not None
        folder = parts / "test" / "good"
        results = list(predict(inspector, collect_images([folder]), tmp_path))
    overlay = read_frame(next(tmp_path.glob("*.overlay.png")))
    assert overlay.shape == read_frame(next(folder.iterdir())).shape
    assert len(results) == 4
    reconstruction = read_frame(next(tmp_path.glob("*.reconstruction.png")))
    assert reconstruction.shape == (56, 56, 3)


@pytest.mark.long
def test_lower_precisions_are_judged_on_canvases(run: Path, parts: Path, tmp_path: Path) -> None:
    from edgead.export.options import Budget, Calibration, PrecisionOptions

    lenient = PrecisionOptions("int8", calibration=Calibration(samples=10), budget=Budget(1.0, 1.0))
    made = export(run, data=parts, out=tmp_path / "int8.edgead", precision=lenient).manifest
    assert made.gate is not None
    assert made.gate.held_out_normals == len(made.threshold.scores)
    assert made.gate.labelled_images == 12
    assert made.calibration is not None


def test_a_repeated_command_must_have_the_same_geometry(run: Path) -> None:
    stored = load_run_config(run)
    check_same(stored, dataclasses.replace(stored, normals=()), False, run)
    with pytest.raises(ConfigError, match=r"another geometry\.\n"):
        check_same(stored, dataclasses.replace(stored, stored_geometry=None), False, run)
    with pytest.raises(ConfigError, match=r"another seed, donors\.\n"):
        check_same(stored, dataclasses.replace(stored, seed=1), True, run)
    slower = dataclasses.replace(stored, changes=("learning_rate 0.1 -> 0.01",))
    other = dataclasses.replace(stored, method="patchcore", config=get_method("patchcore").Config())
    with pytest.raises(ConfigError, match=r"another method, config\.\n"):
        check_same(slower, other, False, run)


def test_crops_in_pixels_need_pictures_of_one_size(write_image: Callable[..., Path], tmp_path: Path) -> None:
    paths = [write_image(tmp_path / f"{number}.png", (40, 60), number) for number in range(3)]
    requested = GeometryRequest.parse("15,10,30,20", "stretch", None, None)
    geometry, size = fix_geometry(requested, paths, (32, 32), COLOUR, Console())
    assert (geometry.crop, size) == ((0.25, 0.25, 0.5, 0.5), (40, 60))
    paths.append(write_image(tmp_path / "other.png", (40, 80)))
    with pytest.raises(DataError, match=r"other.png has 80×40 pixels, another image has 60×40"):
        fix_geometry(requested, paths, (32, 32), COLOUR, Console())
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="None of the 1 images can be read"):
        fix_geometry(requested, [tmp_path / "broken.png"], (32, 32), COLOUR, Console())


@pytest.mark.parametrize(
    ("geometry", "scale", "says"),
    [
        (
            STRETCH,
            None,
            r"^Warning: images of 4096×3000 pixels shrink by 16.0: small defects vanish.\nKeep more of "
            r"them with tiles, for instance --tiles 6x8, .* --scale tells",
        ),
        (STRETCH, 20.0, r"^Warning: .* shrink by 16.0: of a defect of 1 mm \(20 pixels\) 1.2 pixels are left"),
        (Geometry(None, "stretch", (6, 8), 0.0), 20.0, r"^Images shrink by 2: of a defect of 1 mm \(20 pixels\) 10 "),
        (Geometry(None, "stretch", (6, 8), 0.0), None, ""),
        (Geometry((0.4, 0.4, 0.05, 0.05)), 20.0, r"^Images do not shrink: of a defect of 1 mm \(20 pixels\) 25"),
        (Geometry(None, "letterbox"), None, "^Warning"),
    ],
)
def test_what_is_left_of_a_defect(geometry: Geometry, scale: float | None, says: str) -> None:
    lines = describe_shrink(geometry, (3000, 4096), (256, 256), scale)
    assert len(lines) == bool(says)
    assert not says or re.search(says, lines[0], re.S), lines


def test_a_crop_of_few_pixels_is_warned_of() -> None:
    tiny, usual = Geometry(crop=(0.4, 0.4, 0.01, 0.01)), Geometry(crop=(0.1, 0.1, 0.8, 0.8))
    [line] = describe_shrink(tiny, (480, 640), (256, 256), None)
    assert "sees only 7×5 pixels" in line or "sees only 6×5 pixels" in line
    assert "Is --crop right?" in line
    assert not describe_shrink(usual, (480, 640), (256, 256), None)


def test_masks_of_the_part_are_cut_as_pictures_are(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    image = write_image(tmp_path / "train" / "a.png", (60, 100))
    mask = np.zeros((60, 100), np.uint8)
    mask[20:40, 30:90] = 255
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_bytes(encode_png(mask))
    geometry = Geometry((0.1, 0.1, 0.8, 0.8), "letterbox", (2, 2), 0.25)
    tiling = Tiling(geometry, (32, 32))
    masks = load_foreground_masks(str(tmp_path / "masks"), [image], tiling.canvas, geometry)
    assert masks is not None
    np.testing.assert_array_equal(masks[0], place_mask(mask > 0, tiling.canvas, geometry))
    tiles = tile_masks(np.zeros((1, *tiling.canvas, 3), np.uint8), masks, "masks", tiling)
    np.testing.assert_array_equal(tiles, cut_tiles(masks, tiling))


def test_the_part_is_looked_for_on_the_whole_canvas() -> None:
    """A tile inside a bright part is all part; one of the background, without any, may have anomalies anywhere."""
    tiling = Tiling(Geometry(None, "stretch", (1, 4)), (16, 16))
    canvas = np.full((1, 16, 64, 3), 20, np.uint8)
    canvas[:, 2:14, 8:40] = 220
    found = tile_masks(canvas, None, "auto", tiling)
    assert found is not None
    shares = found.mean(axis=(1, 2))
    assert shares[3] == 1
    assert 0.2 < shares[0] < 0.6
    assert shares[1] == pytest.approx(0.75, abs=0.15)
    assert tile_masks(canvas, None, "", tiling) is tile_masks(canvas, None, "all", tiling) is None
    assert busiest_tile(canvas[0], tiling).std() > 50


def test_large_arrays_lie_in_a_file(
    monkeypatch: pytest.MonkeyPatch, write_image: Callable[..., Path], tmp_path: Path
) -> None:
    paths = [write_image(tmp_path / f"{number}.png", (40, 60), number) for number in range(3)]
    geometry = Geometry(None, "letterbox", (2, 3), 0.25)
    tiling = Tiling(geometry, (16, 16))
    usual = load_frames(paths, tiling.canvas, geometry=geometry)
    monkeypatch.setattr(frames_module, "LARGEST_IN_MEMORY", 100)
    kept = load_frames(paths, tiling.canvas, geometry=geometry)
    assert isinstance(kept.frames.base.base, np.memmap)  # type: ignore[union-attr]
    np.testing.assert_array_equal(kept.frames, usual.frames)
    np.testing.assert_array_equal(kept.frames[1], fit_frame(read_frame(paths[1]), tiling.canvas, geometry=geometry))
    np.testing.assert_array_equal(cut_tiles(kept.frames, tiling), tiling.cut(usual.frames))
    np.testing.assert_array_equal(kept.only([2, 0]).frames, usual.frames[[2, 0]])
    assert dataclasses.replace(kept).sizes == usual.sizes


LARGE = """
import errno, sys, tempfile
import numpy as np
from edgead.datasets import frames

tempfile.tempdir, frames.LARGEST_IN_MEMORY = sys.argv[1], 100
try:
    frames.allocate((100, 64, 64), np.float32)[:] = 1
except OSError as error:
    print(error.errno == errno.ENOSPC, error.filename)
"""


def test_a_large_array_that_finds_no_room_is_an_error(tmp_path: Path) -> None:
    """The training ended with a bus error, and no word."""
    done = run_on_small_disk(LARGE, tmp_path / "disk", 400)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"True 0.0 GB for images in {tmp_path / 'disk'}\n"
