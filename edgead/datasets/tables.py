"""Layouts with a table that says which images are good: VisA's, and the meta.json of WinCLIP and its successors."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from edgead.datasets.category import GOOD, Category, Sample, defect_of, find_twice, is_good, name_of
from edgead.errors import DataError
from edgead.files import stays_below
from edgead.folders import list_images
from edgead.schema import load_json

META = "meta.json"


class MetaEntry(TypedDict, total=False):
    """An image of ``meta.json``; `anomaly` is 0 or 1, paths are relative to the data set."""

    img_path: str
    mask_path: str | None
    anomaly: int
    specie_name: str | None


Rows = dict[str, list[MetaEntry]]
"""``"train"`` and ``"test"`` ↦ the entries of one category."""


def open_visa(root: Path) -> Category:
    """Open one VisA category: ``image_anno.csv`` and ``Data``, with the published split where its table is."""
    root = root.resolve()  # its parent and its own name are looked at

    def locate(entry: str) -> Path:
        # The tables name files from the data set's root: "candle/Data/Images/Normal/000.JPG".
        _refuse_outside(table, entry)
        return root / Path(*Path(entry).parts[1:])

    table = root / "image_anno.csv"
    rows = _read_table(table, ("image", "label", "mask"))
    if not all(row["label"] for row in rows):
        raise DataError(f"{table} has images without a label.")
    samples = [
        Sample(
            locate(row["image"]),
            GOOD if is_good(row["label"]) else row["label"],
            (locate(row["mask"]),) if row["mask"] else (),
        )
        for row in rows
    ]
    if twice := find_twice((sample.path for sample in samples), table):  # on both sides of the split, with two labels
        raise DataError(twice)
    good = sorted(sample.path for sample in samples if not sample.anomalous)
    published = root.parent / "split_csv" / "1cls.csv"
    if published.is_file():
        split = _read_table(published, ("object", "split", "image"))
        chosen = {locate(row["image"]) for row in split if row["object"] == root.name and row["split"] == "train"}
        normals = [path for path in good if path in chosen]
    else:  # the published split's proportion, nine to one, without its table
        normals = [path for index, path in enumerate(good) if index % 10 != 9]
    trained = set(normals)
    test = sorted((sample for sample in samples if sample.path not in trained), key=lambda sample: sample.path)
    images = root / "Data" / "Images"
    unnamed = set(list_images(images, True)) - {sample.path for sample in samples} if images.is_dir() else ()
    notes = (f"left out: {len(unnamed)} images that {table.name} does not list",) if unnamed else ()
    _refuse_absent(normals, table)
    return Category(name_of(root), root, "visa", tuple(normals), (), tuple(test), _absent(test, table), notes)


def read_meta(root: Path) -> dict[str, Rows]:
    """Read the categories of a data set's ``meta.json``; empty if there is none of that form.

    Raises:
        DataError: it is of that form, and damaged.
    """
    path = root / META
    if not path.is_file():
        return {}
    try:
        content = load_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read {path}: {error}.") from error
    if not isinstance(content, dict) or not {"train", "test"} & content.keys():
        return {}  # something else of that name
    found: dict[str, Rows] = {}
    for part in ("train", "test"):
        categories = content.get(part, {})
        if not isinstance(categories, dict) or not all(isinstance(rows, list) for rows in categories.values()):
            raise DataError(f"{path}: '{part}' must be an object of categories, each with a list of images.")
        for name, rows in categories.items():
            _check_rows(path, part, name, rows)
            found.setdefault(name, {"train": [], "test": []})[part] = rows
    return found


def _check_rows(path: Path, part: str, name: str, rows: Sequence[Any]) -> None:
    for number, row in enumerate(rows):
        good = isinstance(row, dict) and isinstance(row.get("img_path"), str) and row.get("anomaly") in (0, 1)
        if not good or not isinstance(row.get("mask_path") or "", str):
            raise DataError(
                f"{path}: entry {number} of {part}, {name} needs img_path, mask_path (a path or nothing) and anomaly "
                "(0 or 1)."
            )


def _refuse_outside(table: Path, entry: str) -> None:
    if not stays_below(entry):
        raise DataError(f"{table} lists '{entry[:100]}', which is not below its folder.")


def open_meta(root: Path, name: str, rows: Rows) -> Category:
    """Open a category of ``meta.json``: it defines the split, whatever the folders' names."""
    table = root / META
    for row in (*rows["train"], *rows["test"]):
        _refuse_outside(table, row["img_path"])
        _refuse_outside(table, row.get("mask_path") or "")
    if twice := find_twice((root / row["img_path"] for row in rows["train"]), table):
        raise DataError(twice)
    normals = sorted(root / row["img_path"] for row in rows["train"] if not row["anomaly"])
    defective = sum(row["anomaly"] for row in rows["train"])
    notes = (f"left out: {defective} defective images that {META} lists for training",) if defective else ()
    test = sorted((_meta_sample(root, row) for row in rows["test"]), key=lambda sample: sample.path)
    _refuse_absent(normals, table)
    own = root / name
    paths = [*normals, *(sample.path for sample in test)]
    below = own if all(path.is_relative_to(own) for path in paths) else root
    problems = (find_twice((sample.path for sample in test), table), *_absent(test, table))
    return Category(name, below, META, tuple(normals), (), tuple(test), tuple(filter(None, problems)), notes)


def _meta_sample(root: Path, row: MetaEntry) -> Sample:
    if not row["anomaly"]:
        return Sample(root / row["img_path"], GOOD)
    mask = row.get("mask_path")
    masks = (root / mask,) if mask else ()
    return Sample(root / row["img_path"], defect_of(str(row.get("specie_name") or "")), masks)


def _refuse_absent(paths: Iterable[Path], table: Path) -> None:
    missing = [path for path in paths if not os.path.isfile(path)]  # which answers for names of any length
    if missing:
        raise DataError(f"{table} lists {len(missing)} files that do not exist, for instance {missing[0]}.")


def _absent(samples: Iterable[Sample], table: Path) -> tuple[str, ...]:
    """Return a line on the labelled images and masks that a table lists and that do not exist."""
    try:
        _refuse_absent((path for sample in samples for path in (sample.path, *sample.masks)), table)
    except DataError as error:
        return (str(error),)
    return ()


def _read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [{key: (row.get(key) or "").strip() for key in columns} for row in csv.DictReader(stream)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Cannot read {path}: {error}.") from error
    if not rows or not all(row[columns[0]] for row in rows):
        raise DataError(f"{path} must be a table with the columns {', '.join(columns)}.")
    return rows
