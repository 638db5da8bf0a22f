"""What happens on the simulated line, from a seed: parts with their truth, and faults."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from pictures import BUNDLES

PARTS_A_LIFE = 5_000
FEWEST_LIVES = 3
OFTEN = {"lost triggers": 0.002, "bounced triggers": 0.005, "lost pictures": 0.002}
"""Share of the parts."""
BOTH = 0.3
"""Share of the lost pictures after which the next trigger is lost too: the picture of that part then comes alone."""
FAULTS_A_LIFE = {"stall": 4, "plc restart": 2, "change": 10}
"""At most."""
SPACED = {"stall": 300, "plc restart": 300, "change": 60}
"""Parts for each of them, at least: a short life has fewer."""


KILLED_BEFORE = 4
"""The kill is ordered with so many parts to come, so that it strikes while parts are announced and decided."""


@dataclass(frozen=True)
class PlannedPart:
    """A part that comes.

    Attributes:
        fails: bit K − 1 is set if bundle K must fail it.
        triggered: the light barrier sees it.
        bounces: its trigger comes twice: ``at once``, or ``late``, after the picture; empty for once.
        pictured: the camera makes its picture.
    """

    fails: int
    triggered: bool
    bounces: str
    pictured: bool


@dataclass(frozen=True)
class Event:
    """Something that happens before a part.

    Attributes:
        kind: ``stall`` of the camera, ``plc restart``, or ``change`` to another product or bundle.
        seconds: how long it lasts.
        loses: a stalled camera loses its pictures; otherwise they come late.
        bundle: number of the one that is changed to.
    """

    kind: str
    seconds: float = 0.0
    loses: bool = False
    bundle: int = 0


@dataclass(frozen=True)
class Life:
    """A line from its start to its end.

    Attributes:
        number: from 0.
        with_products: it changes over between products; otherwise its bundle is replaced (HUP).
        first: number of the bundle that decides first.
        parts: in order.
        events: by the place of the part in `parts` before which they happen.
        killed_after: seconds from part `KILLED_BEFORE` from the end until ``kill -9``; None for a clean end.
        quiet: no faults, one part at a time: latency is measured.
    """

    number: int
    with_products: bool
    first: int
    parts: tuple[PlannedPart, ...]
    events: dict[int, list[Event]] = field(default_factory=dict)
    killed_after: float | None = None
    quiet: bool = False


def plan_lives(parts: int) -> list[tuple[int, int]]:
    """Return the number of each life, and its number of parts. `plan_life` plans one."""
    lives = max(FEWEST_LIVES, -(-parts // PARTS_A_LIFE))
    return [(number, parts // lives + (number < parts % lives)) for number in range(lives)]


def plan_life(seed: int, number: int, parts: int, last: bool) -> Life:
    """Plan a life. The same arguments give the same one."""
    rng = np.random.default_rng((seed, number))
    drawn = {name: rng.random(parts) < share for name, share in OFTEN.items()}
    both = np.flatnonzero(drawn["lost pictures"] & (rng.random(parts) < BOTH)) + 1
    drawn["lost triggers"][both[both < parts]] = True
    fails = np.where(rng.random(parts) < 0.3, rng.integers(1, 1 << BUNDLES, parts), 0)
    late = rng.random(parts) < 0.5
    planned = tuple(
        PlannedPart(
            fails=int(fails[place]),
            triggered=not drawn["lost triggers"][place],
            bounces=("late" if late[place] else "at once") if drawn["bounced triggers"][place] else "",
            pictured=not drawn["lost pictures"][place],
        )
        for place in range(parts)
    )
    events: dict[int, list[Event]] = {}
    for kind, most in FAULTS_A_LIFE.items():
        for place in rng.integers(1, max(parts, 2), min(most, parts // SPACED[kind])):
            events.setdefault(int(place), []).append(_draw_event(kind, rng))
    return Life(
        number=number,
        with_products=number % 2 == 0,
        first=int(rng.integers(1, BUNDLES + 1)),
        parts=planned,
        events=events,
        killed_after=None if last else float(rng.uniform(0, 0.008)),
    )


def plan_quiet(seed: int, parts: int) -> Life:
    """Plan a life without faults."""
    rng = np.random.default_rng(seed)
    planned = tuple(PlannedPart(int(fails), True, "", True) for fails in rng.integers(0, 1 << BUNDLES, parts))
    return Life(-1, True, 1, planned, quiet=True)


def _draw_event(kind: str, rng: np.random.Generator) -> Event:
    if kind == "stall":
        return Event(kind, float(rng.choice([0.02, 0.1, 0.25, 0.5])), bool(rng.random() < 0.3))
    if kind == "plc restart":
        return Event(kind, float(rng.choice([0.02, 0.2, 0.5, 1.5])))
    return Event(kind, bundle=int(rng.integers(1, BUNDLES + 1)))
