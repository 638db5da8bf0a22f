"""Images that are there several times: with two labels, or so that figures say too much."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from edgead.console import Console
from edgead.datasets.category import Category
from edgead.datasets.copies import Pictures, look_at
from edgead.errors import DataError
from edgead.images import COLOUR, PixelFormat


def refuse_two_labels(paths: Sequence[Path], pictures: Pictures, defective: Collection[int]) -> None:
    """Refuse pictures that are listed as good and as defective: two files, or one that a table lists twice.

    Args:
        paths: of the images, in the order of `pictures`.
        pictures: what they show.
        defective: the numbers of those that are; the others are good.

    Raises:
        DataError: with both files.
    """
    groups = pictures.groups()
    bad = {groups[number]: paths[number] for number in defective}
    for number, path in enumerate(paths):
        if groups[number] in bad and number not in defective:
            raise DataError(
                f"The same picture is labelled good and defective: {path} and {bad[groups[number]]}.\n"
                "Nothing can be right for both. Remove one of them."
            )


def check_labelled(category: Category, console: Console, pixels: PixelFormat = COLOUR) -> int:
    """Warn of labelled images that show what others or training images show, pixel for pixel.

    Args:
        category: with the images.
        console: for the warnings.
        pixels: of the images.

    Returns:
        The number of labelled images that are copies of training images.

    Raises:
        DataError: see `refuse_two_labels`; what was trained on is good.
    """
    kinds = {sample.path: sample.anomalous for sample in category.labelled()}
    labelled, trained = [*kinds], [*category.normals, *category.validation]
    pictures = look_at([*labelled, *trained], pixels, console.track("looking for copies"))
    refuse_two_labels([*labelled, *trained], pictures, {n for n, path in enumerate(labelled) if kinds[path]})
    groups, count, name = pictures.groups(), len(labelled), category.name
    members: dict[int, list[Path]] = {}
    for path, group in zip(labelled, groups):
        members.setdefault(group, []).append(path)
    if repeats := count - len(members):
        first, again, *_ = next(paths for paths in members.values() if len(paths) > 1)
        console.say(
            f"Warning: {repeats} of {count} labelled images of {name} are copies of others, for instance {again} of "
            f"{first.name}. Each counts, so the intervals are too narrow."
        )
    if copies := pictures.copied(count):
        console.say(
            f"Warning: {copies} of {count} labelled images of {name} are copies of training images; "
            "the figures are too optimistic."
        )
    # A defect may be small: on a part that never moves, every defective picture is almost a good one.
    good_ones = [number for number, path in enumerate(labelled) if not kinds[path]]
    if near := {one for one, _ in pictures.near(good_ones, range(count, len(groups)))}:
        console.say(
            f"Warning: {len(near)} of {len(good_ones)} good labelled images of {name} look almost like a training "
            "image. Are they frames of one recording, or photographs of one part?\n"
            "Then the figures are too optimistic. Label parts that were not trained on."
        )
    return copies
