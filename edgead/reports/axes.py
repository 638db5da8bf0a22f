"""Axes of a figure: values become pixels, and get ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MARGIN = 0.06
"""Free share of an axis at each end."""
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
LETTER = 10.0
"""Width of a letter of a tick's text where it is largest, on a phone, pixels of the figure."""
WHOLE_STEPS = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        label: what it shows, with the unit.
        low, high: values at its ends, both above 0 if `log`.
        start, end: pixels of its ends.
        log: equal ratios are equally long.
        most: about how many ticks fit.
        whole: ticks are whole numbers, for counts.
    """

    label: str
    low: float
    high: float
    start: float
    end: float
    log: bool = False
    most: int = 6
    whole: bool = False

    def place(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high, value = (map(math.log, (self.low, self.high, value))) if self.log else (self.low, self.high, value)
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Pixels and texts of the ticks."""
        if self.log:
            values = _log_ticks(self.low, self.high, self.most)
        else:
            values = _ticks(self.low, self.high, self.most, self.whole)
        texts = _texts(values)
        room = max(1, int(abs(self.end - self.start) / (LETTER * max(map(len, texts), default=1))))
        every = 1 if self.start > self.end else math.ceil(len(values) / room)  # texts stand below each other, or beside
        return [(self.place(value), text) for value, text in zip(values[::every], texts[::every])]


def fit_axis(
    label: str,
    values: Iterable[float],
    start: float,
    end: float,
    *,
    log: bool = False,
    most: int = 6,
    low: float | None = None,
    high: float | None = None,
    whole: bool = False,
) -> Axis:
    """Return an axis that holds all finite values (with `log`, all above 0), with a margin.

    Args:
        label: what it shows.
        values: to hold.
        start, end: pixels of its ends.
        log, most, whole: see `Axis`.
        low, high: fixed ends.
    """
    found = [value for value in values if math.isfinite(value) and (value > 0 or not log)] or [1.0]
    least, largest = min(found), max(found)
    if log:
        room = max(MARGIN * math.log(largest / least), 0.15)
        return Axis(label, low or least / math.exp(room), high or largest * math.exp(room), start, end, True, most)
    room = MARGIN * (largest - least) or 0.05 * abs(largest) or 1.0
    return Axis(
        label,
        least - room if low is None else low,
        largest + room if high is None else high,
        start,
        end,
        False,
        most,
        whole,
    )


def _texts(values: list[float]) -> list[str]:
    """Return the values with as many digits as tell them apart, six or more."""
    texts = [""] * len(values)
    for digits in range(6, 18):
        texts = [f"{value:,.{digits}g}" if abs(value) < 1e6 else f"{value:.{digits}g}" for value in values]
        if len(set(texts)) == len(texts):
            break
    return texts


def _ticks(low: float, high: float, most: int, whole: bool = False) -> list[float]:
    rough = max((high - low) / most, 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(rough))
    steps = WHOLE_STEPS if whole else STEPS
    step = next(step * power for step in steps if step * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [float(f"{number * step:.15g}") for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    """Powers of ten, with 2 and 5 between them (or all digits) where there is room."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for digits in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1,)):
        found = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if len(found) <= most + 2:
            break
    thinned = found[:: math.ceil(len(found) / (most + 2))] if found else []
    return thinned or _ticks(low, high, most)
