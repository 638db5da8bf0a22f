"""The manifests of Amazon Lookout for Vision."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgead.datasets import check_masks, open_category, read_labelled_mask
from edgead.errors import DataError

Write = Callable[..., Path]


def line(name: str, label: str, mask: str = "", number: int = 1) -> dict[str, Any]:
    """A line in the form that Amazon documents, with its number that says nothing."""
    described = {"class-name": label, "type": "groundtruth/image-classification", "confidence": 1, "job-name": "job"}
    row: dict[str, Any] = {"source-ref": f"s3://bucket/{name}", "anomaly-label": number}
    row["anomaly-label-metadata"] = described
    if mask:
        colours = {
            "0": {"class-name": "BACKGROUND", "hex-color": "#ffffff", "confidence": 0.0},
            "1": {"class-name": "scratch", "hex-color": "#2ca02c", "confidence": 0.0},
        }
        row["anomaly-mask-ref"] = f"s3://bucket/{mask}"
        row["anomaly-mask-ref-metadata"] = {"internal-color-map": colours, "type": "groundtruth/semantic-segmentation"}
    return row


def write_manifest(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def write_mask(path: Path) -> None:
    """White is good; the defect is #2ca02c, as in the colour map."""
    mask = np.full((32, 40, 3), 255, np.uint8)
    mask[4:10, 2:7] = (0x2C, 0xA0, 0x2C)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), mask)


def test_a_segmentation_data_set_with_a_test_manifest(tmp_path: Path, write_image: Write) -> None:
    for name in ("train/0.png", "train/1.png", "train/2.png", "test/0.png", "test/1.png"):
        write_image(tmp_path / "images" / name)
    write_mask(tmp_path / "masks" / "test" / "1.png")
    train = [line("p/train/0.png", "normal"), line("p/train/1.png", "normal"), line("p/train/2.png", "anomaly")]
    write_manifest(tmp_path / "manifests" / "train.manifest", *train)
    test = [line("p/images/test/0.png", "normal"), line("p/images/test/1.png", "anomaly", "p/masks/test/1.png")]
    write_manifest(tmp_path / "manifests" / "test.manifest", *test)
    category = open_category(tmp_path)
    assert (category.layout, category.name) == ("lookout", tmp_path.name)
    assert [path.relative_to(tmp_path).as_posix() for path in category.normals] == [
        "images/train/0.png",
        "images/train/1.png",
    ]
    assert [sample.kind for sample in category.test] == ["good", "scratch"]
    assert "1 defective images" in category.notes[0]
    assert check_masks(category) == []
    mask = read_labelled_mask(category.test[1], (32, 40), (32, 40))
    assert mask is not None
    assert mask.sum() == 6 * 5
    assert mask[5, 3]


def test_a_mask_may_be_transparent_where_nothing_is_drawn(tmp_path: Path, write_image: Write) -> None:
    """An editor leaves black there: it was a defect that covered the image."""
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "b.png")
    mask = np.zeros((32, 40, 4), np.uint8)
    mask[4:10, 2:7] = (0x2C, 0xA0, 0x2C, 255)
    mask[20:22, 2:7] = 255  # painted over with the background's colour
    assert cv2.imwrite(str(tmp_path / "masks.png"), mask)
    write_manifest(tmp_path / "train.manifest", line("a.png", "normal"), line("b.png", "anomaly", "masks.png"))
    [sample] = open_category(tmp_path).test
    found = read_labelled_mask(sample, (32, 40), (32, 40))
    assert found is not None
    assert found.sum() == 6 * 5


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (line("p/train/1.png", "normal"), line("p/test/1.png", "normal")),
        (line("p/train/2.png", "normal"), line("p/test/1.png", "anomaly", "p/masks/1.png")),
        (line("p/train/1.png", "anomaly"), line("p/test/1.png", "normal")),  # which of the two it is, is not known
    ],
)
def test_one_file_is_not_taken_for_two_addresses(
    train: dict[str, Any], test: dict[str, Any], tmp_path: Path, write_image: Write
) -> None:
    """Of a folder that was not copied: a test image was trained on, and an image was its own mask."""
    write_image(tmp_path / "test" / "1.png")
    write_image(tmp_path / "train" / "2.png")
    write_manifest(tmp_path / "train.manifest", train)
    write_manifest(tmp_path / "test.manifest", test)
    with pytest.raises(DataError, match=r"^Only one file here has the name of .*1\.png"):
        open_category(tmp_path)


def test_a_single_manifest_trains_on_good_images_and_measures_on_defective_ones(
    tmp_path: Path, write_image: Write
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / name)
    rows = (line("a.png", "normal", number=1), line("b.png", "normal", number=0), line("c.png", "anomaly"))
    write_manifest(tmp_path / "output.manifest", *rows)
    category = open_category(tmp_path)
    assert [path.name for path in category.normals] == ["a.png", "b.png"]
    assert [(sample.path.name, sample.kind, sample.masks) for sample in category.test] == [("c.png", "anomaly", ())]


def test_another_file_of_that_name_is_not_a_manifest(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "package.manifest").write_text('{"name": "something else"}')
    assert open_category(tmp_path).layout == "plain"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([line("a.png", "normal"), line("lost.png", "normal")], "1 files that are not below .*lost.png"),
        ([line("twice.png", "normal")], r"may be .*x/twice.png.*y/twice.png"),
        ([line("a.png", "normal"), {"source-ref": "s3://bucket/b.png"}], "line 2: cannot read it .0 labels"),
        ([line("a.png", "normal"), line("a.png", "normal") | {"source-ref": 3}], "line 2: .*not an address"),
        ([line("a.png", "normal"), line("a.png", "normal") | {"x-metadata": 3}], "line 2: cannot read it"),
        ([line("a.png", "normal"), line("a.png", "anomaly")], r"train\.manifest lists 1 images twice, .*a\.png"),
    ],
)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, write_image: Write, rows: list[dict[str, Any]], message: str
) -> None:
    for name in ("a.png", "x/twice.png", "y/twice.png"):
        write_image(tmp_path / name)
    write_manifest(tmp_path / "train.manifest", *rows)
    with pytest.raises(DataError, match=message):
        open_category(tmp_path)


def test_which_of_several_manifests_is_for_training_must_be_clear(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "a.png")
    first = write_manifest(tmp_path / "one.manifest", line("a.png", "normal"))
    write_manifest(tmp_path / "two.manifest", line("a.png", "normal"))
    with pytest.raises(DataError, match=r"Cannot tell which manifest.*one.manifest, two.manifest"):
        open_category(tmp_path)
    with pytest.raises(DataError, match=f"Pass the folder.*--data {tmp_path}"):
        open_category(first)
