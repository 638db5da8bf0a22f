"""Drift: frames that passed are compared with the held-out good images of the bundle, window by window.

An alarm is a report about the source, never a verdict. Reasons: docs/adr/0047.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgead.bundle.manifest import Manifest
from edgead.decision import Verdict
from edgead.errors import ConfigError
from edgead.images import Frame
from edgead.line.two_samples import distance, smallest_significant
from edgead.runtime.frame_inspector import FrameInspector
from edgead.runtime.ledger import label
from edgead.runtime.look import look_at
from edgead.runtime.result import Result

MEASURES = ("score", "brightness", "sharpness", "aspect")
MOST_SOURCES = 64
"""Sources that are watched; a recording may have any number of names."""
MOST_OF_A_SOURCE = 64
"""Bundles and thresholds of a source whose windows are kept. The oldest is forgotten where another one comes."""
MOST_FRAMES = 2000
"""Of a window: the limit of a larger one takes seconds to compute."""
Values = NDArray[np.float64]


@dataclass(frozen=True)
class DriftSettings:
    """How drift is watched.

    Attributes:
        window: compared frames of a source that are looked at together; 0 turns it off.
        alarms: false alarms in a million compared frames, at most and on average over bundles.
        every: of a live source and bundle, at most one frame in so many seconds is compared: neighbours show the same.

    Raises:
        ConfigError: a value that makes no sense.
    """

    window: int = 200
    alarms: float = 1.0
    every: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.window <= MOST_FRAMES:
            raise ConfigError(f"--drift-window must be from 0 to {MOST_FRAMES} frames, not {self.window}.")
        if not 0 < self.alarms <= 10_000:
            raise ConfigError(f"--drift-alarms must be above 0 and at most 10000 in a million, not {self.alarms:g}.")
        if not 0 <= self.every < math.inf:
            raise ConfigError(f"--drift-every must be a number of seconds of at least 0, not {self.every:g}.")

    @property
    def alpha(self) -> float:
        """The probability of a false alarm of one measure in one window."""
        return self.alarms * 1e-6 * self.window / len(MEASURES)


class Windows:
    """The frames of one source, in windows, against held-out images.

    The expected number of false alarms is at most the number of windows times that of measures times `alpha`, whatever
    the dependence between windows and measures.

    Args:
        reference: ``[n, 4]``: `MEASURES` of the held-out images that pass.
        window: frames.
        alpha: see `DriftSettings`.

    Attributes:
        active: measure ↦ what is different, of the last window.
        compared: number of windows.
        taken_at: when the last frame was captured, `time.monotonic` seconds.
    """

    def __init__(self, reference: Values, window: int, alpha: float) -> None:
        self.reference = np.sort(reference, axis=0)
        self.limit = smallest_significant(len(reference), window, alpha) if len(reference) else None
        self.active: dict[str, str] = {}
        self.compared, self.taken_at = 0, -math.inf
        self._frames = np.empty((window, len(MEASURES)))
        self._filled = 0

    def add(self, values: tuple[float, ...]) -> list[str]:
        """Take a frame's `MEASURES`; return what is different since this window."""
        self._frames[self._filled] = values
        self._filled += 1
        if self._filled < len(self._frames):
            return []
        self._filled, before = 0, self.active
        self.active, self.compared = self._compare(), self.compared + 1
        return [text for measure, text in self.active.items() if measure not in before]

    def _compare(self) -> dict[str, str]:
        if self.limit is None:
            return {}
        frames = np.sort(self._frames, axis=0)
        found = {}
        for number, measure in enumerate(MEASURES):
            held_out, seen = self.reference[:, number], frames[:, number]
            apart = distance(held_out, seen)
            if apart >= self.limit:
                found[measure] = self._describe(measure, float(np.median(seen)), float(np.median(held_out)), apart)
        return found

    def _describe(self, measure: str, now: float, then: float, apart: int) -> str:
        word = "spread" if now == then else "lower" if now < then else "higher"
        pairs = len(self.reference) * len(self._frames)
        limit = (self.limit or 0) / pairs
        return (
            f"{measure} is {word}: median {now:.4g} of {len(self._frames)} passed frames, {then:.4g} of "
            f"{len(self.reference)} held-out images (distance {apart / pairs:.2f}, limit {limit:.2f})"
        )


class Drift:
    """Watches a run, see `edgead.runtime.watch.Watch`. A bundle without a record of its held-out images is not watched.

    Args:
        settings: see there.
        say: shows a line to the user.
    """

    def __init__(self, settings: DriftSettings, say: Callable[[str], None] = lambda text: None) -> None:
        self.settings, self._say = settings, say
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str, float], Windows | None] = {}
        self._current: dict[str, Windows] = {}
        self._told: set[str] = set()

    def see(self, inspector: FrameInspector, result: Result, fitted: Frame, live: bool) -> str:
        if not self.settings.window or result.verdict is not Verdict.PASS or result.score > result.threshold:
            return ""
        windows = self._windows_of(inspector.bundle.manifest, result, live)
        if windows is None or (live and result.t_capture - windows.taken_at < self.settings.every):
            return ""
        windows.taken_at = result.t_capture
        new = windows.add((result.score, *look_at(fitted, result.frame_size)))
        return f"passed frames look different: {'; '.join(new)}" if new else ""

    def alarms(self) -> dict[str, list[str]]:
        with self._lock:
            current = dict(self._current)
        return {source: list(windows.active.values()) for source, windows in current.items() if windows.active}

    def to_prometheus(self) -> str:
        with self._lock:
            current = dict(self._current)
        lines = [
            "# HELP edgead_drift_alarm Passed frames differ from held-out images.",
            "# TYPE edgead_drift_alarm gauge",
        ]
        for source, windows in current.items():
            active = windows.active
            lines += [
                f"edgead_drift_alarm{{{label('source', source)},{label('measure', measure)}}} {int(measure in active)}"
                for measure in MEASURES
            ]
        lines += ["# HELP edgead_drift_windows_total Windows compared.", "# TYPE edgead_drift_windows_total counter"]
        lines += [
            f"edgead_drift_windows_total{{{label('source', source)}}} {windows.compared}"
            for source, windows in current.items()
        ]
        return "\n".join(lines) + "\n"

    def _windows_of(self, manifest: Manifest, result: Result, live: bool) -> Windows | None:
        """Return the windows of a source with the bundle and the threshold that decide now; None for none, or not yet.

        Their limit takes up to some tenths of a second: for a live source another thread computes it.
        """
        key = result.source_id, manifest.digest, result.threshold
        if key not in self._windows and not self._has_room_for(result.source_id):
            self._tell(f"Drift is watched for at most {MOST_SOURCES} sources; the others are not watched.")
        elif key not in self._windows:
            self._windows[key] = None
            if live:
                threading.Thread(target=self._open, args=(key, manifest), name="drift", daemon=True).start()
            else:
                self._open(key, manifest)
        windows = self._windows.get(key)
        if windows is not self._current.get(result.source_id):
            with self._lock:
                self._current.pop(result.source_id, None)
                if windows is not None:
                    self._current[result.source_id] = windows
        return windows

    def _has_room_for(self, source: str) -> bool:
        """Forget the oldest windows of a source with too many; return whether it may be watched."""
        own = [key for key in list(self._windows) if key[0] == source]
        for old in own[: max(0, len(own) - MOST_OF_A_SOURCE + 1)]:
            del self._windows[old]
        return bool(own) or len({key[0] for key in list(self._windows)}) < MOST_SOURCES

    def _open(self, key: tuple[str, str, float], manifest: Manifest) -> None:
        record = manifest.held_out
        if record is None:
            self._tell(
                f"{manifest.name}: drift is not watched, because the bundle has no record of its held-out images. "
                "Export it again, or import it with --threshold-data."
            )
            return
        rows = np.column_stack([manifest.threshold.scores, record.brightness, record.sharpness, record.aspects])
        # Given a threshold that is one of these scores, those below it are a sample of what passes; it itself is not.
        rows = rows[rows[:, 0] < key[2]]
        windows = Windows(rows, self.settings.window, self.settings.alpha)
        if windows.limit is None:
            self._tell(
                f"{manifest.name}: drift is not watched, because only {len(rows)} held-out images are below the "
                f"threshold, too few for --drift-alarms {self.settings.alarms:g}. "
                "Allow more false alarms, or hold out more images."
            )
            return
        self._windows[key] = windows

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._say(text)
