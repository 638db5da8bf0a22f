"""The interface of sources, and their base class."""

from __future__ import annotations

import operator
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

AHEAD = 1.0
"""Seconds by which a frame's time may lie in the future: clocks of cameras differ a little."""
LONG_AGO = 1e9
"""Seconds before now that are no time of a frame: 30 years."""
LAST_NUMBER = (1 << 62) - 1
"""Of a frame: what a database and most programs can hold."""
REPORTS = frozenset({"lost", "silent", "drift"})
"""Causes of reports about a source. They are counted apart from frames and displace none."""


@dataclass(frozen=True, slots=True)
class Captured:
    """One frame as delivered by its source, or the reason why there is none.

    Attributes:
        image: ``(H, W, 3) uint8 BGR`` or what `edgead.images.to_frame` takes, owned by the receiver; or None.
        error: why there is no image, or why the image must not be judged; empty if there is no error.
        source_id: name of the source, without credentials.
        frame_id: number of the frame at its source, from 0; None for a report about the source (`about_source`), from
            which a stream removes it. A stream continues its own count where a source repeats numbers.
        t_capture: when it arrived, `time.monotonic` seconds.
        path: of the image file, if it comes from one.
        cause: the error as a word of `edgead.runtime.result.CAUSES`; empty if there is no error.
        t_made: estimated time at which the picture was made, `time.monotonic` seconds; None if only `t_capture` is
            known. Age, staleness and deadline count from it.
        unsure: it may also have been made later, up to `t_capture`: the picture may have waited, or not.
    """

    image: NDArray[Any] | None
    error: str
    source_id: str
    frame_id: int | None
    t_capture: float
    path: str = ""
    cause: str = ""
    t_made: float | None = None
    unsure: bool = False

    @property
    def made(self) -> float:
        """Estimated time at which the picture was made; the earliest one, if that is `unsure`."""
        return self.t_capture if self.t_made is None else self.t_made

    @property
    def made_at_latest(self) -> float:
        """Latest time at which the picture may have been made."""
        return max(self.made, self.t_capture) if self.unsure else self.made

    @property
    def about_source(self) -> bool:
        """Whether this is a report about the source, not a frame or an error in place of one."""
        return self.cause in REPORTS


def check_captured(captured: object) -> Captured:
    """Return what a source delivered, if a stream can use it: sources may be anybody's.

    A frame whose time cannot be is an error, cause ``stale``: nobody knows how old it is. One with a cause and without
    an error must not be judged either. A report about the source loses its number.

    Raises:
        TypeError: it is no `Captured`, or its name, number, error or cause is of another type.
        ValueError: a number that has more than 62 bits.
    """
    if not isinstance(captured, Captured):
        raise TypeError(f"a source must deliver Captured, not {type(captured).__name__}")
    for name in ("source_id", "error", "cause"):
        if not isinstance(getattr(captured, name), str):
            raise TypeError(f"{name} must be text, not {getattr(captured, name)!r}")
    # A report with a number would be counted as a frame that never came.
    own = None if captured.about_source else captured.frame_id
    number = None if own is None else operator.index(own)  # also of NumPy
    if number is None and not captured.about_source:
        raise TypeError("only a report about a source has no frame_id")
    if number is not None and number > LAST_NUMBER:
        raise ValueError(f"frame_id may have 62 bits, not {number.bit_length()}")
    path, error = os.fspath(captured.path), captured.error or captured.cause
    if (type(captured.frame_id), captured.path, captured.error) != (type(number), path, error):
        captured = replace(captured, frame_id=number, path=os.fsdecode(path), error=error)
    now = time.monotonic()
    for name, moment in (("t_capture", captured.t_capture), ("t_made", captured.made)):
        if why := why_no_moment(name, moment, now):
            cause = captured.cause or "stale"
            return replace(captured, image=None, error=captured.error or why, t_capture=now, t_made=now, cause=cause)
    return captured


def why_no_moment(name: str, moment: object, now: float) -> str:
    """Return why a value is no moment that is over, as `time.monotonic` gives it; empty if it is one.

    Args:
        name: of the value.
        moment: the value.
        now: the present moment.
    """
    if isinstance(moment, int | float | np.floating) and now - LONG_AGO < moment <= now + AHEAD:
        return ""
    return f"{name} is {moment!r}, and must be seconds of time.monotonic (now {now:.1f}) that are over"


class Source(Protocol):
    """Delivers frames.

    Attributes:
        name: its name in results, without credentials.
        live: it delivers frames without waiting for the reader, so that older frames may have to be dropped.
    """

    name: str
    live: bool

    def __enter__(self) -> Iterator[Captured]: ...

    def __exit__(self, *exception: object) -> None: ...

    def stop(self) -> None:
        """End the iteration soon. May be called by any thread, at any time, more than once."""


class FrameSource:
    """Base class of sources: a subclass needs only `read`, which must check `stopped` wherever it waits.

    Attributes:
        colour_only: it never delivers depth, so a model with depth refuses it at once.
        remark: one line for the user, for instance about skipped files; empty for none.
        paths: the files that it reads; none for a camera.
    """

    live = colour_only = False
    remark = ""
    paths: Sequence[Path] = ()

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopped = threading.Event()

    def read(self) -> Iterator[Captured]:
        """Yield frames until there are no more, or until `stopped` is set."""
        raise NotImplementedError

    def stop(self) -> None:
        self.stopped.set()

    def close(self) -> None:
        """Release resources. Called by the thread that read."""

    def __enter__(self) -> Iterator[Captured]:
        return self.read()

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self.close()
