"""Data sets on disk: which images are good, which are defective, and where their masks are.

Recognised by themselves:

* one category in MVTec AD form: ``train/good``, ``test/KIND``, ``ground_truth/KIND/NAME_mask.png`` (or ``NAME.png``)
* MVTec 3D-AD: the same with ``rgb``, ``xyz`` and ``gt`` below each kind; ``xyz`` is read where a model takes depth
* one VisA category: ``image_anno.csv`` and ``Data/Images``, with the published split where ``split_csv/1cls.csv`` is
* a folder of several such categories
* a plain folder of good images
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgead.depth import DepthRange, find_depth_file, find_ends, measure_range
from edgead.errors import DataError
from edgead.images import COLOUR, Mask, PixelFormat, fit_frame, fit_mask, list_images, read_depth, read_frame, read_mask

GOOD = "good"
_GOOD_NAMES = frozenset({"good", "ok", "normal"})


@dataclass(frozen=True)
class Sample:
    """One labelled image. `kind` is ``"good"`` or the name of the defect; `mask` is None where there is no file."""

    path: Path
    kind: str
    mask: Path | None = None

    @property
    def anomalous(self) -> bool:
        return self.kind != GOOD


@dataclass(frozen=True)
class Category:
    """The images of one product.

    Attributes:
        name: the folder's name.
        root: the folder.
        layout: ``"mvtec"``, ``"mvtec3d"``, ``"visa"`` or ``"plain"``.
        normals: good images for training, sorted; empty where there are only labelled test images.
        validation: good images that the data set itself keeps apart for validation (MVTec 3D-AD), sorted.
        test: labelled images, sorted; empty in a plain folder.
    """

    name: str
    root: Path
    layout: str
    normals: tuple[Path, ...]
    validation: tuple[Path, ...] = ()
    test: tuple[Sample, ...] = field(default=(), repr=False)

    @property
    def without_mask(self) -> int:
        """Number of defective test images that have no mask file."""
        return sum(sample.anomalous and sample.mask is None for sample in self.test)


def open_category(root: str | Path, name: str | None = None) -> Category:
    """Open the one category in `root`, or the category `name` of several.

    Raises:
        DataError: nothing recognisable there, several categories without a name, or an unknown name.
    """
    if name is not None and (found := _open_named(Path(root), name)):
        return found
    categories = open_categories(root)
    if name is not None:
        for category in categories:
            if category.name == name:
                return category
        known = ", ".join(category.name for category in categories)
        raise DataError(f"{root} has no category '{name}'. It has: {known}.")
    if len(categories) > 1:
        known = ", ".join(category.name for category in categories)
        raise DataError(f"{root} holds several categories: {known}.\nChoose with --category NAME (or --category all).")
    return categories[0]


def open_categories(root: str | Path) -> list[Category]:
    """Open every category in `root`, sorted by name. A folder of one category gives a list of one.

    Raises:
        DataError: the folder does not exist or holds nothing that is recognised.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder." if root.exists() else f"The folder {root} does not exist.")
    category = _open_one(root)
    if category is not None:
        return [category]
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [category for folder in folders if (category := _open_one(folder, plain=False)) is not None]
    if not found:
        raise DataError(
            f"No images of good parts found in {root}.\n"
            "Expected a folder of good images, or train/good (and test/KIND, ground_truth/KIND) as in MVTec AD, "
            "or VisA or MVTec 3D-AD as published."
        )
    return found


def _open_named(root: Path, name: str) -> Category | None:
    """Open the folder of that name alone: what is wrong with its neighbours does not matter."""
    folder = root / name
    return _open_one(folder, plain=False) if Path(name).name == name and folder.is_dir() else None


def _open_one(root: Path, plain: bool = True) -> Category | None:
    if (root / "train").is_dir() or (root / "test").is_dir():
        return _open_mvtec(root)
    if (root / "image_anno.csv").is_file():
        return _open_visa(root)
    images = tuple(list_images(root)) if plain else ()
    return Category(_name(root), root, "plain", images) if images else None


def _name(root: Path) -> str:
    return root.resolve().name or "root"


def _good_folder(folder: Path) -> Path | None:
    named = (path for path in sorted(folder.iterdir()) if path.is_dir() and path.name.lower() in _GOOD_NAMES)
    return next(named, None)


def _open_mvtec(root: Path) -> Category:
    good = _good_folder(root / "train") if (root / "train").is_dir() else None
    three_d = any((folder / "rgb").is_dir() for folder in root.glob("t*/*"))
    inner = "rgb" if three_d else "."
    normals = tuple(list_images(good / inner)) if good else ()
    validation_folder = _good_folder(root / "validation") if (root / "validation").is_dir() else None
    validation = tuple(list_images(validation_folder / inner)) if validation_folder else ()
    test: list[Sample] = []
    kinds = sorted(path for path in (root / "test").iterdir() if path.is_dir()) if (root / "test").is_dir() else []
    for folder in kinds:
        images = list_images(folder / inner) if (folder / inner).is_dir() else []
        if folder.name.lower() in _GOOD_NAMES:
            test.extend(Sample(path, GOOD) for path in images)
        else:
            masks = folder / "gt" if three_d else root / "ground_truth" / folder.name
            test.extend(_match_masks(images, masks, folder.name))
    return Category(_name(root), root, "mvtec3d" if three_d else "mvtec", normals, validation, tuple(test))


def _match_masks(images: Sequence[Path], folder: Path, kind: str) -> Iterable[Sample]:
    masks = {path.stem: path for path in list_images(folder)} if folder.is_dir() else {}
    for image in images:
        name = next((name for name in (f"{image.stem}_mask", image.stem) if name in masks), None)
        yield Sample(image, kind, masks.pop(name) if name else None)
    if masks:
        stray = sorted(path.name for path in masks.values())
        raise DataError(
            f"Masks in {folder} belong to no image, for instance {stray[0]} ({len(stray)} in all).\n"
            "The mask of test/KIND/NAME.png is ground_truth/KIND/NAME_mask.png (or NAME.png)."
        )


def _open_visa(root: Path) -> Category:
    root = root.resolve()  # its parent and its own name are looked at

    def locate(entry: str) -> Path:
        # The tables name files from the data set's root: "candle/Data/Images/Normal/000.JPG".
        return root / Path(*Path(entry).parts[1:])

    rows = _read_table(root / "image_anno.csv", ("image", "label", "mask"))
    samples = [
        Sample(
            locate(row["image"]),
            GOOD if row["label"].lower() == "normal" else row["label"],
            locate(row["mask"]) if row["mask"] else None,
        )
        for row in rows
    ]
    missing = [str(path) for sample in samples for path in (sample.path, sample.mask) if path and not path.is_file()]
    if missing:
        raise DataError(f"{root / 'image_anno.csv'} names {len(missing)} files that do not exist: {missing[0]}.")
    good = sorted(sample.path for sample in samples if not sample.anomalous)
    published = root.parent / "split_csv" / "1cls.csv"
    if published.is_file():
        table = _read_table(published, ("object", "split", "image"))
        chosen = {locate(row["image"]) for row in table if row["object"] == root.name and row["split"] == "train"}
        normals = [path for path in good if path in chosen]
    else:  # the published split's proportion, nine to one, without its table
        normals = [path for index, path in enumerate(good) if index % 10 != 9]
    trained = set(normals)
    test = sorted((sample for sample in samples if sample.path not in trained), key=lambda sample: sample.path)
    return Category(_name(root), root, "visa", tuple(normals), (), tuple(test))


def _read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [{key: (row.get(key) or "").strip() for key in columns} for row in csv.DictReader(stream)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Cannot read {path}: {error}.") from error
    if not rows or not all(row[columns[0]] for row in rows):
        raise DataError(f"{path} must be a table with the columns {', '.join(columns)}.")
    return rows


@dataclass(frozen=True)
class Frames:
    """Good images, decoded and fitted.

    Attributes:
        frames: ``[N, H, W, C] uint8``: BGR, and depth where it was asked for.
        paths: the file of each frame, in order.
        skipped: one line for each image that could not be used.
        fingerprint: SHA-256 over the names and bytes of the files in `paths`, and of their depth pictures.
        sizes: (height, width) of each image before it was fitted.
    """

    frames: NDArray[np.uint8]
    paths: tuple[Path, ...]
    skipped: tuple[str, ...]
    fingerprint: str
    sizes: tuple[tuple[int, int], ...] = ()

    def size_ranges(self) -> dict[str, list[float]]:
        """Return lowest and highest ``heights``, ``widths`` and ``aspects`` (width / height); nothing of no images."""
        if not self.sizes:
            return {}
        heights, widths = zip(*self.sizes)
        aspects = [width / height for height, width in self.sizes]
        named = {"heights": heights, "widths": widths, "aspects": aspects}
        return {name: [min(values), max(values)] for name, values in named.items()}


def load_frames(
    paths: Sequence[Path],
    size: tuple[int, int],
    pixels: PixelFormat = COLOUR,
    progress: Callable[[Sequence[Path]], Iterable[Path]] = iter,
) -> Frames:
    """Read images, fit them to (height, width), and keep them in memory. Unreadable images are skipped by name."""
    frames = np.empty((len(paths), *size, pixels.channels), np.uint8)
    kept: list[Path] = []
    skipped: list[str] = []
    sizes: list[tuple[int, int]] = []
    digest = hashlib.sha256()
    for path in progress(paths):
        try:
            frame = read_frame(path, pixels)
            frames[len(kept)] = fit_frame(frame, size)
        except DataError as error:
            skipped.append(str(error))
            continue
        for file in [path] if pixels.depth_range is None else [path, find_depth_file(path)]:
            digest.update(os.fsencode(file.name) + b"\0" + file.read_bytes())
        kept.append(path)
        sizes.append((frame.shape[0], frame.shape[1]))
    return Frames(frames[: len(kept)], tuple(kept), tuple(skipped), digest.hexdigest(), tuple(sizes))


def find_depth_range(
    paths: Sequence[Path], progress: Callable[[Sequence[Path]], Iterable[Path]] = iter
) -> tuple[DepthRange, dict[Path, DepthRange]]:
    """Return the depth range of good images, and which of them widen it because theirs has no part in the usual one.

    Those whose depth cannot be read are left out.

    Raises:
        DataError: not one can be read; with the first reason.
    """
    reasons: list[DataError] = []
    ends: dict[Path, DepthRange] = {}
    for path in progress(paths):
        try:
            ends[path] = find_ends(read_depth(find_depth_file(path)))
        except DataError as error:
            reasons.append(error)
    if not ends:
        raise DataError(
            f"None of the {len(paths)} good images has depth that can be read; the first:\n{reasons[0]}\n"
            "Depth lies in xyz/ beside the colours in rgb/. Without any, leave out --set depth=true."
        )
    usual_near, usual_far = np.median([*ends.values()], axis=0)
    odd = {path: (near, far) for path, (near, far) in ends.items() if far < usual_near or near > usual_far}
    return measure_range(ends.values()), odd


def read_labelled_mask(sample: Sample, frame_size: tuple[int, int], size: tuple[int, int]) -> Mask | None:
    """Return the mask of a test image at `size`: all False for a good image, None where there is no file.

    Raises:
        DataError: the mask's size is not the image's.
    """
    if not sample.anomalous:
        return np.zeros(size, np.bool_)
    if sample.mask is None:
        return None
    mask = read_mask(sample.mask)
    if mask.shape != frame_size:
        raise DataError(
            f"The mask {sample.mask} is {mask.shape[1]}×{mask.shape[0]} pixels, "
            f"its image {sample.path} is {frame_size[1]}×{frame_size[0]}."
        )
    return fit_mask(mask, size)
