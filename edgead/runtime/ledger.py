"""The ledger: counts what became of every frame."""

from __future__ import annotations

import bisect
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TypedDict

from edgead.decision import Verdict
from edgead.runtime.result import Result
from edgead.runtime.speed import Percentiles, Speed

BUCKETS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Upper limits of the latency histogram, milliseconds."""


@dataclass
class Account:
    """The frames of one source. ``captured = passed + failed + unknown + dropped + in flight``.

    Attributes:
        captured: frames from the source, and errors in place of frames.
        reported: reports about the source by name, which are not frames and not part of the equation: ``lost``,
            ``silent``, ``resized``, ``untrained``.
        verdicts: results by verdict.
        unknown: UNKNOWN results by cause, a word of `edgead.runtime.result.CAUSES`.
        dropped: frames without a result by cause: ``overtaken`` by a newer frame, ``refused`` because older ones
            waited, ``stopped`` at the end of the run, and what a `edgead.runtime.gate.Gate` says.
        latency: results by bucket of `BUCKETS_MS`, from picture made to decision; the last bucket has no limit.
        latency_sum: milliseconds.
    """

    captured: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    reported: Counter[str] = field(default_factory=Counter)
    latency: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_MS) + 1))
    latency_sum: float = 0.0
    in_flight: int = 0


class Figures(TypedDict):
    """Totals and counts by cause as JSON. See `Account`."""

    captured: int
    inferred: int
    passed: int
    failed: int
    unknown: int
    dropped: int
    in_flight: int
    unknown_by_cause: dict[str, int]
    dropped_by_cause: dict[str, int]
    reported_by_cause: dict[str, int]


class Snapshot(Figures):
    """The figures of all sources, and those of each by its name."""

    sources: dict[str, Figures]


class Ledger:
    """Counts frames: ``captured = inferred + dropped (by cause) + in flight`` at any moment.

    The four are counted independently, so the equation is a check. `inferred` counts results: PASS, FAIL and UNKNOWN,
    also an UNKNOWN without inference; its cause is counted too. Thread-safe. A signal handler may read it, without the
    frame that was just being counted.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler of the host may ask while this is held
        self._accounts: dict[str, Account] = {}
        self._speed = Speed()

    def enter(self, source_id: str) -> None:
        """Count a frame from a source, or an error in place of one."""
        with self._lock:
            account = self._accounts.setdefault(source_id, Account())
            account.captured += 1
            account.in_flight += 1

    def drop(self, source_id: str, cause: str) -> None:
        """Count an entered frame as dropped."""
        with self._lock:
            account = self._accounts[source_id]
            account.dropped[cause] += 1
            account.in_flight -= 1

    def report(self, source_id: str, name: str) -> None:
        """Count a report about a source."""
        with self._lock:
            self._accounts.setdefault(source_id, Account()).reported[name] += 1

    def count(self, result: Result) -> None:
        """Count the result of an entered frame."""
        latency = result.latency_ms.get("total", 0.0)
        with self._lock:
            account = self._accounts[result.source_id]
            account.verdicts[result.verdict.value] += 1
            if result.verdict is Verdict.UNKNOWN:
                account.unknown[result.cause] += 1
            account.latency[bisect.bisect_left(BUCKETS_MS, latency)] += 1
            account.latency_sum += latency
            self._speed.count(result.latency_ms)
            account.in_flight -= 1

    def snapshot(self) -> Snapshot:
        """Return the totals at one moment, and the same by source, as JSON values."""
        with self._lock:
            by_source = {source: _figures([account]) for source, account in self._accounts.items()}
            return {**_figures(list(self._accounts.values())), "sources": by_source}

    def speed_ms(self) -> dict[str, Percentiles]:
        """Return p50 and p99 of each stage of the inferred frames, see `edgead.runtime.speed.STAGES`."""
        with self._lock:
            return self._speed.percentiles()

    @property
    def captured(self) -> int:
        return self.snapshot()["captured"]

    @property
    def inferred(self) -> int:
        return self.snapshot()["inferred"]

    @property
    def passed(self) -> int:
        return self.snapshot()["passed"]

    @property
    def failed(self) -> int:
        return self.snapshot()["failed"]

    @property
    def unknown(self) -> int:
        return self.snapshot()["unknown"]

    @property
    def dropped(self) -> int:
        return self.snapshot()["dropped"]

    @property
    def in_flight(self) -> int:
        return self.snapshot()["in_flight"]

    def to_prometheus(self) -> str:
        """Return all counts as Prometheus text, with the source as a label."""
        with self._lock:
            lines: list[str] = []
            for name, kind, text in _METRICS:
                lines += [f"# HELP edgead_{name} {text}", f"# TYPE edgead_{name} {kind}"]
                for source, account in self._accounts.items():
                    lines += _samples(name, label("source", source), account)
        return "\n".join(lines) + "\n"


def label(name: str, value: str) -> str:
    """Return a Prometheus label."""
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'{name}="{escaped}"'


def _figures(accounts: list[Account]) -> Figures:
    verdicts, unknown, dropped, reported = (Counter[str]() for _ in range(4))
    for account in accounts:
        verdicts.update(account.verdicts)
        unknown.update(account.unknown)
        dropped.update(account.dropped)
        reported.update(account.reported)
    return {
        "captured": sum(account.captured for account in accounts),
        "inferred": verdicts.total(),
        "passed": verdicts[Verdict.PASS.value],
        "failed": verdicts[Verdict.FAIL.value],
        "unknown": verdicts[Verdict.UNKNOWN.value],
        "dropped": dropped.total(),
        "in_flight": sum(account.in_flight for account in accounts),
        "unknown_by_cause": dict(unknown),
        "dropped_by_cause": dict(dropped),
        "reported_by_cause": dict(reported),
    }


_METRICS = (
    ("frames_captured_total", "counter", "Frames from a source, and errors in place of frames."),
    ("frames_inferred_total", "counter", "Results by verdict."),
    ("frames_unknown_total", "counter", "UNKNOWN results by cause."),
    ("frames_dropped_total", "counter", "Frames without a result by cause."),
    ("source_reports_total", "counter", "Reports about a source by cause; not frames."),
    ("frames_in_flight", "gauge", "Frames between capture and result."),
    ("latency_seconds", "histogram", "Time from picture made to decision."),
)


def _samples(name: str, source: str, account: Account) -> list[str]:
    full = f"edgead_{name}"
    if name == "frames_captured_total":
        return [f"{full}{{{source}}} {account.captured}"]
    if name == "frames_in_flight":
        return [f"{full}{{{source}}} {account.in_flight}"]
    if name == "latency_seconds":
        limits = [*(f"{limit / 1e3:g}" for limit in BUCKETS_MS), "+Inf"]
        counts = [sum(account.latency[: index + 1]) for index in range(len(limits))]
        lines = [f"{full}_bucket{{{source},{label('le', limit)}}} {count}" for limit, count in zip(limits, counts)]
        return [
            *lines,
            f"{full}_sum{{{source}}} {account.latency_sum / 1e3:.6f}",
            f"{full}_count{{{source}}} {counts[-1]}",
        ]
    kind, counted = {
        "frames_inferred_total": ("verdict", {verdict.value: account.verdicts[verdict.value] for verdict in Verdict}),
        "frames_unknown_total": ("cause", dict(account.unknown)),
        "frames_dropped_total": ("cause", dict(account.dropped)),
        "source_reports_total": ("cause", dict(account.reported)),
    }[name]
    return [f"{full}{{{source},{label(kind, key)}}} {count}" for key, count in counted.items()]
