"""What every source gives, and what every source is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

REPORTS = frozenset({"lost", "silent"})
"""Causes that say something about a source. They are counted apart from frames and push none out."""


@dataclass(frozen=True, slots=True)
class Captured:
    """One frame as it came from its source, or the reason why there is none.

    Attributes:
        image: ``(H, W, 3) uint8 BGR`` or what `edgead.images.to_frame` takes, owned by the receiver; or None.
        error: why there is no image, or why the image must not be decided on; empty where all is well.
        source_id: the source as it was named, without credentials.
        frame_id: number of the frame at its source, from 0; None where this is not about a frame (`about_source`).
        t_capture: when it arrived, `time.monotonic` seconds.
        path: of the image file, where it comes from one.
        cause: the error in one word of `edgead.runtime.result.CAUSES`; empty where there is no error.
        t_made: when the picture was made, as well as is known, `time.monotonic` seconds; None where nothing better than
            `t_capture` is known. Age, staleness and deadline count from it.
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
        """When the picture was made, as well as is known."""
        return self.t_capture if self.t_made is None else self.t_made

    @property
    def about_source(self) -> bool:
        """Whether this is a report about the source, and not a frame or an error in place of one."""
        return self.cause in REPORTS


class Source(Protocol):
    """Gives frames.

    Attributes:
        name: what results call it, without credentials.
        live: frames come whether or not someone takes them, so that the newest may have to overtake older ones.
    """

    name: str
    live: bool

    def __enter__(self) -> Iterator[Captured]: ...

    def __exit__(self, *exception: object) -> None: ...

    def stop(self) -> None:
        """End the iteration soon. May be called by any thread, at any time, more than once."""


class FrameSource:
    """A `Source` whose subclass has only `read` to write. `read` must look at `stopped` where it waits.

    Attributes:
        colour_only: it never gives depth, so that a model with depth refuses it at once.
        remark: one line for a person, for instance what is left out; empty where there is nothing to say.
    """

    live = colour_only = False
    remark = ""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopped = threading.Event()

    def read(self) -> Iterator[Captured]:
        """Give frames until there are no more, or until `stopped` is set."""
        raise NotImplementedError

    def stop(self) -> None:
        self.stopped.set()

    def close(self) -> None:
        """Release what is held. Called by the thread that read."""

    def __enter__(self) -> Iterator[Captured]:
        return self.read()

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self.close()
