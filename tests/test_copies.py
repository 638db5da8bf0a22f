"""The same picture is never on both sides of a split, and counts once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from listener import Listener

from edgead.datasets import Category, open_category
from edgead.datasets.copies import find_copies, keep_distinct, look_at
from edgead.datasets.repeats import check_labelled
from edgead.errors import DataError
from edgead.export.imports.threshold_data import load_threshold_data
from edgead.images import COLOUR, PixelFormat
from edgead.train.split import split, split_normals

Write = Callable[..., Path]


def part(seed: int, noise: float = 0, light: int = 0) -> np.ndarray:
    """A plate with a hole somewhere, taken with some noise and light."""
    rng = np.random.default_rng(seed)
    picture = np.full((120, 160, 3), 90, np.uint8)
    cv2.circle(picture, tuple(int(each) for each in rng.integers(40, 80, 2)), 25, (200, 180, 160), -1)
    noisy = picture + np.random.default_rng(seed + 1000).normal(0, noise, picture.shape) + light
    return np.asarray(np.clip(noisy, 0, 255).astype(np.uint8))


def write(path: Path, picture: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)
    return path


def test_copies_stay_on_one_side(tmp_path: Path) -> None:
    for number in range(10):
        first = write(tmp_path / f"{number}.png", part(number))
        shutil.copy(first, tmp_path / f"Copy of {number}.png")
        write(tmp_path / f"{number}.bmp", part(number))  # other bytes, the same pixels
    said = Listener()
    made = split(open_category(tmp_path), 0.2, 0, COLOUR, said)
    assert (len(made.normals), len(made.held_out), made.copies, made.near) == (24, 6, 20, 0)
    numbers = [{path.stem.removeprefix("Copy of ") for path in side} for side in (made.normals, made.held_out)]
    assert not numbers[0] & numbers[1]
    assert said.said == ["20 good images have the same pixels as others: copies stay on one side of the split"]


def test_without_copies_a_split_is_what_it_always_was(tmp_path: Path) -> None:
    paths = tuple(write(tmp_path / f"{number:02}.png", part(number)) for number in range(10))
    category = Category("x", tmp_path, "plain", paths)
    order = np.random.default_rng((7, 0xED6EAD)).permutation(10)
    assert {int(path.stem) for path in split(category, 0.3, 7, COLOUR, Listener()).held_out} == set(order[:3])
    assert split_normals(category, 0.3, 7)[1] == split(category, 0.3, 7, COLOUR, Listener()).held_out


def test_copies_of_validation_images_are_not_trained_on(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"train/good/{number}.png", part(number))
    write(tmp_path / "validation/good/9.png", part(2))
    said = Listener()
    made = split(open_category(tmp_path), 0.2, 0, COLOUR, said)
    assert [path.name for path in made.normals] == ["0.png", "1.png", "3.png"]
    assert "1 of the images to train on are left out" in said.said[0]


def test_one_picture_many_times_is_refused(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path / f"{number}.png", part(0))
    with pytest.raises(DataError, match="one good image, 5 times"):
        split(open_category(tmp_path), 0.2, 0, COLOUR, Listener())


def test_near_copies_of_one_recording_are_told(tmp_path: Path) -> None:
    for number in range(10):  # each part in three consecutive frames, the lamp flickers
        for frame in range(3):
            write(tmp_path / f"{number}-{frame}.png", part(number, noise=3 + frame / 10, light=frame))
    said = Listener()
    made = split(open_category(tmp_path), 0.2, 0, COLOUR, said)
    assert made.copies == 0
    assert made.near >= 4
    assert f"{made.near} of 6 held-out images look almost like a training image" in said.said[0]


def test_different_parts_are_no_near_copies(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{number}.png", part(number, noise=4)) for number in range(20)]
    flat = [write(tmp_path / f"flat{n}.png", np.random.default_rng(n).integers(98, 103, (64, 64, 3))) for n in range(8)]
    pictures = look_at([*paths, *flat])
    assert pictures.near(range(10), range(10, 20)) == []
    assert pictures.near(range(20, 24), range(24, 28)) == []


@pytest.mark.parametrize("name", ["mtd", "mvtec_screw", "mvtec_hazelnut_reduced", "aws_cookies"])
def test_real_parts_are_no_near_copies(real_data: Path, name: str) -> None:
    paths = open_category(real_data / name).normals[:120]
    pictures = look_at(paths)
    assert len(set(pictures.groups())) == len(paths)
    half = len(paths) // 2
    assert pictures.near(range(half), range(half, len(paths))) == []


def test_unreadable_images_are_copies_of_nothing(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png", write(tmp_path / "c.png", part(1))]
    paths[0].write_bytes(b"x")
    pictures = look_at(paths)
    assert pictures.groups() == (0, 1, 2)
    assert pictures.near([0, 1], [2]) == []


def test_test_images_that_were_trained_on_are_found(tmp_path: Path) -> None:
    trained = [write(tmp_path / f"train/{number}.png", part(number)) for number in range(3)]
    test = [write(tmp_path / f"test/{number}.png", part(number + 2)) for number in range(3)]
    assert find_copies(test, trained) == [test[0]]


def test_equal_frames_count_once() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    assert keep_distinct(np.concatenate([frames, frames[1:2], frames[:1]])) == [0, 1, 2]


def rewritten(path: Path, to: Path, light: int = 0) -> Path:
    """The same pixels in another file format, so other bytes; brighter by `light`."""
    return write(to, cv2.add(cv2.imread(str(path)), np.full(3, light, np.float64)))


def labelled(folder: Path) -> Path:
    for number, name in enumerate(("train/good/0", "train/good/1", "test/good/0", "test/good/1", "test/dent/0")):
        write(folder / f"{name}.png", part(number))
    return folder


def test_labelled_images_that_are_there_twice_are_named(tmp_path: Path) -> None:
    said = Listener()
    assert check_labelled(open_category(labelled(tmp_path)), said) == 0
    assert said.said == []
    first = tmp_path / "test/good/0.png"
    shutil.copy(first, tmp_path / "test/good/again.png")
    rewritten(first, tmp_path / "test/good/more.bmp")
    assert check_labelled(open_category(tmp_path), said) == 0
    [line] = said.said
    assert "2 of 5 labelled images" in line
    assert "again.png of 0.png" in line


LOOKS = [
    (lambda root: check_labelled(open_category(root), Listener()), "test/good"),
    (lambda root: check_labelled(open_category(root), Listener()), "train/good"),
    (lambda root: split(open_category(root), 0.2, 0, COLOUR, Listener()), "train/good"),
    (lambda root: load_threshold_data(root, (32, 32), Listener()), "test/good"),
]
"""What looks at the labels, and where good images are that it looks at."""


@pytest.mark.parametrize(("look", "part"), LOOKS)
def test_a_picture_that_is_good_and_defective_is_refused(
    tmp_path: Path, look: Callable[[Path], object], part: str
) -> None:
    """Where it was trained on, or set the threshold, its defect was good."""
    rewritten(labelled(tmp_path) / part / "0.png", tmp_path / "test/dent/9.bmp")
    with pytest.raises(DataError, match=rf"labelled good and defective: .*{part}/0.png and .*test/dent/9.bmp"):
        look(tmp_path)


@pytest.mark.parametrize("look", [look for look, part in LOOKS if part == "train/good"])
def test_a_file_that_a_table_lists_as_good_and_as_defective_is_refused(
    tmp_path: Path, look: Callable[[Path], object]
) -> None:
    """For training as good, for the test as defective: it is one path."""
    good = [{"img_path": f"train/good/{number}.png", "anomaly": 0} for number in range(2)]
    rows = [{"img_path": "test/dent/0.png", "anomaly": 1}, {"img_path": "train/good/1.png", "anomaly": 1}]
    labelled(tmp_path).joinpath("meta.json").write_text(json.dumps({"train": {"part": good}, "test": {"part": rows}}))
    with pytest.raises(DataError, match=r"labelled good and defective: .*good/1.png and .*good/1.png"):
        look(tmp_path)


def test_labelled_images_that_were_trained_on_are_counted(tmp_path: Path) -> None:
    """Whatever their format. Near copies are told of good images alone: a small defect hardly changes a picture."""
    rewritten(labelled(tmp_path) / "train/good/0.png", tmp_path / "test/good/copy.bmp")
    for number, kind in enumerate(("good", "dent")):
        rewritten(tmp_path / f"train/good/{number}.png", tmp_path / "test" / kind / "near.bmp", light=3)
    said = Listener()
    assert check_labelled(open_category(tmp_path), said) == 1
    assert [line.partition(";")[0] for line in said.said[:1]] == [
        f"Warning: 1 of 6 labelled images of {tmp_path.name} are copies of training images"
    ]
    assert said.said[1].startswith(f"Warning: 1 of 4 good labelled images of {tmp_path.name} look almost like")
    assert len(said.said) == 2


def test_images_for_a_threshold_that_were_trained_on_are_counted(tmp_path: Path) -> None:
    rewritten(labelled(tmp_path) / "train/good/1.png", tmp_path / "test/good/copy.bmp")
    said = Listener()
    load_threshold_data(tmp_path, (32, 32), said)
    assert said.said[0] == "Warning: 1 of the 3 images for the threshold are copies of training images"


def test_parts_that_differ_in_depth_alone_are_no_copies(tmp_path: Path) -> None:
    for number, name in enumerate(("train/good", "test/good", "test/dent")):
        write(tmp_path / name / "rgb/0.png", part(0))
        write(tmp_path / name / "xyz/0.tiff", np.full((120, 160, 3), 100.0 + number, np.float32))
    category = open_category(tmp_path)
    assert check_labelled(category, said := Listener(), PixelFormat(depth_range=(90.0, 110.0))) == 0
    assert len(said.said) == 1  # the good one looks almost like the training image
    with pytest.raises(DataError, match="labelled good and defective"):
        check_labelled(category, Listener())
    write(tmp_path / "train/good/rgb/1.png", part(1))
    assert split(open_category(tmp_path), 0.5, 0, COLOUR, Listener()).copies == 0
