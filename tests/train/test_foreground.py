"""Foreground masks from a folder: taken by name, checked, the same after a stop, and where anomalies stay."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.datasets import load_frames
from edgead.errors import CheckpointError, ConfigError, DataError
from edgead.export import export
from edgead.train import checkpoint, resume, run_config, train
from edgead.train.configuration import configure
from edgead.train.foreground import load_foreground_masks, part_of
from edgead.train.method import Method, TrainingData
from edgead.train.methods import get_method
from edgead.train.synthesise import synthesise

QUICK = ("size=32", "multipliers=1,1", "steps=2", "batch_size=2", "rotate_share=0", "reverse_steps=1")


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path]:
    """Six noisy images ``[48, 40]`` and, beside them, masks of their left halves."""
    rng = np.random.default_rng(0)
    mask = np.zeros((48, 40), np.uint8)
    mask[:, :20] = 255
    for index in range(6):
        for name, image in (("good", rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)), ("masks", mask)):
            (tmp_path / name).mkdir(exist_ok=True)
            suffix = "_mask" if name == "masks" and index % 2 else ""
            assert cv2.imwrite(str(tmp_path / name / f"{index}{suffix}.png"), image)
    return tmp_path / "good", tmp_path / "masks"


@pytest.mark.parametrize(
    ("name", "settings"), [("transfusion", QUICK), ("aand", ("size=65", "backbone=squeezenet1_1", "anomaly_share=1"))]
)
def test_anomalies_stay_inside_the_masks(data: tuple[Path, Path], name: str, settings: tuple[str, ...]) -> None:
    good, masks = data
    kind = get_method(name)
    method: Method = kind(configure(kind, "nano", (*settings, f"foreground={masks}")))  # type: ignore[arg-type]
    frames = load_frames(sorted(good.iterdir()), method.config.size)
    parts = load_foreground_masks(str(masks), frames.paths, method.config.size)
    assert parts is not None
    middle = method.config.size[1] // 2
    assert parts[:, :, :middle].all()
    assert not parts[:, :, middle + 1 :].any()
    material = TrainingData(frames.frames, foreground_masks=parts)
    assert np.array_equal(part_of(material, 3, str(masks)), parts[3])
    rng = np.random.default_rng(0)
    made = np.stack([method.example(material, rng)["mask"] for _ in range(12)])
    assert made.any(axis=(1, 2)).all()
    assert not made[:, :, middle + 3 :].any()  # TransFusion's may reach two pixels beyond
    sampled = [method.stages(material)[0].sample(np.random.default_rng(seed))["mask"] for seed in range(12)]
    assert np.any(sampled)
    assert not np.stack(sampled)[..., middle + 3 :].any()


def test_a_run_keeps_its_masks(data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, masks = data
    monkeypatch.chdir(tmp_path)
    settings = (*QUICK, "foreground=masks")
    [run] = train("transfusion", good, preset="nano", settings=settings, out=tmp_path / "run", device="cpu")
    config = run_config.load_run_config(run)
    assert config.config.foreground == str(masks.resolve())
    assert len(config.masks_fingerprint) == 64
    monkeypatch.chdir(good)
    export(run, out=tmp_path / "run.edgead")
    pictures = synthesise(run, tmp_path / "pictures", count=4)
    drawn = [cv2.imread(str(path.with_name(f"{path.stem}_mask.png")), 0) for path in pictures]
    assert np.any(drawn)
    assert not np.stack(drawn)[:, :, 16 + 3 :].any()
    before = (run / checkpoint.WEIGHTS).read_bytes()
    (run / checkpoint.WEIGHTS).unlink()
    resume(run, device="cpu")
    assert (run / checkpoint.WEIGHTS).read_bytes() == before
    (run / checkpoint.WEIGHTS).unlink()
    cv2.imwrite(str(masks / "1_mask.png"), np.full((48, 40), 255, np.uint8))
    cv2.imwrite(str(masks / "2.png"), np.full((48, 40), 255, np.uint8))
    with pytest.raises(CheckpointError, match=r"masks in .* differ from those"):
        resume(run, device="cpu")
    config = run_config.load_run_config(run)
    assert len(config.held_out_masks_fingerprint) == 64
    held_out = masks / f"{Path(config.held_out[0]).stem}.png"
    held_out = held_out if held_out.exists() else held_out.with_name(f"{held_out.stem}_mask.png")
    cv2.imwrite(str(held_out), np.full((48, 40), 255, np.uint8))
    (run / checkpoint.WEIGHTS).write_bytes(before)
    with pytest.raises(DataError, match=r"masks in .*masks differ from those that this run was started with"):
        export(run, out=tmp_path / "run.edgead")
    (run / checkpoint.WEIGHTS).unlink()
    masks.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"masks does not exist\.\nTo resume a run"):
        resume(run, device="cpu")


def test_masks_that_cannot_be_used(data: tuple[Path, Path]) -> None:
    good, masks = data
    images = sorted(good.iterdir())
    cv2.imwrite(str(masks / "0.png"), np.full((24, 20), 255, np.uint8))
    with pytest.raises(DataError, match=r"0\.png is 20×24 pixels, its image .*0\.png is\s40×48"):
        load_foreground_masks(str(masks), images, (32, 32))
    cv2.imwrite(str(masks / "0.png"), np.zeros((48, 40), np.uint8))
    with pytest.raises(DataError, match=r"0\.png is empty at 32×32"):
        load_foreground_masks(str(masks), images, (32, 32))
    for folder in (good, good.parent):
        with pytest.raises(DataError, match=r"not a folder of foreground masks: .*0\.png would be its own mask"):
            load_foreground_masks(str(folder), images, (32, 32))
    (masks / "0.png").unlink()
    with pytest.raises(DataError, match=r"0\.png has no foreground mask\.\nPut 0\.png or 0_mask\.png into"):
        load_foreground_masks(str(masks), images, (32, 32))
    for name in ("transfusion", "aand"):
        with pytest.raises(ConfigError, match=r"foreground is one of .*; the folder 'nowhere' does not exist"):
            configure(get_method(name), "nano", ("foreground=nowhere",))


def test_images_of_the_same_name_get_masks_of_their_own(data: tuple[Path, Path], tmp_path: Path) -> None:
    good, masks = data
    images = [tmp_path / "set" / split / "good" / "0.png" for split in ("train", "validation")]
    for image in images:
        image.parent.mkdir(parents=True)
        image.write_bytes((good / "0.png").read_bytes())
    with pytest.raises(DataError, match=r"would be the foreground mask of both .*train/good/0\.png and "):
        load_foreground_masks(str(masks), images, (32, 32))
    right = np.zeros((48, 40), np.uint8)
    right[:, 20:] = 255
    for split in ("train", "validation"):
        (masks / split).mkdir()
        (masks / split / "0_mask.png").write_bytes((masks / "0.png").read_bytes())
    assert cv2.imwrite(str(masks / "validation" / "0_mask.png"), right)
    parts = load_foreground_masks(str(masks), images, (32, 32))
    assert parts is not None
    assert parts[0, :, :16].all()
    assert not parts[0, :, 16:].any()
    assert np.array_equal(parts[1], ~parts[0])
    assert np.array_equal(load_foreground_masks(str(masks), images[1:], (32, 32)), parts[1:])
    (masks / "0.bmp").write_bytes((masks / "0.png").read_bytes())
    elsewhere = tmp_path / "else" / "0.png"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(images[0].read_bytes())
    for split in ("train", "validation"):
        (masks / split / "0_mask.png").unlink()
    with pytest.raises(DataError, match=r"could both be the foreground mask of .*else/0\.png"):
        load_foreground_masks(str(masks), [elsewhere], (32, 32))


def test_no_masks_are_needed_without_a_folder() -> None:
    assert load_foreground_masks("auto", [Path("nothing.png")], (32, 32)) is None
    assert load_foreground_masks("", [], (32, 32)) is None
