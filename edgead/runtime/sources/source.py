"""The interface of sources, and their base class."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

REPORTS = frozenset({"lost", "silent", "drift"})
"""Causes of reports about a source. They are counted apart from frames and displace none."""


@dataclass(frozen=True, slots=True)
class Captured:
    """One frame as delivered by its source, or the reason why there is none.

    Attributes:
        image: ``(H, W, 3) uint8 BGR`` or what `edgead.images.to_frame` takes, owned by the receiver; or None.
        error: why there is no image, or why the image must not be judged; empty if there is no error.
        source_id: name of the source, without credentials.
        frame_id: number of the frame at its source, from 0; None for a report about the source (`about_source`).
        t_capture: when it arrived, `time.monotonic` seconds.
        path: of the image file, if it comes from one.
        cause: the error as a word of `edgead.runtime.result.CAUSES`; empty if there is no error.
        t_made: estimated time at which the picture was made, `time.monotonic` seconds; None if only `t_capture` is
            known. Age, staleness and deadline count from it.
    """

    image: NDArray[Any] | None
    error: str
    source_id: str
    frame_id: int | None
    t_capture: float
    path: str = ""
    cause: str = ""
    t_made: float | None = None

    @property
    def made(self) -> float:
        """Estimated time at which the picture was made."""
        return self.t_capture if self.t_made is None else self.t_made

    @property
    def about_source(self) -> bool:
        """Whether this is a report about the source, not a frame or an error in place of one."""
        return self.cause in REPORTS


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
    """

    live = colour_only = False
    remark = ""

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
