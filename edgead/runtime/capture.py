"""The thread of one source: it reads, admits, fits and checks frames, and hands them over to the one that decides."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from edgead.images import Frame
from edgead.runtime.frame_inspector import FrameInspector, Prepared
from edgead.runtime.frame_queue import FrameQueue
from edgead.runtime.freshness import Freshness
from edgead.runtime.handover import Active
from edgead.runtime.health import Health, HealthLimits
from edgead.runtime.ledger import Ledger
from edgead.runtime.saying import SayOnce
from edgead.runtime.sources.source import Captured, Source, check_captured

Admit = Callable[[str, Captured], str]
Choose = Callable[[Captured], FrameInspector | None]


@dataclass
class Deciding:
    """The inspectors of a stream: the one that decides now, and the warm ones that may be chosen for a frame."""

    active: Active
    warm: dict[FrameInspector, Active] = field(default_factory=dict)

    def find(self, chosen: FrameInspector | None) -> Active:
        """Return the chosen one; the active one if none is chosen."""
        return self.warm[chosen] if chosen else self.active


class Buffers:
    """Arrays of fitted frames, to be used again. Appending and taking need no lock."""

    def __init__(self) -> None:
        self._free: deque[Frame] = deque()

    def give(self, buffer: Frame) -> None:
        """Keep an array that is no longer needed."""
        self._free.append(buffer)

    def take(self, shape: tuple[int, int, int]) -> Frame:
        """Return an array, a used one if available."""
        try:
            buffer = self._free.pop()
        except IndexError:
            return np.empty(shape, np.uint8)
        return buffer if buffer.shape == shape else np.empty(shape, np.uint8)


class Numbering:
    """The numbers of a stream's frames: a source name and a number stand for one frame. Thread-safe.

    Results, and the frames of parts, are told apart by them. So a count continues where a source begins again, and
    where two sources give their frames the same name.

    Args:
        say_once: shows a line.
    """

    def __init__(self, say_once: SayOnce) -> None:
        self._say_once, self._lock = say_once, threading.Lock()
        self._next: dict[str, int] = {}
        self._ahead: dict[str, int] = {}  # how far the count is ahead of the source's own

    def number(self, captured: Captured) -> Captured:
        """Return what was captured with its number in the stream."""
        name, own = captured.source_id, captured.frame_id
        if own is None:
            return captured
        with self._lock:
            ahead, following = self._ahead.get(name, 0), self._next.get(name, 0)
            repeats = own + ahead < following
            self._ahead[name] = ahead = following - own if repeats else ahead
            self._next[name] = own + ahead + 1
        if repeats:
            self._say_once(f"{name}: the source repeats frame numbers; the count continues", ("number", name))
        return replace(captured, frame_id=own + ahead) if ahead else captured


@dataclass(frozen=True)
class Shared:
    """What the threads of the sources share with the one that decides; `admit` and `choose` as for `Stream`."""

    deciding: Deciding
    queue: FrameQueue
    ledger: Ledger
    freshness: Freshness
    buffers: Buffers
    admit: Admit | None
    choose: Choose | None
    say_once: SayOnce
    numbering: Numbering


class Capture:
    """Captures the frames of one source in a thread of its own.

    Args:
        number: of the source, in the queue.
        source: the source.
        checked: whether its frames are checked, see `edgead.runtime.health`.
        shared: with the thread that decides.

    Attributes:
        thread: that reads; whoever runs the stream starts it.
        failed: the error that ended the source; empty if none did.
        heard: `time.monotonic` of its last frame; infinity while none is awaited.
    """

    def __init__(self, number: int, source: Source, checked: bool, shared: Shared) -> None:
        self.source, self.failed, self.heard = source, "", math.inf
        self.thread = threading.Thread(target=self._run, name=f"capture-{number}", daemon=True)
        self._number, self._checked, self._shared = number, checked, shared
        self._health: dict[str, Health] = {}  # a replay has the frames of several cameras

    def set_limits(self, limits: HealthLimits) -> None:
        """Check frames by the limits of another bundle from now on."""
        for health in list(self._health.values()):
            health.limits = limits

    def check_again(self, prepared: Prepared) -> None:
        """Check a frame by the limits of the bundle that decides now, if others have let it pass before a swap."""
        active, health = self._shared.deciding.active, self._health.get(prepared.captured.source_id)
        if prepared.inspector or health is None or prepared.limits is None or prepared.limits == active.limits:
            return
        health.limits = active.limits
        # Into a buffer again: a frame of the model's size would be its own fitted one, and be written over later.
        buffer = self._shared.buffers.take(active.inspector.shape)
        again = active.inspector.try_to_prepare(prepared.captured, buffer, health.check_again)
        prepared.fitted, prepared.error, prepared.cause = again.fitted, again.error, again.cause
        prepared.geometry, prepared.limits = again.geometry, active.limits

    def _run(self) -> None:
        """Read the source until it ends."""
        source, queue = self.source, self._shared.queue
        self.heard = time.monotonic()
        lost = ""
        try:
            with source as frames:
                for captured in map(self._shared.numbering.number, map(check_captured, frames)):
                    own = captured.source_id == source.name  # a replay repeats reports and frames of other sources
                    lost = captured.error if own and captured.cause == "lost" else ""
                    if captured.about_source:
                        self._report(captured)
                    elif not self._enter(captured):
                        return
            if lost and not queue.closed:
                self.failed = lost
        except BaseException as error:  # a plug-in source may raise anything; its end must be reported
            reason = str(error) or type(error).__name__
            text = f"the source failed: {reason}"
            if not queue.closed:
                self.failed = reason
            self._report(Captured(None, text, source.name, None, time.monotonic(), cause="lost"))
        finally:
            self.heard = math.inf
            queue.close_source(self._number)

    def _report(self, captured: Captured) -> None:
        self._shared.queue.report(self._number, _without_image(captured, captured.cause, captured.error))

    def _enter(self, captured: Captured) -> bool:
        """Hand a frame over; return whether more are wanted."""
        shared = self._shared
        self.heard = math.inf
        if not shared.queue.enter(self._number, captured):
            return False
        prepared: Prepared | None = _without_image(captured, "failed", "the frame could not be prepared")
        try:
            if captured.image is not None:
                self._health_of(captured.source_id).look(captured.image, captured.t_capture)
            if cause := self._why_not(captured):
                prepared = None
                shared.queue.turn_away(self._number, captured, cause)
            else:
                inspector = shared.choose(captured) if shared.choose else None
                prepared = self._prepare(captured, shared.deciding.find(inspector))
                prepared.inspector = inspector
        except (Exception, SystemExit) as error:  # for instance of `choose`: UNKNOWN, and the source continues
            shared.say_once(
                f"{captured.source_id}: a frame could not be prepared: {type(error).__name__}: {error}",
                ("prepare", type(error)),
            )
        finally:  # every frame that has entered must be counted
            if prepared is not None:
                shared.queue.put(self._number, prepared)
        self.heard = time.monotonic()
        return True

    def _why_not(self, captured: Captured) -> str:
        try:
            return self._shared.admit(self.source.name, captured) if self._shared.admit else ""
        except (Exception, SystemExit) as error:  # the caller's code, and the source must continue
            self._shared.say_once(f"admit raised {type(error).__name__}: {error}", ("admit", type(error)))
            return "refused"

    def _prepare(self, captured: Captured, active: Active) -> Prepared:
        shared = self._shared
        reason = shared.freshness.why_stale(captured, self.source.live)
        if reason:  # not worth fitting: a backlog must be processed quickly
            return _without_image(captured, "stale", reason)
        health = self._health_of(captured.source_id)
        health.limits, health.counts_pixels = active.limits, active.inspector.min_area > 0
        prepared = active.inspector.try_to_prepare(captured, shared.buffers.take(active.inspector.shape), health.check)
        prepared.limits = active.limits
        return prepared

    def _health_of(self, source_id: str) -> Health:
        if source_id not in self._health:
            limits, notice = self._shared.deciding.active.limits, functools.partial(self._notice, source_id)
            self._health[source_id] = Health(limits, notice, self._checked)
        return self._health[source_id]

    def _notice(self, source_id: str, name: str, text: str) -> None:
        """Report something about a source's frames."""
        self._shared.ledger.report(source_id, name)
        self._shared.say_once(f"{source_id}: {text}", (source_id, name))


def _without_image(captured: Captured, cause: str, reason: str) -> Prepared:
    now = time.monotonic()
    return Prepared(captured, None, (0, 0), captured.error or reason, captured.cause or cause, now, now)
