"""Which good images are trained on, and which set the threshold: never the same picture on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgead.console import Console
from edgead.datasets import Category
from edgead.datasets.copies import look_at
from edgead.datasets.repeats import refuse_two_labels
from edgead.errors import DataError
from edgead.images import PixelFormat

MOST_HELD_OUT = 200
"""More held-out normals than this sharpen the threshold little and cost training images."""
FEW_IMAGES = 20


@dataclass(frozen=True)
class Split:
    """The good images of a run.

    Attributes:
        normals: to train on.
        held_out: for the threshold, with all their copies.
        copies: images that show, pixel for pixel, what an earlier one shows.
        near: held-out images that look almost like one that is trained on.
    """

    normals: list[Path]
    held_out: list[Path]
    copies: int = 0
    near: int = 0


def split(category: Category, holdout: float, seed: int, pixels: PixelFormat, console: Console) -> Split:
    """Look at all good images, split them, and say what is there twice.

    Raises:
        DataError: fewer than two different good images, or one that is also labelled as defective.
    """
    paths = [*category.normals, *category.validation]
    # With depth, good and defective parts may have the same colours.
    defective = [sample.path for sample in category.test if sample.anomalous and category.layout != "mvtec3d"]
    every = [*paths, *defective]
    pictures = look_at(every, pixels, console.track("looking for copies"))
    refuse_two_labels(every, pictures, range(len(paths), len(every)))
    groups = dict(zip(paths, pictures.groups()))
    normals, held_out = split_normals(category, holdout, seed, groups)
    copies = len(groups) - len(set(groups.values()))
    numbers = {path: number for number, path in enumerate(paths)}
    pairs = pictures.near([numbers[path] for path in held_out], [numbers[path] for path in normals])
    made = Split(normals, held_out, copies, len({one for one, _ in pairs}))
    _report(made, len(paths) - len(normals) - len(held_out), len(pairs), console)
    return made


def _report(made: Split, left_out: int, pairs: int, console: Console) -> None:
    if made.copies:
        rest = f"; {left_out} of the images to train on are left out" if left_out else ""
        console.say(
            f"{made.copies} good images have the same pixels as others: copies stay on one side of the split{rest}"
        )
    if made.near:
        console.say(
            f"Warning: {made.near} of {len(made.held_out)} held-out images look almost like a training image "
            f"({pairs} pairs). Are they frames of one recording, or photographs of one part?\n"
            "Then the false-reject bound is too optimistic. Hold out whole recordings (validation/good), or remove "
            "such images."
        )


def split_normals(
    category: Category, holdout: float, seed: int, groups: dict[Path, int] | None = None
) -> tuple[list[Path], list[Path]]:
    """Split good images into those to train on and those for the threshold, which training never sees.

    A data set's own validation images are taken where it has them; copies of them are not trained on.

    Args:
        category: with the images.
        holdout: share of the pictures that is held out.
        seed: of the choice.
        groups: image ↦ number of its group; those of one group show the same and stay together. None: all differ.

    Raises:
        DataError: fewer than two different good images.
    """
    groups = groups or {path: number for number, path in enumerate((*category.normals, *category.validation))}
    if category.validation and category.normals:
        kept_apart = {groups[path] for path in category.validation}
        normals = [path for path in category.normals if groups[path] not in kept_apart]
        if not normals:
            raise DataError(f"All images in {category.root}/train are copies of those in validation.")
        return normals, list(category.validation)
    members = _members(category.normals, groups)
    total = len(members)
    if not category.normals:
        nothing = f"{category.root} holds no images of good parts (train/good); there is nothing to train on."
        raise DataError("\n".join([nothing, *category.notes[:2]]))
    if total < 2:
        copies = f", {len(category.normals)} times" if len(category.normals) > 1 else ""
        raise DataError(
            f"{category.root} has one good image{copies}. At least two are needed: one to train on, one for the "
            f"threshold ({FEW_IMAGES} or more are advisable)."
        )
    count = min(max(1, round(holdout * total)), MOST_HELD_OUT, total - 1)
    order = np.random.default_rng((seed, 0xED6EAD)).permutation(total)
    held_out = {path for index in order[:count] for path in members[index]}
    return [path for path in category.normals if path not in held_out], [
        path for path in category.normals if path in held_out
    ]


def _members(images: Sequence[Path], groups: dict[Path, int]) -> list[list[Path]]:
    """Return the images of each group, in the order of their first ones."""
    found: dict[int, list[Path]] = {}
    for path in images:
        found.setdefault(groups[path], []).append(path)
    return list(found.values())
