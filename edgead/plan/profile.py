"""A profile: how long bundles take on one machine. `edgead plan` stores it, and plans from it on another machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from edgead import schema
from edgead.errors import DataError
from edgead.machine import Machine
from edgead.schema import SchemaError, Within

FORMAT = 1
Milliseconds = Annotated[float, Within(0, 1e9)]


@dataclass(frozen=True)
class Times:
    """Measured times of single frames, milliseconds.

    Attributes:
        fit: to resize and check a frame, in the thread of its source.
        hand_over: from there to the start of its inference, while the engine was idle.
        undisturbed: inference and verdict, while no frame was fitted.
        disturbed: the same, while a frame was fitted.
    """

    fit: tuple[Milliseconds, ...]
    hand_over: tuple[Milliseconds, ...]
    undisturbed: tuple[Milliseconds, ...]
    disturbed: tuple[Milliseconds, ...]


@dataclass(frozen=True)
class Candidate:
    """A bundle on an engine.

    Attributes:
        bundle, precision: name and precision of the bundle.
        engine: name of the engine.
        start_seconds: time to open it, including the check of its reference outputs.
        memory_mib: MiB by which the process grew.
        times: of single frames.
    """

    bundle: str
    precision: str
    engine: str
    start_seconds: float
    memory_mib: float
    times: Times

    @property
    def title(self) -> str:
        """Bundle and engine."""
        return f"{self.bundle} on {self.engine}"


@dataclass(frozen=True)
class Profile:
    """Times of one or more candidates on one machine.

    Attributes:
        format: version of the file.
        created: ISO 8601, UTC.
        machine, versions: what it was measured on.
        frame_size: (height, width) of the frames, pixels.
        streams: sources that ran at once for the disturbed times.
        candidates: one for each bundle and engine.
    """

    format: Annotated[int, Within(FORMAT, FORMAT)]
    created: str
    machine: Machine
    versions: dict[str, str]
    frame_size: tuple[int, int]
    streams: int
    candidates: tuple[Candidate, ...]


def read_profile(path: Path) -> Profile:
    """Read what `edgead plan --save-profile` wrote.

    Raises:
        DataError: no such file, or not a profile.
    """
    try:
        found = schema.read(Profile, schema.load_json(path))
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
    except SchemaError as error:
        raise DataError(f"{path} is not a profile of edgead plan --save-profile: {error}.") from error
    for each in found.candidates:
        if not (each.times.fit and each.times.hand_over and each.times.undisturbed and each.times.disturbed):
            raise DataError(f"{path} is not a profile of edgead plan --save-profile: {each.title} has no times.")
    return found
