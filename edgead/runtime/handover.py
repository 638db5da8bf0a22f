"""Hands a stream over from one inspector to another, between two frames."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgead.bundle.manifest import Manifest
from edgead.images import Frame
from edgead.runtime.frame_inspector import FrameInspector
from edgead.runtime.health import HealthLimits, limits_from
from edgead.runtime.policy import Policy


@dataclass(frozen=True)
class Active:
    """The inspector that decides in a stream, and what the stream derives from it.

    Attributes:
        inspector: the inspector.
        limits: of a healthy frame.
        batch: ``[N, h, w, C] uint8``, scratch space for a batch.
    """

    inspector: FrameInspector
    limits: HealthLimits
    batch: Frame


def activate(inspector: FrameInspector, policy: Policy) -> Active:
    """Prepare everything that a stream needs for an inspector, so that the exchange itself cannot fail."""
    bundle = inspector.bundle
    trained = trained_limits(bundle.manifest)
    limits = dataclasses.replace(
        limits_from(bundle.golden().frames, policy.blurred_below, policy.frozen_after),
        aspects=trained.aspects,
        least=trained.least,
        refuse_untrained=policy.untrained_aspect == "unknown",
    )
    held_out = bundle.manifest.held_out
    if bundle.manifest.geometry.count > 1 and held_out:  # the golden frames are single tiles
        limits = dataclasses.replace(limits, sharpness=min(held_out.sharpness), dark=held_out.dark)
    return Active(inspector, limits, np.empty((policy.batch, *inspector.shape), np.uint8))


def trained_limits(manifest: Manifest) -> HealthLimits:
    """Return what frames have to be like the training images in: aspect ratio and size."""
    return HealthLimits(aspects=manifest.aspects, least=_least_size(manifest))


def _least_size(manifest: Manifest) -> tuple[float, float] | None:
    """Return half of what the network saw of the smallest training image: its own pixels, or those of the canvas."""
    if manifest.images is None:
        return None
    (height, _), (width, _), (most_high, most_wide) = (
        manifest.images.heights,
        manifest.images.widths,
        manifest.region_size,
    )
    return min(height, most_high) / 2, min(width, most_wide) / 2


class Requests:
    """Actions between two frames. Any thread and any signal handler may add one.

    Args:
        say: shows a line if an action fails.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._actions: deque[Callable[[], object]] = deque()
        self._closed = threading.Event()

    def add(self, action: Callable[[], object]) -> bool:
        """Add an action; return False if it is too late. A deque needs no lock, which a signal handler could not take.

        Nothing is inferred any more after `close`, so that an action that met it may run in this thread.
        """
        if self._closed.is_set():
            return False
        self._actions.append(action)
        if self._closed.is_set():
            self.run()
        return True

    def close(self) -> None:
        """Run what waits, and take nothing more: the stream has ended."""
        self._closed.set()
        self.run()

    def run(self) -> None:
        """Run the waiting actions in order, in the thread that infers. Errors are shown, not raised."""
        while True:
            try:
                action = self._actions.popleft()
            except IndexError:
                return
            try:
                action()
            except Exception as error:  # an action is the caller's code and must not end the stream
                self._say(f"An action between two frames failed; the stream continues: {error}")
