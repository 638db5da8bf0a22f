"""Masks: which belongs to which image, and whether the sizes match."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from edgead.datasets.category import Category, Sample
from edgead.errors import DataError
from edgead.folders import list_folder
from edgead.images import Mask, read_frame
from edgead.masks import fit_mask, read_mask

MASK = "_mask"
"""What follows the name of an image in that of its mask."""


def match_masks(images: Sequence[Path], inside: Path, folder: Path, kind: str) -> tuple[list[Sample], list[str]]:
    """Find the masks of defective images by their names.

    The mask of ``NAME.png`` is ``NAME_mask.png`` or ``NAME.png`` in the folder of masks, in the same subfolder; or
    everything in its subfolder ``NAME`` (MVTec LOCO).

    Args:
        images: of one kind.
        inside: the folder of the images, with subfolders.
        folder: of the masks; need not exist.
        kind: of the defect.

    Returns:
        The labelled images, and one line per problem: masks without an image or of two, several possible masks, masks
        among the images.
    """
    problems = describe_masks_among(images)
    files: dict[Path, list[Path]] = {}
    if folder.is_dir():
        for mask in list_folder(folder, recursive=True).demand():
            files.setdefault(mask.relative_to(folder).with_suffix(""), []).append(mask)
    samples, claimed = [], dict[Path, Path]()
    for image in images:
        name = image.relative_to(inside).with_suffix("")
        candidates = [key for key in (name.with_name(f"{name.name}{MASK}"), name) if key in files][:1]
        keys = candidates or sorted(key for key in files if key.parent == name)
        for key in keys:
            if len(files[key]) > 1:
                problems.append(f"{image} has several possible masks: {some_names(files[key])}. Keep one.")
            if claimed.setdefault(key, image) != image:
                problems.append(f"{files[key][0]} would be the mask of both {claimed[key]} and {image}. Rename one.")
        samples.append(Sample(image, kind, tuple(files[key][0] for key in keys)))
    stray = sorted(mask for key, masks in files.items() if key not in claimed for mask in masks)
    if stray:
        problems.append(
            f"Masks in {folder} belong to no image, for instance {stray[0].relative_to(folder)} ({len(stray)} in all)."
            "\n"
            "The mask of test/KIND/NAME.png is ground_truth/KIND/NAME_mask.png, NAME.png, or all images in NAME/."
        )
    return samples, problems


def describe_masks_among(images: Sequence[Path]) -> list[str]:
    """Return a line on masks that lie beside their images, where they would count as images; none if there are none."""
    names = {image.with_suffix("") for image in images}
    found = [image for image in images if image.stem.endswith(MASK) and _masked(image) in names]
    count = f" ({len(found)} in all)" if len(found) > 1 else ""
    return [f"{image} seems to be a mask among images{count}. Move it to ground_truth/KIND." for image in found[:1]]


def _masked(mask: Path) -> Path:
    """Return the name of a mask's image, without suffix."""
    return mask.with_name(mask.stem.removesuffix(MASK))


def some_names(paths: Sequence[Path]) -> str:
    """Name files."""
    return ", ".join(map(str, paths[:3]))


def read_labelled_mask(sample: Sample, frame_size: tuple[int, int], size: tuple[int, int]) -> Mask | None:
    """Return the mask of a test image at `size`: all False for a good image, None where there is no file.

    Raises:
        DataError: the mask's sides are not in the proportion of the image's.
    """
    if not sample.anomalous:
        return np.zeros(size, np.bool_)
    if not sample.masks:
        return None
    whole = np.zeros(size, np.bool_)
    for path in sample.masks:
        mask = read_mask(path, sample.background)
        if why := _misfit(path, (mask.shape[0], mask.shape[1]), sample.path, frame_size):
            raise DataError(why)
        whole |= fit_mask(mask, size)
    return whole


def _misfit(path: Path, mask: tuple[int, int], image: Path, frame: tuple[int, int]) -> str:
    """Return what is wrong with a mask's size; empty if its proportions are the image's."""
    if abs(mask[0] * frame[1] - mask[1] * frame[0]) <= max(*mask, *frame):  # a side may be rounded
        return ""
    return f"The mask {path} is {mask[1]}×{mask[0]} pixels, its image {image} is {frame[1]}×{frame[0]}."


def check_masks(category: Category, track: Callable[[Sequence[Sample]], Iterable[Sample]] = iter) -> list[str]:
    """Read all masks and their images, and return one line per problem. Training needs none of them.

    Returns:
        The category's problems, and those found by reading.
    """
    problems = list(category.problems)
    for sample in track([sample for sample in category.test if sample.masks]):
        try:
            frame = read_frame(sample.path).shape
            masks = {path: read_mask(path).shape for path in sample.masks}
        except DataError as error:
            problems.append(str(error))
            continue
        misfits = (_misfit(path, shape[:2], sample.path, frame[:2]) for path, shape in masks.items())
        problems += filter(None, misfits)
    return problems
