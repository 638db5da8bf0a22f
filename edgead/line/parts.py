"""Parts between a stream and its sinks: which frame belongs to which part, and each part's one answer."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from edgead.errors import ConfigError
from edgead.line.part import Part, PartRules, refuse_long_delays
from edgead.line.part_ledger import PartLedger
from edgead.line.products import Products
from edgead.line.triggers import CameraTrigger, Trigger, open_triggers, refuse_untimed
from edgead.line.triggers.trigger import LATE_AFTER
from edgead.redaction import printable
from edgead.runtime.clock import SHORT_PAUSE, TICK, standstill
from edgead.runtime.frame_inspector import FrameInspector
from edgead.runtime.identity import new_id
from edgead.runtime.result import Result
from edgead.runtime.saying import SayOnce, harmless
from edgead.runtime.sources.source import Captured, why_no_moment
from edgead.runtime.stream import Stream

UNTRIGGERED = "untriggered"
"""Cause of a dropped frame that no trigger asked for."""
REMEMBERED = 4096
"""Ids of the latest parts. A trigger that brings one of them again is repeated, and no part."""
CAPACITY = 16
"""Frames of one source that may wait for the engine: none of a part's frames is to be overtaken."""
BEHIND = 1024
"""Parts by which one camera may be behind another, where pictures open the parts."""
AFTER_PAUSE = 1.0
"""Seconds after a pause of this process in which a trigger may be one that waited for its end, in a socket."""
_log = logging.getLogger("edgead")


class Parts:
    """A gate (`edgead.runtime.gate.Gate`) that turns triggers into parts and frames into one answer for each part.

    A frame belongs to the newest part whose trigger, plus `PartRules.delay`, is not after the frame was made, and not
    more than `PartRules.window` before; a frame that this part does not need is dropped, cause `UNTRIGGERED`. So is one
    that may have been made before or after a trigger. Answers leave in the order of the triggers, each within
    `PartRules.within` of its own. docs/line.md states the rules for users.

    Args:
        rules: of every part.
        triggers: URIs, see `edgead.line.triggers.open_triggers`, or open triggers. `trigger` opens parts as well.
        delays: delay by camera, in place of `PartRules.delay`.
        products: to choose from; a part is decided by the product that is chosen when it is triggered. None for the
            stream's inspector.
        say: shows a line to the user.

    Attributes:
        ledger: counts the parts.

    Raises:
        ConfigError: a trigger that is unknown or cannot be opened.
    """

    def __init__(
        self,
        rules: PartRules | None = None,
        triggers: Sequence[str | Trigger] = (),
        *,
        delays: dict[str, float] | None = None,
        products: Products | None = None,
        say: Callable[[str], None] = _log.warning,
    ) -> None:
        self.rules, self.ledger, self._say_once = rules or PartRules(), PartLedger(), SayOnce(harmless(say))
        self._delays, self._products = delays or {}, products
        refuse_long_delays(self.rules, self._delays)
        self._cameras: list[str] = []
        self._stream: Stream | None = None
        self._send: Callable[[Result], None] = lambda result: None
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._open: deque[Part] = deque()
        self._latest: deque[Part] = deque()  # also those that are answered
        self._ids: dict[str, float] = {}  # of the latest parts, in order; when each must be answered
        self._frames: dict[tuple[str, int | None], tuple[Part, str]] = {}
        self._made: dict[str, float] = {}  # when each camera's newest frame was made
        self._leaving: deque[Result] = deque()
        self._ended, self._resources = False, ExitStack()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._watch, name="parts", daemon=True)
        self.triggers = open_triggers(triggers, self.ledger.bounce, say)
        self._by_frame = next((one for one in self.triggers if isinstance(one, CameraTrigger)), None)

    def meet(self, sinks: Sequence[object]) -> None:
        if self._products:
            self._products.meet(sinks)

    def begin(self, stream: Stream, send: Callable[[Result], None]) -> None:
        self._stream, self._send = stream, send
        self._resources.enter_context(standstill.watch())
        refuse_untimed(self.triggers, stream.sources)
        self._cameras = [source.name for source in stream.sources]
        if unknown := set(self._delays) - set(self._cameras):
            raise ConfigError(f"There is no camera {min(unknown)}. Available: {', '.join(self._cameras)}.")
        self.rules.needed(self.rules.frames * len(self._cameras))
        if self._products:
            self._products.begin(stream)
        self._thread.start()
        for trigger in self.triggers:
            trigger.begin(self.trigger)

    def trigger(self, part_id: str = "", at: float | None = None, doubt: str = "") -> str:
        """Open a part. Thread-safe, and returns at once.

        Args:
            part_id: unique for ever; empty for one of our own, or only spaces, as of a bar code that was not read.
            at: when the trigger fired, `time.monotonic` seconds. If that is more than `LATE_AFTER` ago, the part is
                UNKNOWN if frames of it have come already. None for now. Then the part is UNKNOWN just after a pause of
                this process: nobody knows how long the trigger waited, and the part may have passed.
            doubt: why nobody knows when the trigger fired, so that the part is UNKNOWN; empty if it is known.

        Returns:
            The part's id. One that a recent part has opens none: its trigger bounced, or was sent again.

        Raises:
            ConfigError: the run has not begun, or has ended; or the id is no text, or the time cannot be.
        """
        now = time.monotonic()
        if not isinstance(part_id, str):
            raise ConfigError(f"A part's id must be text, not {part_id!r}.")
        if at is not None and (why := why_no_moment("at", at, now)):  # its answer would never be due
            raise ConfigError(f"No part can be triggered: {why}.")
        part_id = part_id if part_id.strip() else ""
        with self._changed:
            if part_id not in self._ids:
                return self._trigger(part_id, at, now, doubt)
            self.ledger.bounce()
            is_over = self._ids[part_id] < now
        if is_over:  # no bounce, and hardly a message that was sent twice
            text = f"the id {printable(part_id)} came again after the time of its part"
            self._say_once(
                f"{text}. That trigger opens no part and gets no result. Give each part an id of its own, or none.",
                "id",
            )
        return part_id

    def _trigger(self, part_id: str, at: float | None, now: float, doubt: str) -> str:
        if self._stream is None or self._ended:
            raise ConfigError(f"The run has {'ended' if self._ended else 'not begun'}: no part can be triggered.")
        fired = now if at is None else at
        part = self._open_part(part_id, fired)
        if at is None and (paused := standstill.since(now - AFTER_PAUSE, SHORT_PAUSE)):
            doubt = f"this process was paused for {paused:.1f} s"
        if now - fired > LATE_AFTER and self._by_frame is None:
            late = f"was read {(now - fired) * 1e3:.0f} ms after it fired"
            self._give_up_before(fired, late)
            if any(self._is_after(fired, camera, made) for camera, made in self._made.items()):
                doubt = doubt or f"its trigger {late}, when frames of the part had come"
        if doubt:
            self._give_up(part, "no_frame", f"{doubt}, and the part may have passed meanwhile")
        self._settle()
        return part.id

    def _give_up_before(self, fired: float, late: str) -> None:
        """Give up the parts before a trigger that took frames after it, when nobody knew yet of the next part."""
        for part in self._latest:
            if part.at >= fired or not any(self._is_after(fired, *frame) for frame in part.taken.items()):
                continue
            if part.answer is None:
                self._give_up(part, "no_frame", f"a frame may show the next part, whose trigger {late}")
            else:
                text = f"part {printable(part.id)} may have been decided on a frame of the next one, whose trigger"
                self._say_once(f"{text} {late}", "late")

    def _is_after(self, fired: float, camera: str, made: float) -> bool:
        """Return whether a frame was made when the part of a trigger was in front of the camera, or later."""
        return made >= fired + self._delay(camera)

    def _delay(self, camera: str) -> float:
        """Seconds."""
        return self._delays.get(camera, self.rules.delay) / 1e3

    def admit(self, source: str, captured: Captured) -> str:
        with self._changed:
            self._made[source] = max(captured.made_at_latest, self._made.get(source, captured.made_at_latest))
            self._expire(time.monotonic())  # no part whose time is over takes a frame
            part = None if self._ended else self._part_of(source, captured)
            if part is not None:
                part.take(source, captured.made_at_latest)
                self._frames[captured.source_id, captured.frame_id] = part, source
            self._wake()
        return UNTRIGGERED if part is None else ""

    def inspector(self, captured: Captured) -> FrameInspector | None:
        if self._products is None:
            return None
        with self._changed:
            part, _ = self._frames.get((captured.source_id, captured.frame_id), (None, ""))
        return self._products.current if part is None else part.inspector

    def drop(self, captured: Captured, cause: str) -> None:
        with self._changed:
            part, camera = self._frames.pop((captured.source_id, captured.frame_id), (None, ""))
            if part is not None:
                part.lose(camera, cause)
                self._conclude(part)
                self._wake()

    def take(self, result: Result) -> None:
        with self._changed:
            part, _ = self._frames.pop((result.source_id, result.frame_id), (None, ""))
            if part is not None:
                part.judge(result)
                self._conclude(part)
            elif result.frame_id is None:  # a report about a source
                self._leaving.append(result)
        self._send_all()

    def close(self) -> None:
        with ExitStack() as stack:  # whatever a trigger raises, the others are closed, and the parts are answered
            stack.callback(self._end)
            for trigger in self.triggers:
                stack.callback(trigger.close)

    def _end(self) -> None:
        self._resources.close()
        with self._changed:
            self._ended = True
            for part in self._open:
                self._give_up(part, "stopped", "the run ended before the part was decided")
            self._settle()
            self._changed.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        self._send_all()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def summary(self) -> dict[str, Any]:
        return {"parts": self.ledger.snapshot()}

    def to_prometheus(self) -> str:
        ready: dict[str, bool] = {}
        for one in self.triggers:  # two may have one name, and no series may be there twice
            ready[one.name] = ready.get(one.name, True) and getattr(one, "ready", True)
        return self.ledger.to_prometheus(ready)

    def _open_part(self, part_id: str, at: float) -> Part:
        """Open a part. Triggers of several threads may come in another order than they fired; parts have one order.

        Pictures of several cameras have their own order: a camera may be quicker than another by more than a part.
        """
        assert self._stream is not None
        inspector = self._products.at(at) if self._products else self._stream.inspector
        if self._latest and self._by_frame is None:
            at = max(at, self._latest[-1].at)
        part = Part(part_id or new_id(), at, self._cameras, self.rules, inspector)
        self.ledger.trigger()
        if part_id:
            self._remember(part)
        close = [each for each in self._latest if abs(at - each.at) * 1e3 < self.rules.min_distance]
        later = sum(1 for _ in itertools.takewhile(lambda each: each.at > at, reversed(self._open)))
        self._open.insert(len(self._open) - later, part)
        self._latest.append(part)
        self._forget_parts()
        if close:
            reason = f"two triggers within {self.rules.min_distance:g} ms: the parts cannot be told apart"
            for each in (*close, part):
                self._give_up(each, "too_close", reason)
            self._settle()
        self._changed.notify_all()  # its time runs
        return part

    def _forget_parts(self) -> None:
        """Forget old parts, but not while pictures may open parts and one of theirs may come: it would open another."""
        while len(self._latest) > CAPACITY:
            may_come = self._by_frame is not None and not all(map(self._latest[0].owes_nothing, self._cameras))
            if may_come and len(self._latest) <= BEHIND:
                return
            self._latest.popleft()

    def _remember(self, part: Part) -> None:
        self._ids[part.id] = part.until
        if len(self._ids) > REMEMBERED:
            del self._ids[next(iter(self._ids))]

    def _part_of(self, source: str, captured: Captured) -> Part | None:
        if self._by_frame is not None:
            return self._joined(source, captured, self._by_frame.tolerance)
        in_front = self._in_front(source, captured.made)
        found = next(in_front, None)
        self._pass_by(source, in_front)
        if found is None or not found.lacks(source):
            return None
        may_be_later = next(self._in_front(source, captured.made_at_latest)) is not found
        is_past = (
            self.rules.window and captured.made_at_latest > found.at + self._delay(source) + self.rules.window / 1e3
        )
        return None if may_be_later or is_past else found

    def _in_front(self, source: str, moment: float) -> Iterator[Part]:
        """Yield the parts that had come to a camera by then, newest first."""
        return (part for part in reversed(self._open) if self._is_after(part.at, source, moment))

    def _pass_by(self, source: str, earlier: Iterator[Part]) -> None:
        """Note that a later part is in front of a camera than these, newest first."""
        past = list(itertools.takewhile(lambda part: not part.owes_nothing(source), earlier))
        for part in reversed(past):
            part.end_frames(source)
            self._conclude(part)

    def _joined(self, source: str, captured: Captured, tolerance: float) -> Part | None:
        """Return the part that a frame was made together with, or a new part; None where that part is answered."""
        made = captured.made

        def is_together(part: Part) -> bool:
            return abs(made - part.at) <= tolerance and abs(captured.made_at_latest - part.at) <= tolerance

        together = [part for part in self._latest if not part.owes_nothing(source) and is_together(part)]
        part = min(together, key=lambda each: abs(made - each.at)) if together else self._open_pictured(source, made)
        self._pass_by(source, (each for each in reversed(self._open) if each.at < part.at))
        if part.lacks(source):
            return part
        part.leave_out(source)
        return None

    def _open_pictured(self, source: str, made: float) -> Part:
        """Open the part of a picture. If the time of the part is already over, the picture was read too late."""
        part, now = self._open_part("", made), time.monotonic()
        if part.overdue(now) >= 0 and part.answer is None:
            reason = (
                f"the picture of the camera {source} was read {(now - made) * 1e3:.0f} ms after it was taken, "
                f"as far as is known, and within is {self.rules.within:g} ms"
            )
            part.answer = part.inspector.judge(Captured(None, reason, source, None, part.at, cause="stale"))
            self._settle()
        return part

    def _conclude(self, part: Part) -> None:
        """Answer a part whose answer is certain, or cannot become certain any more."""
        if part.is_over:
            self._give_up(part, "no_frame", part.what_is_missing()[1])
        if part.answer is not None:
            self._settle()

    def _give_up(self, part: Part, cause: str, reason: str) -> None:
        """Answer a part with UNKNOWN, unless it is answered: by its own unknown frame, or without one."""
        if part.answer is None:
            part.answer = part.unknown or self._without_frame(part, cause, reason)

    def _without_frame(self, part: Part, cause: str, reason: str) -> Result:
        camera = part.what_is_missing()[0]
        return part.inspector.judge(Captured(None, reason, camera, None, part.at, cause=cause))

    def _settle(self) -> None:
        """Let the answers at the head of the line leave."""
        while self._open and (result := self._open[0].leave()) is not None:
            part, now = self._open.popleft(), time.monotonic()
            result.part_id, result.t_answer = part.id, now - max(0.0, part.overdue(now))
            result.latency_ms["part"] = (now - part.at) * 1e3
            self.ledger.answer(result)
            self._leaving.append(result)

    def _wake(self) -> None:
        if self._leaving:
            self._changed.notify_all()

    def _send_all(self) -> None:
        """Pass answers to the sinks, in order, whichever thread does it."""
        with self._sending:
            while self._leaving:
                self._send(self._leaving.popleft())

    def _watch(self) -> None:
        """Answer parts whose time is up, also while the engine hangs."""
        while True:
            with self._changed:
                self._expire(time.monotonic())
                if self._ended:
                    return
                if not self._leaving:
                    rest = min(max(self._open[0].until - time.monotonic(), 0.0), TICK) if self._open else None
                    self._changed.wait(rest)  # does not include time in suspend either
                    continue
            try:
                self._send_all()
            except BaseException as error:  # the caller's code: the run ends with its error, as in the other thread
                self._fail(error)
                return

    def _fail(self, error: BaseException) -> None:
        assert self._stream is not None
        self._error = error
        self._stream.stop()

    def _expire(self, now: float) -> None:
        for part in self._open:
            if part.overdue(now) < 0:
                break
            late = f"the frames came, and no decision within {self.rules.within:g} ms"
            cause, reason = ("late", late) if part.is_late else ("no_frame", part.what_is_missing()[1])
            self._give_up(part, cause, reason)
        self._settle()
