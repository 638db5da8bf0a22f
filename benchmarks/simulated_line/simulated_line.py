"""A simulated line: parts with known truth, a PLC that polls, and faults from a seed. Counts what must not be.

    python benchmarks/simulated_line/simulated_line.py --parts 1000000 --seed 1 --out FILE

`edgead run` runs as a process of its own with an HTTP trigger, a camera that knows when its pictures were made, and a
Modbus server; a PLC polls that over a real connection. Lives of the line alternate between one with three products,
which changes over, and one with a single bundle, which is replaced (HUP). Each but the last ends with ``kill -9``.

Exit code 1: a part was lost, doubled or swapped, or the PLC read a stale PASS.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from conveyor import IN_FLIGHT, Conveyor
from faults import FAULTS_A_LIFE, OFTEN, plan_life, plan_lives, plan_quiet
from judge import NAMES, Judge, Part
from line_camera import SimulatedCamera
from line_process import RULES, TIMING, LineProcess
from simulated_plc import SimulatedPlc

from edgead import schema
from edgead.benchmark.latency import percentiles
from edgead.benchmark.report import Percentiles
from edgead.decision import Verdict
from edgead.errors import EdgeadError
from edgead.files import write_json
from edgead.line.outputs.modbus_plc import PollingPlc
from edgead.line.outputs.register_map import VERDICTS
from edgead.line.outputs.simulate import Plc
from edgead.machine import Machine, describe_measurement

QUIET_PARTS = 2000
SAMPLES = 100_000
"""Latencies of parts among faults that are kept, at most."""
Say = Callable[[str], None]


@dataclass
class Latency:
    """From the trigger to the register, milliseconds.

    Attributes:
        trigger_to_register: from sending the trigger until the PLC had read the verdict.
        engine: of that, the engine's own time.
        above_engine: the difference, part by part.
        parts: number of parts behind it.
    """

    trigger_to_register: Percentiles
    engine: Percentiles
    above_engine: Percentiles
    parts: int


@dataclass(frozen=True)
class Conditions:
    """How it ran.

    Attributes:
        parts: that came, without those of the quiet life.
        planned: parts that the seed has planned; more than came if the time was limited.
        lives: of the line, each but the last ended by ``kill -9``.
        in_flight: parts between trigger and answer, at most.
        part_rules, plc_output: settings, milliseconds.
        shares, events_a_life: how often faults were planned; events at most.
        load_average: of the minute before.
    """

    parts: int
    planned: int
    seed: int
    lives: int
    in_flight: int
    part_rules: dict[str, int]
    plc_output: dict[str, int]
    shares: dict[str, float]
    events_a_life: dict[str, int]
    load_average: float


@dataclass
class SimulatedLineReport:
    """The results file. `schema` is its version.

    Attributes:
        violations: ``lost``, ``doubled``, ``swapped`` parts and ``stale`` PASS; all must be 0.
        announced: triggers that were sent. Each part has one fate.
        fates: ``answered``; ``missed``, because the PLC did not read for the whole hold time; ``cut``, in flight when
            the line was killed; ``refused``, the line was dead.
        unknown: answers that were UNKNOWN, by cause.
        unexplained: ``no_frame`` of parts whose picture came at once: this machine was so busy
            that the picture was made after the part's window.
        faults: how often each happened.
        records: results in the file of the line's JSONL sink; ``other`` are those that differ from what the PLC read,
            ``missing`` those that it read and the file lacks.
        polls: of the PLC.
        notes: about violations.
        quiet: latency without faults, one part at a time; ``among_faults`` with them.
        changeover_ms: from the request for a warm product to its answer, after which it decides.
        hot_swap_ms: from HUP until the PLC read an answer of the new bundle, which is loaded meanwhile.
        start_s: from the start of the process until the PLC found it alive, median.
        parts_per_second: while parts came, faults included.
        seconds: of everything.
    """

    schema: int
    created: str
    command: str
    machine: Machine
    versions: dict[str, str]
    conditions: Conditions
    violations: dict[str, int]
    announced: int
    fates: dict[str, int]
    unknown: dict[str, int]
    unexplained: int
    faults: dict[str, int]
    records: dict[str, int]
    polls: int
    notes: list[str]
    quiet: Latency | None
    among_faults: Latency | None
    changeover_ms: Percentiles | None
    changeover_max_ms: float | None
    hot_swap_ms: Percentiles | None
    start_s: float
    parts_per_second: float
    seconds: float


@dataclass
class Times:
    """Samples of latencies, seconds."""

    total: list[float] = field(default_factory=list)
    engine: list[float] = field(default_factory=list)

    def describe(self) -> Latency | None:
        """Return their percentiles; None without samples."""
        if not self.total:
            return None
        above = [one - other for one, other in zip(self.total, self.engine)]
        total, engine, rest = (percentiles([1e3 * one for one in each]) for each in (self.total, self.engine, above))
        return Latency(total, engine, rest, len(above))


def simulate_line(
    parts: int,
    seed: int,
    folder: Path,
    *,
    quiet_parts: int = QUIET_PARTS,
    minutes: float = math.inf,
    say: Say = lambda text: None,
    connect: Callable[[str, int], Plc] = PollingPlc,
) -> SimulatedLineReport:
    """Run the simulation.

    Args:
        parts: with faults.
        seed: the same one gives the same parts and faults.
        folder: for the line's files.
        quiet_parts: without faults, before.
        minutes: no life begins after so many.
        say: shows progress.
        connect: opens the PLC's connection, see `SimulatedPlc`.

    Raises:
        EdgeadError: the line does not start, answer or end.
    """
    began, head = time.monotonic(), describe_measurement("benchmarks/simulated_line/simulated_line.py")
    judge, lives = Judge(), plan_lives(parts) if parts else []
    quiet, busy, records, done = Times(), Times(), Counter[str](), list[int]()
    with ExitStack() as stack:
        camera = stack.enter_context(closing(SimulatedCamera()))
        line = stack.enter_context(closing(LineProcess(folder, camera.port)))
        plc = stack.enter_context(closing(SimulatedPlc(line.plc, judge, connect)))
        plc.begin()
        conveyor = Conveyor(line, camera, plc, judge)
        if quiet_parts:
            conveyor.run(plan_quiet(seed, quiet_parts))
            _compare(line.results, conveyor.parts, quiet, records)
            _foretell(conveyor.seen.busy, quiet_parts, parts, len(lives), say)
            conveyor.seen.busy = 0.0
        for number, count in lives:
            if time.monotonic() - began > 60 * minutes:
                break
            conveyor.run(plan_life(seed, number, count, number == lives[-1][0]))
            _compare(line.results, conveyor.parts, busy, records)
            line.results.unlink()
            done.append(count)
            say(f"life {number + 1} of {len(lives)}: {_counts(judge)}")
        seen, polls = conveyor.seen, plc.polls
    return SimulatedLineReport(
        schema=1,
        **vars(head),
        conditions=Conditions(
            sum(done), parts, seed, len(done), IN_FLIGHT, RULES, TIMING, OFTEN, FAULTS_A_LIFE, head.machine.load_before
        ),
        violations={name: judge.counts[name] for name in NAMES},
        announced=judge.counts["announced"],
        fates={name: judge.counts[name] for name in ("answered", "missed", "cut", "refused")},
        unknown=dict(judge.unknown),
        unexplained=records.pop("unexplained"),
        faults=dict(seen.faults),
        records=dict(records),
        polls=polls,
        notes=judge.notes,
        quiet=quiet.describe(),
        among_faults=busy.describe(),
        changeover_ms=_milliseconds(seen.changeover),
        changeover_max_ms=round(1e3 * max(seen.changeover), 3) if seen.changeover else None,
        hot_swap_ms=_milliseconds(seen.hot_swap),
        start_s=round(sorted(seen.start)[len(seen.start) // 2], 2),
        parts_per_second=round(sum(done) / seen.busy, 1) if done else 0.0,
        seconds=round(time.monotonic() - began, 1),
    )


def _foretell(seconds: float, quiet_parts: int, parts: int, lives: int, say: Say) -> None:
    """Say how long it will take: a start of 2 s and faults of 3 s for each life, and the pace of the quiet parts."""
    pace = quiet_parts / seconds
    say(
        f"{pace:.0f} parts a second; {parts} parts in {lives} lives will take about "
        f"{(parts / pace + 5 * lives) / 60:.0f} minutes."
    )


def _compare(results: Path, parts: list[Part], times: Times, records: Counter[str]) -> None:
    """Compare what the line has recorded with what the PLC has read."""
    codes = {verdict.value: code for verdict, code in VERDICTS.items() if verdict}
    own: dict[str, tuple[int, float, str]] = {}
    lines = results.read_bytes().splitlines(keepends=True)
    for line in lines:
        if not line.endswith(b"\n"):
            records["broken off"] += 1  # by the kill
            continue
        value = json.loads(line)
        if value["part_id"] in own:
            records["doubled"] += 1
        if value["part_id"]:
            engine = value["latency_ms"].get("infer", -1.0) / 1e3
            own[value["part_id"]] = codes[value["verdict"]], engine, str(value["cause"])
    records["written"] += len(own)
    for part in parts:
        verdict, engine, cause = own.get(part.id, (0, -1.0, ""))
        if not part.verdict:
            continue
        records["unexplained"] += part.shown and cause == "no_frame"
        if not verdict:
            records["missing"] += 1
        elif verdict != part.verdict and part.verdict != VERDICTS[Verdict.UNKNOWN]:  # late on its way to the PLC
            records["other"] += 1
        if engine >= 0 and len(times.total) < SAMPLES:
            times.total.append(part.read - part.sent)
            times.engine.append(engine)


def _milliseconds(seconds: list[float]) -> Percentiles | None:
    return percentiles([1e3 * one for one in seconds]) if seconds else None


def _counts(judge: Judge) -> str:
    return ", ".join(f"{count} {name}" for name, count in judge.counts.items() if count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quiet-parts", type=int, default=QUIET_PARTS, help="without faults before, for the latency")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no further life after so many")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = simulate_line(
            options.parts,
            options.seed,
            Path(folder),
            quiet_parts=options.quiet_parts,
            minutes=options.minutes,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
    write_json(options.out, schema.write(report))
    violated = {name: count for name, count in report.violations.items() if count}
    print(f"{report.announced} parts: {report.fates}; violations: {violated or 'none'}")
    if violated:
        print(*report.notes, sep="\n", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    try:
        main()
    except EdgeadError as error:
        sys.exit(f"Error: {error}")
