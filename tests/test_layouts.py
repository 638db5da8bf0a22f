"""Layouts beyond MVTec AD's, and those that could be read in two ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from edgead.datasets import Category, check_masks, open_again, open_categories, open_category, read_labelled_mask
from edgead.errors import DataError
from edgead.masks import read_mask

Write = Callable[..., Path]


def write_mask(path: Path, columns: slice, value: int = 255, size: tuple[int, int] = (32, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, np.uint8)
    mask[4:10, columns] = value
    assert cv2.imwrite(str(path), mask)
    return path


def fill(write: Write, *names: str) -> None:
    for number, name in enumerate(names):
        write(Path(name), seed=number)


def kinds(category: Category) -> list[str]:
    return sorted(sample.kind for sample in category.test)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        *(("good", "bad"), ("ok", "nok"), ("OK", "KO"), ("pass", "fail"), ("Normal", "scratch"), ("IO", "NIO")),
        *(("No defect", "not-ok"), ("defect-free", "dent"), ("without_defects", "defects")),
    ],
)
def test_names_of_good_folders(tmp_path: Path, write_image: Write, good: str, bad: str) -> None:
    both = (f"{tmp_path}/mvtec/Train/{good}/1.png", f"{tmp_path}/mvtec/test/{good}/2.png")
    fill(write_image, *both, f"{tmp_path}/mvtec/test/{bad}/3.png")
    category = open_category(tmp_path / "mvtec")
    assert (len(category.normals), kinds(category)) == (1, sorted([bad, "good"]))
    fill(write_image, f"{tmp_path}/flat/{good}/1.png", f"{tmp_path}/flat/{good}/2.png", f"{tmp_path}/flat/{bad}/3.png")
    category = open_category(tmp_path / "flat")
    assert (category.layout, len(category.normals), kinds(category)) == ("good and bad", 2, [bad])
    assert f"{good}/ is read as good images, {bad} as defects" in category.notes[0]


def test_loco_has_several_masks_of_an_image(tmp_path: Path, write_image: Write) -> None:
    names = [f"train/good/{n:03}" for n in range(3)] + ["validation/good/000", "test/good/000"]
    names += ["test/logical_anomalies/000", "test/structural_anomalies/000", "test/structural_anomalies/001"]
    fill(write_image, *(f"{tmp_path}/{name}.png" for name in names))
    (tmp_path / "defects_config.json").write_text("[]")
    truth = tmp_path / "ground_truth"
    write_mask(truth / "logical_anomalies/000/000.png", slice(0, 5), 230)
    write_mask(truth / "logical_anomalies/000/001.png", slice(30, 35), 1)
    write_mask(truth / "structural_anomalies/000/000.png", slice(0, 5))
    category = open_category(tmp_path)
    assert (category.layout, len(category.normals), len(category.validation)) == ("loco", 3, 1)
    assert [len(sample.masks) for sample in category.test] == [0, 2, 1, 0]
    assert (category.without_mask, category.problems) == (1, ())
    mask = read_labelled_mask(category.test[1], (32, 40), (32, 40))
    assert mask is not None
    assert mask.sum() == 2 * 6 * 5


def test_masks_of_zero_and_one(tmp_path: Path, write_image: Write) -> None:
    fill(write_image, f"{tmp_path}/train/good/0.png", f"{tmp_path}/test/dent/0.png", f"{tmp_path}/test/dent/1.png")
    write_mask(tmp_path / "ground_truth/dent/0.png", slice(0, 8), 1)
    write_mask(tmp_path / "ground_truth/dent/1.bmp", slice(0, 8), 1)
    for sample in open_category(tmp_path).labelled():
        mask = read_labelled_mask(sample, (32, 40), (32, 40))
        assert mask is not None
        assert mask.sum() == 6 * 8


@pytest.mark.parametrize("name", ["mask.jpg", "mask.png", "mask.webp"])
def test_the_blurred_edge_of_a_lossy_mask_is_no_defect(tmp_path: Path, name: str) -> None:
    """What a format has lost shows in the file, not in its name: a JPEG may be called .png."""
    mask = np.zeros((96, 128), np.uint8)
    cv2.circle(mask, (60, 50), 20, 255, -1)
    kind, quality = (".webp", cv2.IMWRITE_WEBP_QUALITY) if name.endswith("webp") else (".jpg", cv2.IMWRITE_JPEG_QUALITY)
    (tmp_path / name).write_bytes(cv2.imencode(kind, mask, [quality, 80])[1].tobytes())
    assert abs(int(read_mask(tmp_path / name).sum()) - (mask > 0).sum()) <= 4
    cv2.imwrite(str(tmp_path / "grey.webp"), mask // 255, [cv2.IMWRITE_WEBP_QUALITY, 101])  # lossless: 0 and 1
    assert np.array_equal(read_mask(tmp_path / "grey.webp"), mask > 0)


def test_a_mask_may_be_drawn_on_a_transparent_layer(tmp_path: Path) -> None:
    layer = np.full((32, 40, 4), 255, np.uint8)
    layer[:, :, 3] = 0
    layer[4:10, :8, 3] = 128
    assert cv2.imwrite(str(tmp_path / "layer.png"), layer)
    assert read_mask(tmp_path / "layer.png").sum() == 6 * 8


def test_a_mask_whose_transparency_opencv_does_not_return_is_refused(tmp_path: Path) -> None:
    """Such masks marked the whole picture: what is transparent, and no defect, came back as white."""
    mask = np.zeros((16, 24), np.uint8)
    mask[4:10, 3:11] = 255
    white = np.full_like(mask, 255)
    Image.fromarray(np.where(mask, 128, white).astype(np.uint8)).save(tmp_path / "level.png", transparency=255)
    Image.fromarray(np.dstack([white, mask])).save(tmp_path / "layer.tif")
    for name in ("level.png", "layer.tif"):
        with pytest.raises(DataError, match="its transparency, which says where no defect is, is not read"):
            read_mask(tmp_path / name)
    Image.fromarray(np.dstack([white, mask])).save(tmp_path / "layer.png")
    Image.fromarray(mask).save(tmp_path / "plain.tif")
    for name in ("layer.png", "plain.tif"):
        assert np.array_equal(read_mask(tmp_path / name), mask > 0)


@pytest.mark.parametrize("parent", ["", "train/good/", "good/"])
def test_masks_beside_good_images_are_refused(tmp_path: Path, write_image: Write, parent: str) -> None:
    """They were trained on, or set the threshold."""
    fill(write_image, *(f"{tmp_path}/{parent}{name}.png" for name in ("0", "1", "1_mask", "2_mask")))
    with pytest.raises(DataError, match=r"1_mask\.png seems to be a mask among images\."):
        open_category(tmp_path)
    (tmp_path / parent / "1_mask.png").unlink()
    assert len(open_category(tmp_path).normals) == 3  # 2_mask is no mask of an image there


@pytest.mark.parametrize("parent", ["", "test/"])
def test_labelled_images_that_contradict_their_folder_are_problems(
    tmp_path: Path, write_image: Write, parent: str
) -> None:
    """Masks counted as defective parts, and both labels for the folder's."""
    fill(write_image, f"{tmp_path}/{'train/' * bool(parent)}good/0.png")
    fill(write_image, *(f"{tmp_path}/{parent}dent/{name}.png" for name in ("0", "0_mask", "1", "1_mask", "good/2")))
    problems = open_category(tmp_path).problems
    assert any("0_mask.png seems to be a mask among images (2 in all)" in line for line in problems)
    assert "in a folder 'good' among defective images" in problems[0]
    if parent:
        fill(write_image, f"{tmp_path}/test/good/NOK/0.png")
        assert any("in a folder 'NOK' among good images" in line for line in open_category(tmp_path).problems)


def test_a_mask_of_two_images_is_a_problem(tmp_path: Path, write_image: Write) -> None:
    fill(write_image, *(f"{tmp_path}/{name}" for name in ("train/good/0.png", "test/dent/1.png", "test/dent/1.bmp")))
    write_mask(tmp_path / "ground_truth/dent/1_mask.png", slice(0, 5))
    [problem] = open_category(tmp_path).problems
    assert "1_mask.png would be the mask of both" in problem


def test_date_folders_among_good_images(tmp_path: Path, write_image: Write) -> None:
    fill(write_image, f"{tmp_path}/a/train/good/2026-11-27/1.png", f"{tmp_path}/a/train/good/shift 2/late/2.png")
    fill(write_image, f"{tmp_path}/a/test/dent/2026-11-27/1.png")
    write_mask(tmp_path / "a/ground_truth/dent/2026-11-27/1_mask.png", slice(0, 5))
    category = open_category(tmp_path / "a")
    assert len(category.normals) == 2
    assert (category.without_mask, category.problems) == (0, ())
    fill(write_image, f"{tmp_path}/b/20261127/1.png", f"{tmp_path}/b/2026/11/28/2.png")
    assert len(open_category(tmp_path / "b").normals) == 2


def meta(tmp_path: Path, write: Write, **changes: object) -> Path:
    def entry(name: str, anomaly: int, mask: str = "") -> dict[str, object]:
        write(tmp_path / name, seed=len(name))
        facts = {"img_path": name, "mask_path": mask, "cls_name": "candle", "specie_name": "bad" * anomaly}
        return {**facts, "anomaly": anomaly}

    write_mask(tmp_path / "candle/Data/Masks/Anomaly/9.png", slice(0, 5), 1)
    images = "candle/Data/Images"
    train = [entry(f"{images}/Normal/{n}.JPG", 0) for n in range(3)]
    test = [entry(f"{images}/Normal/8.JPG", 0), entry(f"{images}/Anomaly/9.JPG", 1, "candle/Data/Masks/Anomaly/9.png")]
    content = {"train": {"candle": train}, "test": {"candle": test}, **changes}
    (tmp_path / "meta.json").write_text(json.dumps(content))
    return tmp_path


def test_meta_json_says_what_is_trained_on(tmp_path: Path, write_image: Write) -> None:
    root = meta(tmp_path, write_image)
    for category in (open_category(root), open_category(root, "candle"), open_category(root / "candle")):
        assert (category.name, category.layout, category.root.name) == ("candle", "meta.json", "candle")
        assert [path.name for path in category.normals] == ["0.JPG", "1.JPG", "2.JPG"]
        assert kinds(category) == ["bad", "good"]
        assert check_masks(category) == []
    (root / "candle/Data/Masks/Anomaly/9.png").unlink()
    assert len(open_category(root).normals) == 3
    with pytest.raises(DataError, match="lists 1 files that do not exist"):
        open_category(root).labelled()
    (root / "candle/Data/Images/Normal/1.JPG").unlink()
    with pytest.raises(DataError, match="lists 1 files that do not exist"):
        open_category(root)


def test_a_defect_that_meta_json_calls_good_is_a_defect(tmp_path: Path, write_image: Write) -> None:
    row = {"img_path": "candle/Data/Images/Anomaly/9.JPG", "specie_name": "good", "anomaly": 1}
    category = open_category(meta(tmp_path, write_image, test={"candle": [row]}))
    assert [(sample.kind, sample.anomalous) for sample in category.test] == [("defect", True)]


def test_a_table_that_lists_an_image_twice(tmp_path: Path, write_image: Write) -> None:
    """Its two labels may differ: then it would count as good and as defective."""
    row = {"img_path": "candle/Data/Images/Normal/0.JPG", "anomaly": 0}
    root = meta(tmp_path, write_image, test={"candle": [row, {**row, "anomaly": 1}]})
    assert len(open_category(root).normals) == 3  # training needs no labelled images
    with pytest.raises(DataError, match=r"meta\.json lists 1 images twice, for instance .*0\.JPG"):
        open_category(root).labelled()
    with pytest.raises(DataError, match=r"meta\.json lists 1 images twice"):
        open_category(meta(tmp_path, write_image, train={"candle": [row, {**row, "anomaly": 1}]}))


def test_a_table_of_visa_that_lists_an_image_twice_or_without_label(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "nut/Data/Images/Normal/0.JPG")
    table = tmp_path / "nut/image_anno.csv"
    for rows, words in (
        ("nut/Data/Images/Normal/0.JPG,normal,\nnut/Data/Images/Normal/0.JPG,scratch,", "lists 1 images twice"),
        ("nut/Data/Images/Normal/0.JPG,,", "without a label"),
    ):
        table.write_text(f"image,label,mask\n{rows}\n")
        with pytest.raises(DataError, match=words):
            open_category(tmp_path / "nut")


def test_a_run_finds_its_category_among_those_of_a_shared_folder(tmp_path: Path, write_image: Write) -> None:
    rows = {name: [{"img_path": f"images/{name}{n}.png", "anomaly": 0} for n in range(2)] for name in ("nut", "bolt")}
    for row in (*rows["nut"], *rows["bolt"]):
        write_image(tmp_path / str(row["img_path"]))
    (tmp_path / "meta.json").write_text(json.dumps({"train": rows, "test": {}}))
    root = open_category(tmp_path, "bolt").root
    assert root == tmp_path
    with pytest.raises(DataError, match="several categories"):
        open_category(root)
    assert open_again(root, "bolt").name == "bolt"
    assert open_again(tmp_path / "images", "bolt").name == "images"  # the only one, whose folder was renamed


@pytest.mark.parametrize("train", [[], {"candle": {}}, {"candle": ["x.png"]}, {"candle": [{"img_path": 3}]}])
def test_meta_json_that_is_damaged(tmp_path: Path, write_image: Write, train: object) -> None:
    with pytest.raises(DataError, match=r"meta\.json: "):
        open_categories(meta(tmp_path, write_image, train=train))


def test_another_meta_json_is_no_data_set(tmp_path: Path, write_image: Write) -> None:
    (tmp_path / "meta.json").write_text('{"camera": "A"}')
    fill(write_image, f"{tmp_path}/train/good/1.png")
    assert open_category(tmp_path).layout == "mvtec"


AMBIGUOUS = {
    "two good folders": (("train/good/1", "train/ok/2"), "several folders of good images: good, ok\\. Keep one"),
    "good and pass": (("good/1", "pass/2", "bad/3"), "Cannot tell which images in"),
    "only defects": (("bad/1", "scratch/2"), "Cannot tell which images in"),
    "beside good": (("good/1", "2"), "Cannot tell which images in"),
    "products or shifts": (("left/1", "right/2"), "They may be one product or several"),
    "defects among good": (("train/good/bad/1", "train/good/2"), "in a folder 'bad' among good images"),
    "defects of a day": (("20261127/scratch/1", "20261127/2"), "in a folder 'scratch'"),
    "images and data sets": (("a/train/good/1", "2"), "Choose one"),
    "two cases": (("train/good/1", "Train/good/2"), "several folders for one part"),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_could_be_read_in_two_ways_is_refused(tmp_path: Path, write_image: Write, name: str) -> None:
    files, says = AMBIGUOUS[name]
    fill(write_image, *(f"{tmp_path}/{file}.png" for file in files))
    with pytest.raises(DataError, match=says):
        open_categories(tmp_path)


def test_what_is_left_out_is_told(tmp_path: Path, write_image: Write) -> None:
    names = ["train/good/1", "train/bad/2", "train/3", "backup/4", "5", "train/good/@eaDir/6"]
    fill(write_image, *(f"{tmp_path}/a/{name}.png" for name in names))
    notes = "\n".join(open_category(tmp_path / "a").notes)
    for said in ("bad/ (1), images in no folder (1)", "backup/ (1), images in no folder (1)", "1 × @eaDir/"):
        assert said in notes
    fill(write_image, f"{tmp_path}/b/1.png", f"{tmp_path}/b/old/2.png")
    assert open_category(tmp_path / "b").notes == ("left out: old/ (1 images)",)


def test_problems_of_labelled_images_do_not_block_training(tmp_path: Path, write_image: Write) -> None:
    fill(write_image, f"{tmp_path}/train/good/1.png", f"{tmp_path}/test/dent/1.png", f"{tmp_path}/test/loose.png")
    for name in ("dent/1.png", "dent/1.bmp", "dent/9.png", "crack/1.png"):
        write_mask(tmp_path / "ground_truth" / name, slice(0, 5))
    category = open_category(tmp_path)
    assert len(category.normals) == 1
    said = "\n".join(category.problems)
    for problem in (
        "outside its folders KIND",
        "several possible masks",
        "belong to no image, for instance 9.png",
        "masks for crack",
    ):
        assert problem in said
    with pytest.raises(DataError, match=r"\(3 more such problems\)"):
        category.labelled()
