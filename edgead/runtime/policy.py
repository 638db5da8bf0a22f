"""The settings of a stream."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgead.errors import ConfigError
from edgead.runtime.frame_queue import ON_FULL
from edgead.settings import check_batch, check_count

HEALTH = ("live", "all", "off")
UNTRAINED_ASPECT = ("report", "unknown")
_CHOICES = {"on_full": ON_FULL, "health": HEALTH, "untrained_aspect": UNTRAINED_ASPECT}


@dataclass(frozen=True)
class Policy:
    """The settings of a stream.

    Attributes:
        on_full: for a live source with waiting frames, see `edgead.runtime.frame_queue.FrameQueue`; files always wait.
        capacity: frames of one source that may wait.
        max_staleness: maximum age of a picture in milliseconds when its inference begins; an older one is UNKNOWN. If
            None, `edgead.runtime.clock.STALE_AFTER` limits the transport delay of a live picture (network, paused
            process), and its wait for the engine has no limit. Infinity turns both limits off.
        deadline: maximum age of a picture in milliseconds at its decision; a later decision is UNKNOWN.
        batch: maximum frames per call of the engine. The stream never waits to fill a batch.
        silence: seconds without a frame after which a live source is reported as silent; repeated at that interval.
        health: which sources' frames are checked: ``"live"``, ``"all"`` or ``"off"``.
        blurred_below, frozen_after: see `edgead.runtime.health.HealthLimits`.
        keep_warm: idle seconds after which the engine runs on a blank frame to stay warm; 0 for never.
        untrained_aspect: whether frames with an aspect ratio that no training image had, or with less than half of the
            pixels that the network saw of each side, are only reported, once (``"report"``), or also UNKNOWN
            (``"unknown"``).

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
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)}.")
        check_count("capacity", self.capacity)
        check_batch(self.batch)
        for name in ("max_staleness", "deadline", "silence"):
            value = getattr(self, name)
            if (value is not None or name == "silence") and not (_is_number(value) and value > 0):
                raise ConfigError(f"{name} must be positive, not {value}{_kind_of(value)}.")
        for name in ("blurred_below", "frozen_after", "keep_warm"):
            value = getattr(self, name)
            if not (_is_number(value) and 0 <= value < math.inf):
                raise ConfigError(f"{name} must be a number of at least 0, not {value}{_kind_of(value)}.")


def _kind_of(value: object) -> str:
    """Return what is wrong with a value that is not a number of Python, such as one of NumPy or a text."""
    return "" if value is None or _is_number(value) else f" of the type {type(value).__name__}; take float(…)"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
