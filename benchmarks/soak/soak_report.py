"""The results file of the soak test. Runs add up in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from latency import Latencies

from edgead import schema
from edgead.files import write_json
from edgead.machine import Machine


@dataclass(frozen=True)
class Sitting:
    """One call of the program.

    Attributes:
        seed: of the faults.
        first, lives: number of the first life, and how many there were.
        frames, seconds: captured, and of everything.
        load_average: of the minute before.
        notes: about violations.
    """

    created: str
    command: str
    seed: int
    first: int
    lives: int
    frames: int
    seconds: float
    load_average: float
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Growth:
    """Of a long life: the floor of its last third less that of its second third.

    Attributes:
        life, frames: its number, and how many it captured.
        rss_mib, files: growth; ``peak_mib`` is the largest memory.
    """

    life: int
    frames: int
    rss_mib: float
    files: float
    peak_mib: float


@dataclass
class SoakReport:
    """The results file. `schema` is its version.

    Attributes:
        violations: of each kind; all must be 0.
        checks: how often the ledger was compared, and how many acknowledged results were looked for in each sink.
        frames, results: captured, and in the record.
        lives, ends: starts of the line, and how they ended: ``kill``, ``term``, ``int``, ``violation``.
        faults: how often each happened; ``missing`` cannot happen on this machine, and why.
        reloads: ``done`` and ``refused``.
        sources: captured frames by source; ``dropped`` those without a result.
        verdicts, unknown: results by verdict, UNKNOWN by cause.
        sinks: what became of results: ``taken`` (of killed lives, at the last sample), ``failed`` and ``dropped`` (of
            the others), ``there``, and ``again``, those that came again for a documented reason.
        latency_ms: from when a frame was taken to its decision, of inferred frames: ``all``, and ``undisturbed`` by
            faults of the line and the engine. Faults of sources and sinks never count as a disturbance.
        latency_bins: the same as counts, so that runs add up.
        growth: of each long life.
        frames_per_second: while lines ran.
        sittings: calls whose results are added up here.
    """

    schema: int = 1
    created: str = ""
    machine: Machine | None = None
    versions: dict[str, str] = field(default_factory=dict)
    fps: dict[str, float] = field(default_factory=dict)
    violations: dict[str, int] = field(default_factory=dict)
    checks: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    results: int = 0
    lives: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    reloads: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    sinks: dict[str, dict[str, int]] = field(default_factory=dict)
    latency_ms: dict[str, dict[str, float | None]] = field(default_factory=dict)
    latency_bins: dict[str, dict[str, int]] = field(default_factory=dict)
    growth: list[Growth] = field(default_factory=list)
    running_seconds: float = 0.0
    frames_per_second: float = 0.0
    sittings: list[Sitting] = field(default_factory=list)

    def complete(self) -> SoakReport:
        """Fill in what follows from the rest."""
        bins = {name: Latencies(counts) for name, counts in self.latency_bins.items()}
        shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
        self.latency_ms = {
            name: {label: each.percentile(share) for label, share in shares.items()} for name, each in bins.items()
        }
        self.frames_per_second = round(self.frames / self.running_seconds, 1) if self.running_seconds else 0.0
        return self


_COUNTED = (
    *("violations", "checks", "ends", "faults", "reloads", "sources", "dropped", "verdicts", "unknown"),
    *("frames", "results", "lives", "running_seconds", "growth", "sittings"),
)
_COUNTED_BY_NAME = ("sinks", "latency_bins")


def add(before: SoakReport | None, now: SoakReport) -> SoakReport:
    """Return the sum of two reports. What is not counted is that of the later one."""
    if before is not None:
        for name in _COUNTED:
            old, new = getattr(before, name), getattr(now, name)
            setattr(now, name, _sum(old, new) if isinstance(old, dict) else old + new)
        for name in _COUNTED_BY_NAME:
            old, new = getattr(before, name), getattr(now, name)
            setattr(now, name, {key: _sum(old.get(key, {}), new.get(key, {})) for key in {**old, **new}})
    now.running_seconds = round(now.running_seconds, 1)
    return now.complete()


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    total = Counter(one)
    total.update(other)
    return dict(total)


def read_report(path: Path) -> SoakReport | None:
    """Read a results file; None if it is not there."""
    return schema.read(SoakReport, schema.load_json(path)) if path.exists() else None


def write_report(path: Path, report: SoakReport) -> None:
    """Write a results file."""
    write_json(path, schema.write(report))


def next_life(report: SoakReport | None, seed: int) -> int:
    """Return the number of the first life of a seed that no sitting has had."""
    sittings = report.sittings if report else []
    return max([sitting.first + sitting.lives for sitting in sittings if sitting.seed == seed], default=0)
