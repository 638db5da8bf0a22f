"""How a stream treats its frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgead.errors import ConfigError
from edgead.runtime.frame_queue import ON_FULL

HEALTH = ("live", "all", "off")
UNTRAINED_ASPECT = ("report", "unknown")
_CHOICES = {"on_full": ON_FULL, "health": HEALTH, "untrained_aspect": UNTRAINED_ASPECT}


@dataclass(frozen=True)
class Policy:
    """How a stream treats its frames.

    Attributes:
        on_full: of a live source, when older frames wait, see `edgead.runtime.frame_queue.FrameQueue`; files always
            wait.
        capacity: frames of one source that may wait.
        max_staleness: milliseconds since a picture was made after which it is not inferred any more, but UNKNOWN. Where
            None, `edgead.runtime.clock.STALE_AFTER` limits what delays a live picture on its way here (network, stopped
            process), and nothing limits its wait for the engine; infinity for no limit at all.
        deadline: milliseconds since a picture was made after which a decision is UNKNOWN.
        batch: most frames in one call of the engine. A batch is never waited for.
        silence: seconds without a frame after which a live source is reported as silent, again and again.
        health: sources whose frames are checked: ``"live"``, ``"all"`` or ``"off"``.
        blurred_below, frozen_after: see `edgead.runtime.health.HealthLimits`.
        keep_warm: seconds without a frame after which the engine is run on a blank one; 0 for never.
        untrained_aspect: frames of an aspect ratio that no training image had are reported once (``"report"``), or
            UNKNOWN too (``"unknown"``).

    Raises:
        ConfigError: a value that makes no sense.
    """

    on_full: str = "drop-oldest"
    capacity: int = 1
    max_staleness: float | None = None
    deadline: float | None = None
    batch: int = 1
    silence: float = 5.0
    health: str = "live"
    blurred_below: float = 0.1
    frozen_after: float = 5.0
    keep_warm: float = 0.0
    untrained_aspect: str = "report"

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is one of {', '.join(allowed)}; not {getattr(self, name)}.")
        for name in ("capacity", "batch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} must be a whole number from 1 on, not {value}.")
        for name in ("max_staleness", "deadline", "silence"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and value > 0):
                raise ConfigError(f"{name} must be positive, not {value}.")
        for name in ("blurred_below", "frozen_after", "keep_warm"):
            value = getattr(self, name)
            if not (_is_number(value) and 0 <= value < math.inf):
                raise ConfigError(f"{name} must be a number from 0 on, not {value}.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
