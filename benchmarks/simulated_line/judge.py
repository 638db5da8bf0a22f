"""Compares what the PLC reads with the truth, at every read."""

from __future__ import annotations

import math
import threading
from collections import Counter
from dataclasses import dataclass

from line_process import PRODUCTS, RULES, TIMING
from pictures import NUMBERS, read_score

from edgead.line.outputs.register_map import MISSING_ACKNOWLEDGEMENT, VERDICTS, Snapshot, describe

HOLD = TIMING["hold_ms"] / 1e3
LONGEST = (RULES["within"] + TIMING["late_ms"] + TIMING["hold_ms"]) / 1e3
"""Seconds from a trigger until its verdict is over, at most."""
SLACK = 0.5
"""Seconds for a machine that is busy with other things."""
GIVEN_UP = 5.0
"""Seconds without an answer after which a part is lost."""
NAMES = ("lost", "doubled", "swapped", "stale")
"""What must not be."""
NOTES = 20
FAILS = next(code for verdict, code in VERDICTS.items() if verdict and verdict.value == "FAIL")
PASSES = next(code for verdict, code in VERDICTS.items() if verdict and verdict.value == "PASS")


@dataclass
class Part:
    """A part that was announced.

    Attributes:
        number: of all parts.
        id: it was announced with.
        fails: see `faults.PlannedPart`.
        bundles: numbers of the bundles that may decide on it.
        sent: when its trigger was sent, `time.monotonic` seconds.
        verdict: code of its answer; 0 while there is none.
        read: when the PLC had read its answer.
        shown: its picture came at once.
        over: it can have no answer any more: the line was killed.
        refused: the line was not there.
    """

    number: int
    id: str
    fails: int
    bundles: set[int]
    sent: float
    verdict: int = 0
    read: float = 0.0
    shown: bool = False
    over: bool = False
    refused: bool = False


class Judge:
    """Counts what must not be. Thread-safe: the conveyor announces parts, the PLC reads.

    A part has one fate: an answer; ``missed``, because the PLC did not read for the whole hold time; ``cut``,
    because the line was killed while it was in flight; or ``refused``, because no line was there.
    Without one it is lost.

    Attributes:
        counts: ``lost``, ``doubled``, ``swapped``, ``stale`` must stay 0. The others are fates, and ``announced``.
        unknown: answers by the code of their cause.
        notes: about the first violations.
        deciding: number of the bundle of the last answer; 0 before the first one of a life.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.notes: list[str] = []
        self.deciding = 0
        self._lock = threading.Lock()
        self._open: dict[str, Part] = {}
        self._closed: dict[str, Part] = {}
        self._session = 0
        self._session_before = 0
        self._last: Snapshot | None = None
        self._acknowledged = 0
        self._total = 0
        self._away = False

    @property
    def violations(self) -> int:
        """Everything that must not be."""
        return sum(self.counts[name] for name in NAMES)

    def begin(self) -> None:
        """A line is there and the PLC reads it: from now on, only what the PLC does excuses a missed answer."""
        with self._lock:
            self._away = False

    def announce(self, part: Part) -> None:
        """A trigger is being sent."""
        with self._lock:
            self.counts["announced"] += 1
            self._open[part.id] = part

    def refuse(self, part: Part) -> None:
        """The line was not there."""
        with self._lock:
            part.over = part.refused = True

    def allow(self, bundle: int) -> None:
        """A bundle is being replaced: the new one may decide on what is in flight."""
        with self._lock:
            for part in self._open.values():
                part.bundles.add(bundle)

    def in_flight(self) -> int:
        """Return how many parts wait for their answer."""
        with self._lock:
            return sum(not part.over for part in self._open.values())

    def rest(self, seconds: float) -> None:
        """The PLC did not read, or did not acknowledge, for a time."""
        with self._lock:
            self._away = self._away or seconds > 0.9 * HOLD

    def see(self, seen: Snapshot, began: float, ended: float) -> None:
        """The PLC has read the registers. Every read is checked, also of what was read before."""
        with self._lock:
            self._give_up(began)
            if not seen.valid or not seen.verdict:
                return
            if seen.session != self._session:
                self._begin_session(seen)
            if seen.sequence == self._acknowledged:
                self._blame("stale" if seen.verdict == PASSES else "doubled", seen, "it was acknowledged before")
            elif self._last and seen.sequence == self._last.sequence:
                self._see_again(seen, self._last, began)
            else:
                self._take(seen, began, ended)

    def acknowledged(self, sequence: int) -> None:
        """The line has taken the PLC's acknowledgement."""
        with self._lock:
            self._acknowledged = sequence

    def compare(self, announced: int, triggered: int, answered: int) -> None:
        """Compare the line's own count of its parts with the number that was announced."""
        with self._lock:
            self.counts["doubled"] += max(0, triggered - announced)
            self.counts["lost"] += max(0, announced - triggered, triggered - answered)
            if not announced == triggered == answered:
                self._note(f"{announced} parts were announced; the line says {triggered}, and {answered} answered")

    def kill(self) -> None:
        """The line is being killed: what is in flight has no answer."""
        with self._lock:
            for part in self._open.values():
                part.over = True

    def settle(self) -> None:
        """A life is over: what is still open was cut off by a kill, or is lost."""
        with self._lock:
            for part in self._open.values():
                self.counts["refused" if part.refused else "cut" if part.over else "lost"] += 1
                if not part.over:
                    self._note(f"lost: part {part.id} has no answer")
            self._open.clear()
            self._closed.clear()
            self._last, self._away, self.deciding = None, False, 0
            self._session, self._session_before = 0, self._session

    def _give_up(self, now: float) -> None:
        oldest = next(iter(self._open.values()), None)
        if oldest and not oldest.over and now - oldest.sent > GIVEN_UP:
            self.counts["lost"] += 1
            self._note(f"lost: part {oldest.id} has no answer after {GIVEN_UP:g} s")
            self._closed[oldest.id] = self._open.pop(oldest.id)

    def _begin_session(self, seen: Snapshot) -> None:
        if self._session or seen.session == self._session_before:
            self._blame("stale", seen, "it is of another start of the line")
        self._session, self._last, self._acknowledged, self._total = seen.session, None, 0, 0

    def _see_again(self, seen: Snapshot, last: Snapshot, began: float) -> None:
        if (seen.part_id, seen.verdict, seen.recipe) != (last.part_id, last.verdict, last.recipe):
            self._blame("swapped", seen, f"it was {describe(last)}")
        self._check_age(seen, began)

    def _check_age(self, seen: Snapshot, began: float) -> None:
        part = self._open.get(seen.part_id) or self._closed.get(seen.part_id)
        if seen.verdict == PASSES and part and began - part.sent > LONGEST + SLACK:
            self._blame("stale", seen, f"{began - part.sent:.2f} s after its trigger")

    def _take(self, seen: Snapshot, began: float, ended: float) -> None:
        """Take an answer that was not there before."""
        gap = (seen.sequence - self._last.sequence - 1) % 65535 if self._last else 0
        total = seen.passed + seen.failed + seen.unknown
        if self._last and total - self._total != gap + 1:
            self._blame("doubled", seen, f"{total - self._total} results were counted in {gap + 1} steps")
        first, self._total = self._last is None, total
        self._last = seen
        part = self._open.get(seen.part_id)
        if part is None:
            known = self._closed.get(seen.part_id)
            self._blame("doubled" if known else "swapped", seen, "it is answered" if known else "no such part waits")
            return
        before = [one for one in self._open.values() if one.number < part.number]
        self._miss(before, total - 1 if first else gap, seen)
        self._check(part, seen)
        self._check_age(seen, began)
        del self._open[part.id]
        self._closed[part.id] = part
        while len(self._closed) > NUMBERS // 8:
            self._closed.pop(next(iter(self._closed)))
        part.verdict, part.read = seen.verdict, ended
        self.counts["answered"] += 1
        if not seen.status & MISSING_ACKNOWLEDGEMENT:
            self._away = False

    def _miss(self, before: list[Part], skipped: int, seen: Snapshot) -> None:
        """Parts before an answered one have none: the PLC missed as many results as the sequence has skipped."""
        excused = skipped if self._away else 0
        for place, part in enumerate(before):
            del self._open[part.id]
            self._closed[part.id] = part
            if place < excused or part.over:
                self.counts["cut" if part.over else "missed"] += 1
            else:
                self._blame("lost", seen, f"part {part.id} before it has no answer")

    def _check(self, part: Part, seen: Snapshot) -> None:
        """Compare an answer with the truth about its part."""
        self.deciding = self._bundle_of(seen.recipe)
        if self.deciding not in part.bundles:
            self._blame("swapped", seen, f"the recipe must be of {sorted(part.bundles)}")
        if not math.isfinite(seen.score):
            told = describe(seen)
            self.unknown[str(told["cause"])] += 1
            if seen.verdict in (PASSES, FAILS):
                self._blame("swapped", seen, "nothing was inferred")
            return
        number, bundle = read_score(seen.score)
        if number != part.number % NUMBERS:
            self._blame("swapped", seen, f"the picture is of part {number}")
        elif bundle != self.deciding:
            self._blame("swapped", seen, f"bundle {bundle} decided")
        elif seen.verdict in (PASSES, FAILS):
            must = FAILS if part.fails >> (bundle - 1) & 1 else PASSES
            if seen.verdict != must:
                self._blame("swapped", seen, f"the truth is {must}")
        else:
            self.unknown[str(describe(seen)["cause"])] += 1

    @staticmethod
    def _bundle_of(recipe: str) -> int:
        """Return the bundle's number of a recipe, ``b 1``, or of a bundle's name, ``bundle-2``."""
        kind, _, number = recipe.partition("bundle-")
        return int(number) if number else PRODUCTS.index(kind.split()[0]) + 1

    def _blame(self, what: str, seen: Snapshot, why: str) -> None:
        self.counts[what] += 1
        told = describe(seen)
        names = ("session", "sequence", "part_id", "verdict", "cause", "score", "recipe")
        self._note(f"{what}: {why}: {', '.join(f'{name} {told[name]}' for name in names)}")

    def _note(self, text: str) -> None:
        if len(self.notes) < NOTES:
            self.notes.append(text)
