"""How old a camera's picture is when it is read: from its time stamp, or from the pace at which pictures come.

Both look at the clock `edgead.runtime.clock.elapsed`.
"""

from __future__ import annotations

import math

from edgead.runtime.clock import STALE_AFTER

DRIFT = 1e-3
"""Seconds that a camera's clock may gain or lose in one second against ours."""
RESYNCHRONISE_AFTER = 30.0
"""Seconds for which stamps may call pictures old that come at the camera's own pace. Then the stamps were wrong."""
GAP, USUAL_GAPS = 1.0, 5.0
"""A gap in which a backlog may have formed is longer than this many seconds, and than this many usual periods."""
PACE = 0.7
"""A picture that comes after less than this share of the usual period did not have to be waited for."""
CALM, CALM_PACE = 1.0, 0.95
"""A backlog is gone when pictures came at this share of the usual period, on average over this many seconds."""
WAITED = 0.3
"""Share of the usual period (where it is not known, of the reader's absence) that a read takes which had to wait."""
LEARNING, SINGLES = 0.02, 0.3
"""Least share that the last picture has in the usual period; and that one that comes singly has."""


class Pace:
    """The age of pictures without time stamps: what comes faster than real time after a gap is old.

    A read that has to wait shows that nothing lay between camera and reader. What did not have to wait was made at some
    time since the last picture that did, so that its age is an upper bound.

    Args:
        local: a device that keeps only its newest few pictures, so that a backlog forms only where this process stood
            still. A part that triggers it may be long in coming.

    Attributes:
        on_time: the last picture was fresh as far as its pace tells.
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
            stood_still: the process did not run for some of the time since the last read.
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
        """Whether the reader, and not the camera, set the pace: pictures pile up while nobody reads."""
        return not self._local and away > self._period

    def _is_gap(self, interval: float) -> bool:
        return not self._local and self._period > 0 and interval > max(GAP, USUAL_GAPS * self._period)

    def _has_caught_up(self, now: float, credible: bool) -> bool:
        """Whether all that a gap can have left has been read, or pictures have come at the camera's pace since.

        Args:
            now: when a picture was read.
            credible: this read tells something about the camera's pace.
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
        """Learn the camera's period from a read that waited for the camera, and not the camera for the reader."""
        if waited >= WAITED * away:
            self._learned += 1
            self._period += (away + waited - self._period) * max(least, 1 / self._learned)


class PictureClock:
    """The age of one connection's pictures: how far a time stamp lags behind the least delay that was seen.

    Without stamps, or where they turn out not to be a clock, `Pace` tells.
    """

    def __init__(self, local: bool = False) -> None:
        self._pace = Pace(local)
        self._stamp = -math.inf
        self._least = self._seen_at = 0.0
        self._old_since = math.inf
        self._mistakes = 0

    def age(self, began: float, now: float, stamp: float | None, stood_still: bool = False) -> float:
        """Return the age in seconds of a picture that was just read.

        Args:
            began, now: when the read began and ended.
            stamp: media time in seconds; None where there is none.
            stood_still: the process did not run for some of the time since the last read.
        """
        by_pace = self._pace.age(began, now, stood_still)
        if stamp is None or not math.isfinite(stamp) or self._mistakes > 1:
            return by_pace
        delay, before, self._stamp = now - stamp, self._stamp, stamp
        if stamp <= before or before == -math.inf:  # the first one, or the camera has begun to count again
            self._least = delay - by_pace
        elif self._pace.on_time:
            self._least += DRIFT * (now - self._seen_at)
        self._seen_at = now
        self._least = min(self._least, delay)
        if self._is_mistaken(delay - self._least, now):
            self._least = delay
        return delay - self._least

    def _is_mistaken(self, age: float, now: float) -> bool:
        """Whether stamps have said for long that pictures are old, while they come as the camera makes them."""
        if age <= STALE_AFTER or not self._pace.on_time:
            self._old_since = math.inf
            return False
        self._old_since = min(self._old_since, now)
        if now - self._old_since < RESYNCHRONISE_AFTER:
            return False
        self._mistakes += 1
        self._old_since = math.inf
        return True
