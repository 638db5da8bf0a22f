"""Good images for the threshold of an imported model, if possible not those it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgead.console import Console
from edgead.datasets import Category, Frames, load_frames, open_category
from edgead.datasets.copies import keep_distinct, look_at
from edgead.datasets.repeats import refuse_two_labels
from edgead.errors import DataError
from edgead.images import COLOUR, PixelFormat

PARTS = {
    "validation": "validation/good",
    "test": "test/good. A benchmark on these images cannot check the false-reject rate",
    "train": "train/good. If the model was trained on them, more good parts fail than stated",
    "folder": "the folder. If the model was trained on them, more good parts fail than stated",
}
"""Part of the data set ↦ how it is reported, with its risk."""


@dataclass(frozen=True)
class ThresholdData:
    """Good images.

    Attributes:
        frames: the distinct images that the threshold is fitted to.
        good: all good images of the data, for calibration.
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
    """Read the good images of a folder, or the validation or test images of a data set.

    Raises:
        DataError: no readable image, or one that is also labelled as defective.
    """
    category = open_category(data)
    part, paths = _choose(category)
    trained = category.normals if part in ("validation", "test") else ()
    defective = [sample.path for sample in category.test if sample.anomalous]
    if trained or defective:
        every = [*paths, *trained, *defective]
        pictures = look_at(every, pixels, console.track("looking for copies"))
        refuse_two_labels(every, pictures, range(len(every) - len(defective), len(every)))
        if copies := pictures.copied(len(paths)):
            console.say(f"Warning: {copies} of the {len(paths)} images for the threshold are copies of training images")
    frames = load_frames(paths, size, pixels, console.track("reading good images"))
    for line in frames.skipped[:3]:
        console.say(f"skipped: {line}")
    if odd := frames.describe_odd_shapes():
        console.say(odd)
    if not len(frames.frames):
        raise DataError(f"No readable image of a good part in {data}; the threshold needs them.")
    distinct = keep_distinct(frames.frames)
    if len(distinct) < len(frames.frames):
        console.say(f"{len(distinct)} of {len(frames.frames)} images are distinct: copies count once")
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
