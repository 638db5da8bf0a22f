"""Chooses the picture that frames are aligned to, and tries it on good pictures before anything is trained."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from edgead.console import Console
from edgead.errors import ConfigError, DataError, MisplacedError
from edgead.geometry import AUTO, Geometry, GeometryRequest
from edgead.geometry.alignment import find_pose, reference_of
from edgead.geometry.pose import Alignment
from edgead.images import Frame, PixelFormat, fit_frame, read_frame

T = TypeVar("T")
CHECKED = 60
"""Good pictures, evenly drawn, on which the part is looked for before the training."""
TRIED, TRIED_ON = 5, 12
"""Pictures that are tried as reference, and those that they are tried on."""
LEAST_FOUND = 0.9
"""Share of the good pictures on which the part must be found."""
FLOOR, CEILING = 0.5, 0.8
"""Of the least correlation, whatever the good pictures have: other objects reach the lower one by chance, and a part
with a defect must reach the upper one, so that it is FAIL."""
LESS_ALIKE = 1.5
"""A frame may fall short of a full correlation by so many times as much as the least alike 5 % of the good pictures."""
LARGEST = 2048
"""Longest side of pictures that wait in memory, in pixels."""


def fix_alignment(
    requested: GeometryRequest, geometry: Geometry, paths: Sequence[Path], pixels: PixelFormat, console: Console
) -> Geometry:
    """Return a geometry with the alignment that a user asks for; itself if none is.

    Args:
        requested: what the user asks for.
        geometry: with crop, fit and tiles.
        paths: of the good pictures.
        pixels: how pictures are read.
        console: shows progress, and on how many pictures the part is found.

    Raises:
        ConfigError: the reference picture shows too little, or the part is found on too few of the good pictures.
        DataError: the reference picture cannot be read.
    """
    if requested.align is None:
        return geometry
    drawn = _spread(paths, CHECKED)
    if requested.align == AUTO:
        name, frame = _choose(requested, geometry, drawn, pixels, console)
    else:
        name, frame = Path(requested.align).name, read_frame(requested.align, pixels)
    try:
        trial = _with_reference(requested, geometry, name, frame)
    except MisplacedError as error:
        raise ConfigError(f"{requested.align} cannot be a reference picture: {error}.") from None
    others = [path for path in drawn if path.name != name]
    correlations, reasons = _try(trial, others, pixels, console)
    checked, found = len(correlations) + sum(reasons.values()), len(correlations)
    if found < LEAST_FOUND * checked or not found:
        raise ConfigError(_too_few(name, found, checked, reasons))
    assert trial.align is not None
    least = float(np.clip(1 - LESS_ALIKE * (1 - np.quantile(correlations, 0.05)), FLOOR, CEILING))
    align = dataclasses.replace(trial.align, least=round(least, 4), found=found, checked=checked)
    console.say(f"Aligned to {name}: the part is found on {found} of {checked} good images{_words(reasons)}")
    return dataclasses.replace(geometry, align=align)


def _with_reference(requested: GeometryRequest, geometry: Geometry, name: str, frame: Frame) -> Geometry:
    shape, stored = reference_of(frame, geometry)
    align = Alignment(
        picture=name,
        frame=(frame.shape[0], frame.shape[1]),
        shape=shape,
        pixels=stored,
        max_shift=requested.max_shift,
        max_rotation=requested.max_rotation,
        least=FLOOR,
        found=0,
        checked=0,
    )
    return dataclasses.replace(geometry, align=align)


def _choose(
    requested: GeometryRequest, geometry: Geometry, paths: Sequence[Path], pixels: PixelFormat, console: Console
) -> tuple[str, Frame]:
    """Return the picture, of a few, that is found best on others: one that lies in the middle and is typical."""
    read: list[tuple[str, Frame]] = []
    for path in console.track("choosing a reference picture")(_spread(paths, TRIED_ON)):
        try:
            read.append((path.name, _reduce(read_frame(path, pixels))))
        except DataError:  # the training reports it
            continue
    best: tuple[int, float, str, Frame] | None = None
    for name, frame in _spread(read, TRIED):
        try:
            trial = _with_reference(requested, geometry, name, frame)
        except MisplacedError:
            continue
        found = [_correlation(other, trial) for _, other in read if other is not frame]
        alike = [each for each in found if not math.isnan(each)]
        rank = (len(alike), float(np.mean(alike)) if alike else 0.0)
        if best is None or rank > best[:2]:
            best = (*rank, name, frame)
    if best is None:
        raise ConfigError(
            "--align: no good image has enough structure to be a reference picture.\n"
            "Inside the crop, each has only one brightness. Leave out --align, or change --crop."
        )
    return best[2], best[3]


def _correlation(frame: Frame, geometry: Geometry) -> float:
    """Return the correlation of a part that is found within the limits; NaN for another one."""
    try:
        return find_pose(frame, geometry)[1]
    except MisplacedError:
        return math.nan


def _try(
    geometry: Geometry, paths: Sequence[Path], pixels: PixelFormat, console: Console
) -> tuple[list[float], Counter[str]]:
    """Return the correlations of the parts that are found, and why the others are not."""
    found: list[float] = []
    reasons: Counter[str] = Counter()
    for path in console.track("looking for the part")(paths):
        try:
            frame = read_frame(path, pixels)
        except DataError:  # the training reports it
            continue
        try:
            found.append(find_pose(frame, geometry)[1])
        except MisplacedError as error:
            reasons[error.why] += 1
    return found, reasons


def _too_few(name: str, found: int, checked: int, reasons: Counter[str]) -> str:
    return (
        f"--align: compared with {name}, the part is found on {found} of {checked} good images only"
        f"{_words(reasons)}; at least {LEAST_FOUND:.0%} are needed.\n"
        "Parts at any angle need --max-rotation 180, round ones --max-rotation 0, far ones a larger --max-shift. "
        "--crop the reference picture to the part if the background has a pattern.\n"
        "Parts without a shape or print of their own cannot be aligned: leave out --align."
    )


def _words(reasons: Counter[str]) -> str:
    named = ", ".join(f"{count} {why}" for why, count in reasons.most_common())
    return f" ({named})" if named else ""


def _reduce(frame: Frame) -> Frame:
    scale = LARGEST / max(frame.shape[:2])
    if scale >= 1:
        return frame
    height, width = (max(1, round(side * scale)) for side in frame.shape[:2])
    return fit_frame(frame, (height, width))


def _spread(items: Sequence[T], count: int) -> list[T]:
    """Return at most so many of the items, evenly drawn."""
    chosen = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[index] for index in chosen]
