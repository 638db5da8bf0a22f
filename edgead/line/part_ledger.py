"""The ledger of parts: counts what became of every trigger."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import TypedDict

from edgead.decision import Verdict
from edgead.runtime.ledger import label
from edgead.runtime.result import Result


class PartFigures(TypedDict):
    """The parts of a run, as JSON. See `PartLedger`."""

    triggered: int
    answered: int
    passed: int
    failed: int
    unknown: int
    in_flight: int
    bounced: int
    unknown_by_cause: dict[str, int]


class PartLedger:
    """Counts parts: ``triggered = answered (PASS, FAIL, UNKNOWN by cause) + in flight`` at any moment.

    The three are counted independently, so the equation is a check. A part is answered when its result leaves for the
    sinks. Bounces of a trigger are no parts; they are counted beside. Thread-safe. A signal handler may read it,
    without the part that was just being counted.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler of the host may ask while this is held
        self._triggered = self._in_flight = self._bounced = 0
        self._verdicts: Counter[str] = Counter()
        self._causes: Counter[str] = Counter()

    def trigger(self) -> None:
        """Count a part."""
        with self._lock:
            self._triggered += 1
            self._in_flight += 1

    def bounce(self) -> None:
        """Count a signal that opened no part."""
        with self._lock:
            self._bounced += 1

    def answer(self, result: Result) -> None:
        """Count the answer of a part."""
        with self._lock:
            self._in_flight -= 1
            self._verdicts[result.verdict.value] += 1
            if result.verdict is Verdict.UNKNOWN:
                self._causes[result.cause] += 1

    def snapshot(self) -> PartFigures:
        """Return the counts at one moment."""
        with self._lock:
            return {
                "triggered": self._triggered,
                "answered": self._verdicts.total(),
                "passed": self._verdicts[Verdict.PASS.value],
                "failed": self._verdicts[Verdict.FAIL.value],
                "unknown": self._verdicts[Verdict.UNKNOWN.value],
                "in_flight": self._in_flight,
                "bounced": self._bounced,
                "unknown_by_cause": dict(self._causes),
            }

    def to_prometheus(self, triggers: Mapping[str, bool]) -> str:
        """Return the counts, and whether signals arrive from each trigger, as Prometheus text."""
        figures = self.snapshot()
        verdicts = {"PASS": figures["passed"], "FAIL": figures["failed"], "UNKNOWN": figures["unknown"]}
        lines = [
            *_head("parts_triggered_total", "counter", "Parts that triggers have opened."),
            f"edgead_parts_triggered_total {figures['triggered']}",
            *_head("parts_answered_total", "counter", "Answers by verdict."),
            *(f"edgead_parts_answered_total{{{label('verdict', name)}}} {count}" for name, count in verdicts.items()),
            *_head("parts_unknown_total", "counter", "UNKNOWN answers by cause."),
            *(
                f"edgead_parts_unknown_total{{{label('cause', cause)}}} {count}"
                for cause, count in figures["unknown_by_cause"].items()
            ),
            *_head("parts_in_flight", "gauge", "Parts between trigger and answer."),
            f"edgead_parts_in_flight {figures['in_flight']}",
            *_head("trigger_bounces_total", "counter", "Signals within the debounce time, which open no part."),
            f"edgead_trigger_bounces_total {figures['bounced']}",
            *_head("trigger_ready", "gauge", "Signals of the trigger arrive."),
            *(f"edgead_trigger_ready{{{label('trigger', name)}}} {int(ready)}" for name, ready in triggers.items()),
        ]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP edgead_{name} {text}", f"# TYPE edgead_{name} {kind}"]
