"""`--align` in training: the reference picture, what is refused, and the same decisions at the line."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from aligned_parts import SIZE, aligning, lying, part_frame
from command_line import inside
from listener import Listener
from numpy.typing import NDArray
from tiny import TINY

import edgead
from edgead.console import Console
from edgead.datasets import load_frames
from edgead.decision import Verdict
from edgead.errors import ConfigError, DataError
from edgead.export import export
from edgead.export.quantization.gate import read_labelled
from edgead.geometry import STRETCH, Geometry, GeometryRequest
from edgead.geometry.alignment import locate
from edgead.geometry.pose import Pose
from edgead.images import COLOUR, encode_png, read_frame
from edgead.masks import place_mask
from edgead.train import resume, train
from edgead.train.canvas import fix_geometry
from edgead.train.foreground import load_foreground_masks
from edgead.train.run_config import load_run_config
from edgead.train.synthesise import synthesise

SMALL = ("size=32", *TINY[1:])


def write(folder: Path, frames: list[NDArray[np.uint8]]) -> list[Path]:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        (folder / f"{number:02}.png").write_bytes(encode_png(frame))
    return sorted(folder.iterdir())


def anywhere(count: int, rotation: float = 180.0, seed: int = 0, **how: bool) -> list[NDArray[np.uint8]]:
    """Parts that lie at drawn poses, each with its own noise."""
    rng = np.random.default_rng(seed)
    poses = [Pose(rng.uniform(-rotation, rotation), *rng.uniform(-0.05, 0.05, 2)) for _ in range(count)]
    return [lying(part_frame(noise=number + 1, **how), pose) for number, pose in enumerate(poses)]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of parts at all angles."""
    root = tmp_path_factory.mktemp("lying") / "plate"
    write(root / "train" / "good", anywhere(12))
    write(root / "test" / "good", [*anywhere(3, seed=1), np.full((*SIZE, 3), 60, np.uint8)])
    write(root / "test" / "spot", anywhere(3, seed=2, defect=True))
    return root


@pytest.fixture(scope="module")
def said() -> Listener:
    return Listener()


@pytest.fixture(scope="module")
def run(good: Path, tmp_path_factory: pytest.TempPathFactory, said: Listener) -> Path:
    [made] = train(
        "draem",
        good,
        preset="nano",
        settings=SMALL,
        out=tmp_path_factory.mktemp("aligned") / "run",
        align="auto",
        max_rotation=180,
        console=said,
    )
    return made


def test_run_bundle_and_line_have_one_alignment(run: Path, said: Listener, tmp_path: Path) -> None:
    align = load_run_config(run).geometry.align
    assert align is not None
    assert (align.frame, align.found, align.checked, align.max_rotation) == (SIZE, 11, 11, 180)
    assert align.least == 0.8, "these pictures are more alike than any defect leaves them"
    assert any(f"Aligned to {align.picture}: the part is found on 11 of 11 good images" in line for line in said.said)
    made = export(run, out=tmp_path / "aligned.edgead")
    assert (made.manifest.geometry.align, made.manifest.format) == (align, 3)
    config, stored = load_run_config(run), made.manifest.threshold
    with edgead.load(made.path, engine="onnxruntime") as inspector:
        results = [inspector.inspect(read_frame(Path(config.data, name))) for name in config.held_out]
        np.testing.assert_allclose(sorted(each.score for each in results), stored.scores, rtol=1e-4)
        assert inspector.inspect(np.full((*SIZE, 3), 60, np.uint8)).cause == "misplaced"
        for kind, verdicts in (("good", 3), ("spot", 3)):
            folder = Path(config.data, "test", kind)
            found = [inspector.inspect(read_frame(path)) for path in sorted(folder.iterdir())[:3]]
            assert sum(each.verdict is not Verdict.UNKNOWN for each in found) == verdicts
    assert resume(run) == run


def test_labelled_pictures_without_the_part_are_skipped(good: Path) -> None:
    from edgead.datasets import open_category

    geometry, said = aligning(part_frame()), Listener()
    labelled = read_labelled(open_category(good), (64, 80), COLOUR, said, geometry)
    assert labelled is not None
    assert len(labelled.frames) == 6
    assert all(each.pose is not None for each in labelled.geometries)
    assert any("Warning: skipped:" in line and "03.png: misplaced:" in line for line in said.said)


@pytest.mark.slow
def test_accuracy_leaves_out_what_is_misplaced(run: Path, good: Path, tmp_path: Path) -> None:
    from edgead.benchmark.accuracy import measure_accuracy
    from edgead.datasets import open_category
    from edgead.runtime.predict import collect_images, predict

    said, made = Listener(), export(run, out=tmp_path / "aligned.edgead")
    with edgead.load(made.path, engine="onnxruntime") as inspector:
        measured = measure_accuracy(inspector, open_category(good), 64, said)
        assert (measured.images.good, measured.images.skipped) == (3, 1)
        results = list(predict(inspector, collect_images([good / "test" / "good"]), tmp_path / "saved"))
    assert [each.cause for each in results] == ["", "", "", "misplaced"]
    assert len(list((tmp_path / "saved").glob("*.reconstruction.png"))) == 3
    assert any("03.png: misplaced:" in line for line in said.said)


def test_triton_is_refused_before_the_export(run: Path, tmp_path: Path) -> None:
    done = inside("export", "--checkpoint", run, "--format", "triton", folder=tmp_path)
    assert done.returncode == 2
    assert "aligns frames to a reference picture, which Triton's clients would have to do" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("frames", "options", "words"),
    [
        (anywhere(10), {}, r"found on \d of 9 good images only \(\d too far|found on \d of 9 .* too far"),
        ([np.full((*SIZE, 3), 90, np.uint8)] * 4, {}, "no good image has enough structure"),
        (
            [np.random.default_rng(n).integers(0, 256, (*SIZE, 3), dtype=np.uint8) for n in range(8)],
            {},
            r"found on 0 of 7 good images only \(7 not found\); at least 90% are needed",
        ),
    ],
    ids=["angles", "blank", "noise"],
)
def test_a_part_that_is_not_found_stops_the_training(
    frames: list[NDArray[np.uint8]], options: dict[str, float], words: str, tmp_path: Path
) -> None:
    requested = GeometryRequest.parse(None, "stretch", None, None, "auto", **options)
    with pytest.raises(ConfigError, match=words):
        fix_geometry(requested, write(tmp_path / "good", frames), (32, 32), COLOUR, Console())


def test_a_reference_picture_of_your_own(tmp_path: Path) -> None:
    paths = write(tmp_path / "good", anywhere(4, rotation=20))
    [own] = write(tmp_path / "own", [part_frame()])
    (tmp_path / "broken.png").write_bytes(b"no picture")

    def fix(align: Path, crop: str | None = None) -> Geometry:
        requested = GeometryRequest.parse(crop, "stretch", None, None, str(align), 0.15, 25.0)
        return fix_geometry(requested, paths, (32, 32), COLOUR, Console())[0]

    align = fix(own, "0.22,0.28,0.56,0.44").align
    assert align is not None
    assert (align.picture, align.max_shift, align.max_rotation) == ("00.png", 0.15, 25.0)
    assert align.shape == (88, 157), "the window alone is stored"
    for missing in (tmp_path / "none.png", tmp_path / "broken.png"):
        with pytest.raises(DataError, match=missing.name):
            fix(missing)
    with pytest.raises(ConfigError, match="cannot be a reference picture: its window is of one brightness"):
        fix(own, "0,0,0.2,0.2")


def test_pictures_without_the_part_are_left_out(tmp_path: Path) -> None:
    paths = write(tmp_path / "good", [*anywhere(2), np.full((*SIZE, 3), 60, np.uint8)])
    frames = load_frames(paths, (64, 80), geometry=aligning(part_frame()))
    assert (len(frames.frames), frames.paths) == (2, tuple(paths[:2]))
    [line] = frames.skipped
    assert "02.png: misplaced: the part is not found" in line


def test_foreground_masks_are_aligned(tmp_path: Path) -> None:
    pose, geometry = Pose(-140.0, 0.03, -0.02), aligning(part_frame())
    [image] = write(tmp_path / "good", [lying(part_frame(), pose)])
    mask = lying(part_frame(), pose)[:, :, 0] > 80
    write(tmp_path / "masks", [mask.astype(np.uint8) * 255])
    masks = load_foreground_masks(str(tmp_path / "masks"), [image], (64, 80), geometry)
    assert masks is not None
    straight = place_mask(part_frame()[:, :, 0] > 80, (64, 80), STRETCH)
    assert (masks[0] & straight).sum() / (masks[0] | straight).sum() > 0.9
    assert locate(read_frame(image), geometry).pose is not None


def test_masks_of_nine_bits_in_sixteen_are_aligned(tmp_path: Path) -> None:
    """Training, pictures and export find the part for the masks as they find it for the images."""
    frames = anywhere(5)
    write(tmp_path / "masks", [(frame > 80).astype(np.uint8) * 255 for frame in frames])
    (tmp_path / "good").mkdir()
    for number, frame in enumerate(frames):
        assert cv2.imwrite(str(tmp_path / "good" / f"{number:02}.png"), frame.astype(np.uint16) * 2)
    settings = ("size=32", "multipliers=1,1", "steps=2", "batch_size=2", "reverse_steps=1")
    [run] = train(
        "transfusion",
        tmp_path / "good",
        preset="nano",
        settings=(*settings, f"foreground={tmp_path / 'masks'}"),
        bit_depth=9,
        out=tmp_path / "run",
        align=tmp_path / "good" / "00.png",
        max_rotation=180,
        device="cpu",
    )
    assert synthesise(run, tmp_path / "pictures", count=1)
    assert export(run, out=tmp_path / "plate.edgead").manifest.pixels.bit_depth == 9
