"""Good images that set the threshold of an imported model: which of a data set the model has not been trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgead.console import Console
from edgead.datasets import Category, Frames, load_frames, open_category
from edgead.datasets.copies import find_copies, keep_distinct
from edgead.errors import DataError
from edgead.images import COLOUR, PixelFormat

PARTS = {
    "validation": "validation/good",
    "test": "test/good. A benchmark on the same images says nothing about good parts that fail",
    "train": "train/good. If the model was trained on them, more good parts fail than is promised",
    "folder": "the folder. If the model was trained on them, more good parts fail than is promised",
}
"""Where the images come from ↦ what has to be said about it."""


@dataclass(frozen=True)
class ThresholdData:
    """Good images.

    Attributes:
        frames: they set the threshold; each picture once.
        good: all good images of the data, which may also calibrate.
        part: a key of `PARTS`.
        category: name of the product.
    """

    frames: Frames
    good: tuple[Path, ...]
    part: str
    category: str


def load_threshold_data(
    data: str | Path, size: tuple[int, int], console: Console, pixels: PixelFormat = COLOUR
) -> ThresholdData:
    """Read the good images of a folder, or those of a data set that are kept apart from its training images.

    Raises:
        DataError: there are none that can be read.
    """
    category = open_category(data)
    part, paths = _choose(category)
    if part in ("validation", "test") and (copies := find_copies(paths, category.normals)):
        console.say(
            f"Warning: {len(copies)} of the {len(paths)} images for the threshold are copies of training images"
        )
    frames = load_frames(paths, size, pixels, console.track("reading good images"))
    for line in frames.skipped[:3]:
        console.say(f"left out: {line}")
    if not len(frames.frames):
        raise DataError(f"No image of a good part in {data} could be read; the threshold needs some.")
    distinct = keep_distinct(frames.frames)
    if len(distinct) < len(frames.frames):
        console.say(f"of {len(frames.frames)} images {len(distinct)} differ: each picture counts once")
    for note in category.notes:
        console.say(f"{category.name}: {note}")
    console.say(f"the threshold is set on {len(distinct)} good images of {PARTS[part]}")
    good = dict.fromkeys((*category.normals, *category.validation, *paths))
    return ThresholdData(frames.only(distinct), tuple(good), part, category.name)


def _choose(category: Category) -> tuple[str, tuple[Path, ...]]:
    if category.validation:
        return "validation", category.validation
    if good := tuple(sample.path for sample in category.test if not sample.anomalous):
        return "test", good
    return ("folder" if category.layout == "plain" else "train"), category.normals
