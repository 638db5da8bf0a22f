"""The handshake with a PLC: a result is shown until the PLC acknowledges it. No protocol is known here.

1. A result appears: part, score and counts first, then a new `sequence`, then the `verdict`.
2. The PLC takes the verdict and writes the sequence to `acknowledge`.
3. The verdict is 0 again. It also is 0 after the hold time, and as soon as edgead does not decide any more.

Results wait for one another, so the PLC misses none. A missing acknowledgement is an alarm; while it lasts, results no
longer wait, and the newest one is shown. The next acknowledgement ends it.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from edgead.decision import Verdict
from edgead.errors import ConfigError, SinkError
from edgead.line.outputs import register_map
from edgead.line.outputs.register_map import Snapshot
from edgead.runtime.clock import standstill
from edgead.runtime.result import Result
from edgead.runtime.sinks.sink import BaseSink

LAST = 65535
"""The highest sequence number; 1 follows."""
_log = logging.getLogger("edgead")


@dataclass(frozen=True)
class Timing:
    """Options of every PLC output.

    Attributes:
        ack: the PLC acknowledges each result. If off, a result is shown until the next one comes.
        hold_ms: longest time that a verdict is shown, and time for its acknowledgement.
        heartbeat_ms: time between two counts of the heartbeat.
        stall_ms: time without a turn of the thread that decides, after which `valid` is 0.
        late_ms: a result that arrives here later than this is shown as UNKNOWN, cause ``late``, see `delay_of`.

    Raises:
        ConfigError: a value that makes no sense.
    """

    ack: bool = True
    hold_ms: int = 1000
    heartbeat_ms: int = 100
    stall_ms: int = 2000
    late_ms: int = 1000

    def __post_init__(self) -> None:
        for name, least in (("hold_ms", 10), ("heartbeat_ms", 10), ("stall_ms", 500), ("late_ms", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} of a PLC output must be at least {least}, not {getattr(self, name)}.")


class Handshake:
    """What the PLC sees, and what it has acknowledged. Thread-safe.

    Args:
        timing: the options.
        name: of the output, for log lines.
        pushed: a thread has to send what is shown: `sent` tells when it was. Otherwise the PLC fetches it.

    Attributes:
        session: number of this start.
        alarm: an acknowledgement is missing.
        missed: results that were not acknowledged in time.
        trouble: why the PLC cannot be reached; empty while it can.
        on_show: called with each result and what is to be shown of it, by the thread that shows it; it must return at
            once. If it raises `LeftOut`, the result is not shown.
    """

    def __init__(self, timing: Timing, name: str = "", pushed: bool = False) -> None:
        self.timing, self.name, self.pushed = timing, name, pushed
        self.session = secrets.randbelow(LAST) + 1
        self.alarm, self.trouble, self.missed = False, "", 0
        self.on_show: Callable[[Result, Snapshot], None] = lambda result, shown: None
        self.changed = threading.Condition()
        self._idle: Callable[[], float] | None = None
        self._shown = Snapshot(session=self.session, sequence=secrets.randbelow(LAST) + 1)
        self._shown_at = self._until = 0.0  # the verdict is shown from when until when
        self._sent = self._acknowledged = True
        self._beat_at, self._heartbeat = time.monotonic(), 0
        self._counts: Counter[Verdict] = Counter()
        self._wrong = 0
        self._closed = self._camera_reported = False

    def begin(self, idle: Callable[[], float]) -> None:
        """Be valid while a stream decides. Without it, the output is valid from its first result on.

        Args:
            idle: returns the seconds since the thread that decides finished its last turn.
        """
        with self.changed:
            self._idle = idle

    def continue_after(self, sequence: int) -> None:
        """Let the sequence follow a number that the PLC has from before. Only before anything was sent."""
        with self.changed:
            first = sequence % LAST + 1 if self._shown.verdict else sequence
            self._shown = replace(self._shown, sequence=first)

    def report(self) -> None:
        """Note a report about a camera: it is no result of a part, and ends with the next result."""
        with self.changed:
            self._camera_reported = True
            self.changed.notify_all()

    def show(self, result: Result, stopped: threading.Event) -> None:
        """Show a result and wait until the PLC has acknowledged it.

        Args:
            result: the result.
            stopped: ends the wait when set.

        Raises:
            LeftOut: `on_show` refuses it.
            SinkError: it was not acknowledged in time, or could not be sent.
        """
        with self.changed:
            self._idle = self._idle or (lambda: 0.0)
            self._put(result)
            waits = not self.alarm
            while waits and not self._done() and not stopped.is_set():
                left = self._until - time.monotonic()
                if left <= 0:
                    break
                self.changed.wait(min(left, 0.2))
            if self._done():
                return
            why = self._miss(result)
        raise SinkError(why)

    def _put(self, result: Result) -> None:
        verdict, cause = result.verdict, result.cause
        now = time.monotonic()
        if delay_of(result, now) > self.timing.late_ms / 1e3:
            verdict, cause = Verdict.UNKNOWN, "late"
        part = result.part_id or result.id
        short = register_map.cut(part)
        shown = Snapshot(
            session=self.session,
            sequence=self._shown.sequence % LAST + 1,
            status=register_map.ID_CUT if short != part else 0,
            verdict=register_map.VERDICTS[verdict],
            cause=register_map.CAUSES.get(cause, register_map.OTHER) if cause else 0,
            score=result.score,
            threshold=register_map.at_most(result.threshold),
            part_id=short,
            recipe=register_map.cut(result.recipe or result.bundle),
        )
        self.on_show(result, shown)
        self._shown, self._shown_at, self._until = shown, now, now + self.timing.hold_ms / 1e3
        self._counts[verdict] += 1
        self._acknowledged = self._sent = self._camera_reported = False
        self.changed.notify_all()

    def _done(self) -> bool:
        return self._acknowledged if self.timing.ack else self._sent or not self.pushed

    def _miss(self, result: Result) -> str:
        """Count a missing acknowledgement, log the first one, and return it as a sentence."""
        self.missed += 1
        if self.trouble:
            why = f"the PLC cannot be reached: {self.trouble}"
        else:
            why = f"the PLC did not acknowledge result {self._shown.sequence} ({result.part_id or result.id}) in time"
        if not self.alarm:
            self.alarm = True
            _log.warning("Alarm: %s: %s (hold_ms=%d)", self.name, why, self.timing.hold_ms)
        return why

    def acknowledge(self, sequence: int) -> bool:
        """Take the PLC's acknowledgement; return whether it is that of the result that is shown."""
        with self.changed:
            if sequence != self._shown.sequence or not self._shown.verdict:
                self._wrong += sequence != 0
                return False
            self._acknowledged = True
            self._until = 0.0
            self._end_alarm()
            return True

    def sent(self, sequence: int) -> None:
        """Take note that the result with this number is in the PLC."""
        with self.changed:
            if sequence == self._shown.sequence:
                self._sent = True
                if not self.timing.ack:
                    self._end_alarm()
                self.changed.notify_all()

    def _end_alarm(self) -> None:
        if self.alarm:
            self.alarm = False
            _log.warning("%s: the PLC acknowledges results again; %d were missed so far", self.name, self.missed)
        self.changed.notify_all()

    def awaits(self) -> bool:
        """Return whether an acknowledgement is missing at this moment."""
        with self.changed:
            return self.timing.ack and bool(self._shown.verdict) and not self._acknowledged

    def snapshot(self) -> Snapshot:
        """Return what the PLC may see now. A verdict that is over, or of a stream that stands still, is not in it."""
        with self.changed:
            now = time.monotonic()
            stalled = self._idle is not None and self._idle() > self.timing.stall_ms / 1e3
            valid = self._idle is not None and not stalled and not self._closed
            if valid:
                beats = int((now - self._beat_at) * 1e3 / self.timing.heartbeat_ms)
                self._beat_at += beats * self.timing.heartbeat_ms / 1e3
                self._heartbeat = (self._heartbeat + beats) % (LAST + 1)
            is_over = now >= self._until or standstill.since(self._shown_at) * 1e3 >= self.timing.hold_ms
            shown = valid and not is_over
            status = self._shown.status
            status |= register_map.MISSING_ACKNOWLEDGEMENT if self.alarm else 0
            status |= register_map.STALLED if stalled else 0
            status |= register_map.CAMERA_REPORTED if self._camera_reported else 0
            return replace(
                self._shown,
                heartbeat=self._heartbeat,
                valid=int(valid),
                status=status,
                verdict=self._shown.verdict if shown else 0,
                cause=self._shown.cause if shown else 0,
                passed=self._counts[Verdict.PASS],
                failed=self._counts[Verdict.FAIL],
                unknown=self._counts[Verdict.UNKNOWN],
                unacknowledged=self.missed,
            )

    def close(self) -> None:
        """Be invalid from now on."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()

    def account(self) -> dict[str, Any]:
        """Return figures for the account of the sink."""
        with self.changed:
            return {
                "sequence": self._shown.sequence,
                "unacknowledged": self.missed,
                "wrong_acknowledgements": self._wrong,
                "alarm": self.alarm,
            }


class PlcSink(BaseSink):
    """Base class of PLC outputs. A subclass carries `handshake` to the PLC and closes the way in `close`."""

    def __init__(self, name: str, timing: Timing, pushed: bool = False) -> None:
        super().__init__(name)
        self.handshake = Handshake(timing, name, pushed)

    def begin(self, idle: Callable[[], float]) -> None:
        """See `Handshake.begin`."""
        self.handshake.begin(idle)

    def wants(self, result: Result) -> bool:
        """Return whether it is the result of a frame or part. Reports about a camera are shown in `status` instead."""
        if result.frame_id is None and not result.part_id:
            self.handshake.report()
            return False
        return True

    def write(self, result: Result) -> None:
        """Show a result; see `Handshake.show`."""
        self.handshake.show(result, self.stopped)

    def stop(self) -> None:
        """End the wait for an acknowledgement. Thread-safe."""
        super().stop()
        with self.handshake.changed:
            self.handshake.changed.notify_all()

    def details(self) -> dict[str, Any]:
        """See `Handshake.account`."""
        return self.handshake.account()


def delay_of(result: Result, now: float) -> float:
    """Return the seconds since a result was decided, or left as the answer of a part; 0 where that is not known.

    A part may be decided long before its answer leaves, which waits for those of earlier parts.
    """
    since, total = result.t_answer, result.latency_ms.get("total")
    if not since and total is not None and result.t_capture:
        since = result.t_capture + total / 1e3
    return max(now - since, standstill.since(since)) if since else 0.0  # `now` does not include time in suspend
