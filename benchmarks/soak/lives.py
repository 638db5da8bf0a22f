"""What happens in a soak test, from a seed: lives of the line, their faults and their ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pictures import BUNDLES

EVERY = 2.5
"""Seconds between two faults, on average. They overlap."""
QUIET_AT_END = 1.0
"""Seconds before the end in which no fault begins."""
LONG = 300.0
"""Seconds of every `LONG_EVERY`-th life: memory and files are judged in it. The others are shorter."""
LONG_EVERY = 4
ENDS = ("kill", "term", "int")

_Draw = Callable[[np.random.Generator], float]


def _between(low: float, high: float) -> _Draw:
    return lambda rng: round(float(rng.uniform(low, high)), 2)


def _one_of(*values: float) -> _Draw:
    return lambda rng: float(rng.choice(values))


def _nothing(rng: np.random.Generator) -> float:
    return 0.0


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        seconds: how long one lasts.
        value: further detail, for instance the number of a bundle.
        weight: how often it comes, compared with the others.
    """

    seconds: _Draw = _nothing
    value: _Draw = _nothing
    weight: float = 1.0


_NUMBER = _one_of(*range(1 << 16))
KINDS = {
    "rtsp disconnects": Kind(_between(0.2, 4.0)),
    "rtsp freezes": Kind(_between(0.5, 8.0)),
    "rtsp changes size": Kind(value=_one_of(0, 1, 2)),
    "video disconnects": Kind(_between(0.2, 3.0)),
    "video is silent": Kind(_between(0.5, 7.0)),
    "video repeats a picture": Kind(_between(1.0, 8.0)),
    "video is corrupt": Kind(_between(0.5, 4.0), _NUMBER),
    "video changes size": Kind(_between(0.5, 4.0)),
    "corrupt images": Kind(_between(0.2, 2.0), _NUMBER),
    "unfinished images": Kind(_between(0.2, 2.0), _NUMBER),
    "folder is away": Kind(_between(0.5, 4.0)),
    "engine raises": Kind(_between(0.05, 1.0)),
    "engine is slow": Kind(_between(0.2, 2.0)),
    "webhook is slow": Kind(_between(0.5, 4.0)),
    "webhook answers late": Kind(_between(5.5, 8.0), weight=0.5),
    "webhook has errors": Kind(_between(0.5, 4.0), _one_of(500, 503, 429, 400, 413)),
    "webhook cuts answers": Kind(_between(0.2, 2.0)),
    "webhook is dead": Kind(_between(0.5, 6.0)),
    "database is locked": Kind(_between(0.2, 12.0)),
    "broker restarts": Kind(_between(0.1, 5.0)),
    "broker freezes": Kind(_between(0.5, 6.0)),
    "plc does not read": Kind(_between(0.5, 4.0)),
    "disk is full": Kind(_between(0.2, 12.0), _between(0, 6000), weight=2.0),
    "clock jumps": Kind(value=_one_of(-400 * 86400.0, -86400.0, -60.0, -1.0, 0.0, 1.0, 60.0, 3600.0, 400 * 86400.0)),
    "hot swap": Kind(value=_one_of(*range(1, BUNDLES + 1)), weight=3.0),
    "swap to a corrupt bundle": Kind(value=_NUMBER, weight=2.0),
    "line is stopped": Kind(_between(0.2, 7.0), weight=0.5),
}
"""All kinds of faults; `World` makes them happen. The end of a life is one more fault."""


@dataclass(frozen=True)
class Event:
    """A fault.

    Attributes:
        at: seconds from when the line is ready.
        kind: of `KINDS`.
        seconds: how long it lasts; 0 if it has no end.
        value: further detail.
    """

    at: float
    kind: str
    seconds: float
    value: float


@dataclass(frozen=True)
class Life:
    """A line from its start to its end.

    Attributes:
        number: from 0.
        seconds: from when it is ready until it is ended.
        first: number of the bundle that decides first.
        events: faults, in order.
        end: ``kill`` (-9), ``term`` or ``int``.
    """

    number: int
    seconds: float
    first: int
    events: tuple[Event, ...]
    end: str


def plan_life(seed: int, number: int, seconds: float = 0.0) -> Life:
    """Plan a life. The same arguments give the same one.

    Args:
        seed, number: of the life.
        seconds: of the life; 0 to draw them.
    """
    rng = np.random.default_rng((seed, number))
    drawn = LONG if number % LONG_EVERY == LONG_EVERY - 1 else float(rng.uniform(15, 60))
    seconds = seconds or round(drawn, 1)
    names, weights = list(KINDS), np.array([kind.weight for kind in KINDS.values()])
    end = ENDS[int(rng.choice(len(ENDS), p=(0.5, 0.4, 0.1)))]
    first, events, at = int(rng.integers(1, BUNDLES + 1)), [], 0.0
    while (at := at + float(rng.exponential(EVERY))) < seconds - QUIET_AT_END:
        name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        events.append(Event(round(at, 3), name, KINDS[name].seconds(rng), KINDS[name].value(rng)))
    return Life(number, seconds, first, tuple(events), end)
