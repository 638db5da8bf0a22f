"""Estimates the age of a camera's picture when it is read, from its time stamp or from the pace of the pictures.

Both use the clock `edgead.runtime.clock.elapsed`.
"""

from __future__ import annotations

import math

from edgead.runtime.clock import STALE_AFTER

DRIFT = 1e-3
"""Seconds per second by which a camera's clock may deviate from this machine's."""
RESYNCHRONISE_AFTER = 30.0
"""Seconds after which stamps count as wrong if they say that pictures at the camera's normal pace are old."""
GAP, USUAL_GAPS = 1.0, 5.0
"""A backlog may form in a gap that is longer than this many seconds and this many usual periods."""
PACE = 0.7
"""A picture that arrives within less than this share of the usual period was already buffered."""
CALM, CALM_PACE = 1.0, 0.95
"""A backlog has ended if the mean period over this many seconds is at least this share of the usual one."""
WAITED = 0.3
"""A read waited if it took this share of the usual period or, if that is unknown, of the reader's absence."""
LEARNING, SINGLES = 0.02, 0.3
"""Minimum weight of the last picture in the usual period; and that of a single picture after a gap."""


class Pace:
    """The age of pictures without time stamps: pictures faster than real time after a gap are old.

    A read that waits proves that no picture was buffered. A picture without a wait was made at some time since the last
    one with a wait, so its age is an upper bound.

    Args:
        local: a device that buffers only its newest few pictures, so that a backlog forms only while this process is
            paused. Long gaps are normal, for instance with a trigger.

    Attributes:
        on_time: the last picture was fresh according to its pace.
    """

    def __init__(self, local: bool = False) -> None:
        self._local = local
        self._fresh_at = self._read_at = -math.inf
        self._period, self._learned = 0.0, 0
        self._after_gap = False  # the last picture was the first one after a gap
        self._in_doubt = False  # since a gap
        self._pictures = self._window = 0  # since the last fresh one, and since `_window_began`
        self._window_began = 0.0
        self.on_time = True

    def age(self, began: float, now: float, stood_still: bool = False) -> float:
        """Return the age in seconds of a picture that was just read.

        Args:
            began, now: when the read began and ended.
            stood_still: the process was paused at some time since the last read.
        """
        if self._read_at == -math.inf:
            self._read_at = self._fresh_at = now
            return 0.0
        away, waited, self._read_at = began - self._read_at, now - began, now
        in_pace = self._in_pace(away, waited)
        after_gap, self._after_gap = self._after_gap, stood_still or self._is_gap(away + waited)
        if self._after_gap:
            if after_gap:  # nothing lay behind the last gap: pictures come singly, and this is their pace
                self._learn(away, waited, SINGLES)
            self._in_doubt, self._pictures = True, self._pictures + 1
            self._open_window(now)
        elif self._in_doubt:
            self._in_doubt = not self._has_caught_up(now, in_pace or not self._came_late(away))
        if not self._in_doubt:
            self._learn(away, waited)
        self.on_time = in_pace and not self._in_doubt
        if self.on_time or (self._local and not self._in_doubt):
            self._fresh_at, self._pictures = now, 0
        return now - self._fresh_at

    def _in_pace(self, away: float, waited: float) -> bool:
        if self._came_late(away):
            return waited >= WAITED * (self._period or away)
        return away + waited >= PACE * min(self._period, GAP)

    def _came_late(self, away: float) -> bool:
        """Return whether the reader, not the camera, set the pace: pictures accumulate while nobody reads."""
        return not self._local and away > self._period

    def _is_gap(self, interval: float) -> bool:
        return not self._local and self._period > 0 and interval > max(GAP, USUAL_GAPS * self._period)

    def _has_caught_up(self, now: float, credible: bool) -> bool:
        """Return whether the whole backlog has been read, or pictures have come at the camera's pace since.

        Args:
            now: when a picture was read.
            credible: this read shows the camera's pace.
        """
        self._pictures += 1
        if self._period and now - self._fresh_at <= (self._pictures + 1) * self._period:
            return True
        if not credible:
            self._open_window(now)
            return False
        self._window += 1
        if self._window < CALM / (self._period or CALM):
            return False
        mean = (now - self._window_began) / self._window
        self._open_window(now)
        return mean >= min(CALM_PACE * self._period, PACE * GAP)

    def _open_window(self, now: float) -> None:
        self._window, self._window_began = 0, now

    def _learn(self, away: float, waited: float, least: float = LEARNING) -> None:
        """Learn the camera's period from a read that waited for the camera."""
        if waited >= WAITED * away:
            self._learned += 1
            self._period += (away + waited - self._period) * max(least, 1 / self._learned)


class PictureClock:
    """The age of one connection's pictures: the delay of a time stamp beyond the smallest delay so far.

    Without stamps, or if they turn out to be wrong, `Pace` is used.

    Attributes:
        unsure: the last picture may be younger than its age: its pace does not tell.
    """

    def __init__(self, local: bool = False) -> None:
        self._pace = Pace(local)
        self._stamp = -math.inf
        self._least = self._seen_at = 0.0
        self._old_since = math.inf
        self._mistakes = 0
        self.unsure = False

    def age(self, began: float, now: float, stamp: float | None, stood_still: bool = False, held: float = 0.0) -> float:
        """Return the age in seconds of a picture that was just read.

        Args:
            began, now: when the read began and ended.
            stamp: media time in seconds, or None.
            stood_still: the process was paused at some time since the last read.
            held: seconds for which the reader is known to have kept the picture back.
        """
        by_pace = self._pace.age(began, now, stood_still)
        has_stamp = stamp is not None and math.isfinite(stamp) and self._mistakes <= 1
        self.unsure = by_pace > 0 and not has_stamp
        if stamp is None or not has_stamp:
            return by_pace + held
        delay, before, self._stamp = now - held - stamp, self._stamp, stamp
        if stamp <= before or before == -math.inf:  # the first one, or the camera has restarted its clock
            self._least = delay - by_pace
        elif self._pace.on_time:
            self._least += DRIFT * (now - self._seen_at)
        self._seen_at = now
        self._least = min(self._least, delay)
        if self._is_mistaken(delay - self._least, now):
            self._least = delay
        return delay - self._least + held

    def _is_mistaken(self, age: float, now: float) -> bool:
        """Return whether stamps have long said that pictures are old, although they come at the camera's pace."""
        if age <= STALE_AFTER or not self._pace.on_time:
            self._old_since = math.inf
            return False
        self._old_since = min(self._old_since, now)
        if now - self._old_since < RESYNCHRONISE_AFTER:
            return False
        self._mistakes += 1
        self._old_since = math.inf
        return True
