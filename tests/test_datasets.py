"""The layouts, each as a small made-up copy, and what is wrong with almost-right ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.datasets import check_masks, load_frames, open_categories, open_category, read_labelled_mask
from edgead.errors import DataError
from edgead.folders import list_images
from edgead.train.split import split_normals

Write = Callable[..., Path]


def write_mask(path: Path, size: tuple[int, int] = (32, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, np.uint8)
    mask[4:10, 6:20] = 255
    cv2.imwrite(str(path), mask)
    return path


def make_mvtec(root: Path, write: Write, suffix: str = "_mask") -> Path:
    for index in range(3):
        write(root / f"train/good/{index:03}.png", seed=index)
        write(root / f"test/good/{index:03}.png", seed=10 + index)
        write(root / f"test/crack/{index:03}.png", seed=20 + index)
        write_mask(root / f"ground_truth/crack/{index:03}{suffix}.png")
    return root


@pytest.mark.parametrize("suffix", ["_mask", ""])
def test_mvtec(tmp_path: Path, write_image: Write, suffix: str) -> None:
    category = open_category(make_mvtec(tmp_path / "bolt", write_image, suffix))
    assert (category.name, category.layout, len(category.normals)) == ("bolt", "mvtec", 3)
    assert [sample.kind for sample in category.test] == ["crack"] * 3 + ["good"] * 3
    assert category.without_mask == 0
    mask = read_labelled_mask(category.test[0], (32, 40), (32, 40))
    assert mask is not None
    assert mask.sum() == 6 * 14


def test_several_categories(tmp_path: Path, write_image: Write) -> None:
    for name in ("nut", "bolt"):
        make_mvtec(tmp_path / name, write_image)
    (tmp_path / "notes").mkdir()
    assert [category.name for category in open_categories(tmp_path)] == ["bolt", "nut"]
    assert open_category(tmp_path, "nut").name == "nut"
    with pytest.raises(DataError, match="--category"):
        open_category(tmp_path)
    with pytest.raises(DataError, match="Available: bolt, nut"):
        open_category(tmp_path, "screw")
    (tmp_path / "bolt" / "ground_truth" / "crack" / "stray.png").write_bytes(b"")
    assert open_category(tmp_path, "nut").name == "nut"  # what is wrong with its neighbour does not matter


def make_visa(root: Path, write: Write, images: int = 20) -> Path:
    lines = ["image,label,mask"]
    for index in range(images):
        lines.append(f"candle/Data/Images/Normal/{index:04}.png,normal,")
        write(root / f"candle/Data/Images/Normal/{index:04}.png", seed=index)
    for index in range(2):
        lines.append(f'candle/Data/Images/Anomaly/{index:03}.png,"melt,chip",candle/Data/Masks/Anomaly/{index:03}.png')
        write(root / f"candle/Data/Images/Anomaly/{index:03}.png", seed=index)
        mask = np.zeros((32, 40), np.uint8)
        mask[2:4, 2:4] = 1 + index
        (root / "candle/Data/Masks/Anomaly").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / f"candle/Data/Masks/Anomaly/{index:03}.png"), mask)
    (root / "candle/image_anno.csv").write_text("\n".join(lines))
    return root


def test_visa_without_the_published_split(tmp_path: Path, write_image: Write) -> None:
    category = open_category(make_visa(tmp_path, write_image))
    assert (category.layout, len(category.normals)) == ("visa", 18)
    assert [sample.kind for sample in category.test] == ["melt,chip"] * 2 + ["good"] * 2
    mask = read_labelled_mask(category.test[0], (32, 40), (32, 40))
    assert mask is not None
    assert mask.sum() == 4


def test_visa_with_the_published_split(tmp_path: Path, write_image: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    make_visa(tmp_path, write_image, images=6)
    (tmp_path / "split_csv").mkdir()
    rows = [
        f"candle,{'test' if index % 2 else 'train'},normal,candle/Data/Images/Normal/{index:04}.png,"
        for index in range(6)
    ]
    (tmp_path / "split_csv/1cls.csv").write_text("object,split,label,image,mask\n" + "\n".join(rows))
    category = open_category(tmp_path / "candle")
    assert [path.name for path in category.normals] == ["0000.png", "0002.png", "0004.png"]
    assert sum(not sample.anomalous for sample in category.test) == 3
    monkeypatch.chdir(tmp_path / "candle")
    assert [path.name for path in open_category(".").normals] == [path.name for path in category.normals]


def test_visa_with_a_missing_file(tmp_path: Path, write_image: Write) -> None:
    make_visa(tmp_path, write_image)
    (tmp_path / "candle/Data/Images/Normal/0003.png").unlink()
    with pytest.raises(DataError, match="lists 1 files that do not exist"):
        open_category(tmp_path)


def test_mvtec_3d(tmp_path: Path, write_image: Write) -> None:
    root = tmp_path / "bagel"
    for index in range(2):
        for part in ("train/good", "validation/good", "test/good", "test/hole"):
            write_image(root / f"{part}/rgb/{index:03}.png", seed=index)
            (root / part / "xyz").mkdir(exist_ok=True)
            cv2.imwrite(str(root / f"{part}/xyz/{index:03}.tiff"), np.zeros((32, 40, 3), np.float32))
        write_mask(root / f"test/good/gt/{index:03}.png")
        write_mask(root / f"test/hole/gt/{index:03}.png")
    category = open_category(root)
    assert (category.layout, len(category.normals), len(category.validation)) == ("mvtec3d", 2, 2)
    assert all(path.parent.name == "rgb" for path in category.normals)
    assert [(sample.kind, bool(sample.masks)) for sample in category.test] == [("good", False)] * 2 + [
        ("hole", True)
    ] * 2


def test_plain_folder(tmp_path: Path, write_image: Write) -> None:
    for index in range(3):
        write_image(tmp_path / f"{index}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    category = open_category(tmp_path)
    assert (category.layout, len(category.normals), category.test) == ("plain", 3, ())


def test_empty_missing_and_file_instead_of_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No images of good parts"):
        open_categories(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        open_categories(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="not a folder"):
        open_categories(tmp_path / "file")


def test_no_good_images(tmp_path: Path, write_image: Write) -> None:
    make_mvtec(tmp_path, write_image)
    for path in (tmp_path / "train/good").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no images of good parts"):
        split_normals(open_category(tmp_path), 0.2, 0)


def test_masks_with_wrong_names(tmp_path: Path, write_image: Write) -> None:
    make_mvtec(tmp_path, write_image)
    (tmp_path / "ground_truth/crack/000_mask.png").rename(tmp_path / "ground_truth/crack/a000.png")
    category = open_category(tmp_path)
    assert len(category.normals) == 3  # they can be trained on
    assert check_masks(category) == list(category.problems)
    with pytest.raises(DataError, match=r"belong to no image, for instance a000\.png"):
        category.labelled()


def test_masks_that_are_missing_are_counted(tmp_path: Path, write_image: Write) -> None:
    make_mvtec(tmp_path, write_image)
    (tmp_path / "ground_truth/crack/000_mask.png").unlink()
    assert open_category(tmp_path).without_mask == 1


def test_masks_with_wrong_sizes(tmp_path: Path, write_image: Write) -> None:
    make_mvtec(tmp_path, write_image)
    write_mask(tmp_path / "ground_truth/crack/001_mask.png", (16, 20))
    write_mask(tmp_path / "ground_truth/crack/002_mask.png", (16, 30))
    category = open_category(tmp_path)
    mask = read_labelled_mask(category.test[1], (32, 40), (32, 40))  # in proportion: enlarged
    assert mask is not None
    assert mask[8:20, 12:40].all()
    with pytest.raises(DataError, match=r"002_mask\.png is 30×16 pixels, its image .* is 40×32"):
        read_labelled_mask(category.test[2], (32, 40), (64, 64))
    [problem] = check_masks(category)
    assert "002_mask.png is 30×16 pixels" in problem


def test_linked_folders_are_searched_once(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "there" / "a.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "there")
    (tmp_path / "there" / "back").symlink_to(tmp_path / "images")
    assert [path.name for path in list_images(tmp_path / "images", recursive=True)] == ["a.png"]


def test_damaged_images_are_skipped_by_name(tmp_path: Path, write_image: Write) -> None:
    good = [write_image(tmp_path / f"{index}.png", seed=index) for index in range(3)]
    whole = load_frames(good, (16, 16))
    good[1].write_bytes(good[1].read_bytes()[:50])
    frames = load_frames(good, (16, 16))
    assert frames.paths == (good[0], good[2])
    assert np.array_equal(frames.frames, whole.frames[[0, 2]])
    assert len(frames.skipped) == 1
    assert str(good[1]) in frames.skipped[0]
    assert frames.fingerprint != whole.fingerprint


@pytest.mark.parametrize(
    ("name", "normals", "good", "bad"),
    [
        ("mtd", 761, 191, 392),
        ("mvtec_screw", 320, 41, 119),
        ("mvtec_hazelnut_reduced", 50, 2, 8),
        ("aws_cookies", 31, 14, 32),
        ("hazelnut_toy", 28, 6, 17),
        ("differnet_dummy", 4, 8, 8),
    ],
)
def test_real_data_sets(real_data: Path, name: str, normals: int, good: int, bad: int) -> None:
    category = open_category(real_data / name)
    assert len(category.normals) == normals
    assert sum(not sample.anomalous for sample in category.test) == good
    assert sum(sample.anomalous for sample in category.test) == bad
    assert category.without_mask == (8 if name == "differnet_dummy" else 0)
    frames = load_frames(category.normals[:20], (64, 64))
    assert not frames.skipped
