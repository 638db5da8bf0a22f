"""Lives of the line, one after the other: runs each, lets its faults happen, and audits it when it has ended."""

from __future__ import annotations

import math
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from arrived import read_lines, rows_of_database, rows_of_lines
from auditor import BUSY, REPEATED, RESENT, Account, Auditor, Record
from lives import Life
from soak_report import Growth
from soaked_line import Sample, Stuck, floors
from world import World

SAMPLE_EVERY = 0.5
TICK = 0.02
HELD_UP = 1.0
"""Seconds that a tick, or the line's metrics, may take; beyond that this machine counts as busy."""
STILL = 60.0
"""Seconds in which a source or sink must make progress, without a fault of its own meanwhile or shortly before."""
RECOVERY = 25.0
"""Seconds after a fault in which a source or sink may still be away: cameras are opened again every 10 s at most."""
DIES_WITHIN = 5.0
"""Seconds after a line's socket is closed, in which its process goes: else it did not crash, but stands still."""
JUDGED = 120.0
"""Seconds of a life from which on memory and files are judged."""
WARM_UP = 30.0
DRAIN_WITHIN, DRAIN_FPS = 300.0, 2.0
"""Of the last life, which has no faults and few frames."""
MOST_GROWTH_MIB, MOST_NEW_FILES = 24.0, 8
REJECTS_BYTES = 2_000_000
OWN_FAULTS = {
    "rtsp": ("rtsp", "clock"),
    "loop": ("video", "clock"),
    "watch": ("folder", "corrupt", "unfinished"),
    "synthetic": (),
    "record": (),
    "jsonl": ("disk",),
    "sqlite": ("disk", "database"),
    "webhook": ("webhook",),
    "mqtt": ("disk", "broker"),
    "modbus": ("plc",),
}
"""Beginnings of the kinds of faults that may stop a source or sink."""
ALWAYS = ("line", "engine")
Say = Callable[[str], None]


class Soaking:
    """Runs lives.

    Args:
        world: around the line.
        auditor: of everything.
        logs: folder for the logs of lives with violations.
        say: shows progress.

    Attributes:
        faults, ends, reloads, sources, dropped: see `soak_report.SoakReport`.
        sinks: fates by sink.
        growth: of long lives.
        frames, results, lives, seconds: so far; the seconds in which lines ran.
    """

    def __init__(self, world: World, auditor: Auditor, logs: Path, say: Say) -> None:
        self._world, self._auditor, self._logs, self._say = world, auditor, logs, say
        self.faults, self.ends, self.reloads = Counter[str](), Counter[str](), Counter[str]()
        self.sources, self.dropped = Counter[str](), Counter[str]()
        self.sinks: dict[str, Counter[str]] = {}
        self.growth: list[Growth] = []
        self.frames = self.results = self.lives = 0
        self.seconds = 0.0
        self._last_row = self._rejects = 0
        self._samples: list[Sample] = []
        self._progress: dict[str, tuple[int, float]] = {}
        self._owed: dict[int, int] = {}
        self._awaited: dict[str, tuple[int, int]] = {}
        self._early: dict[str, int] = {}

    def run(self, life: Life, fps: float, until: float, done: Callable[[], bool] = lambda: False) -> None:
        """Run a life.

        Args:
            life: its plan.
            fps: of the drawn frames; 0 for as many as the line can take.
            until: moment of `time.monotonic` at which it ends, at the latest.
            done: it may end.
        """
        world, auditor = self._world, self._auditor
        auditor.life, violations = life.number, auditor.counts.total()
        self._samples, self._progress = [], {}
        world.begin(life.first)
        world.troubles.begin("line starts")
        summary: dict[str, Any] | None = None
        began = time.monotonic()
        try:
            self._samples.append(world.line.start(life.number, fps))
            world.troubles.end("line starts")
            began = time.monotonic()
            self._live(life, min(began + life.seconds, until), done)
            self._take_sample()
            summary = self._end(life)
            end = life.end
        except Stuck as reason:
            crashed = not world.line.runs
            auditor.blame("crash" if crashed else "deadlock", f"{reason}; see {self._logs}/log-{life.number}.txt")
            world.line.show_threads()
            end = "violation"
        finally:
            world.line.kill()
            world.mend()
            world.troubles.end("line starts")
            world.troubles.end("line ends")
        self.seconds += time.monotonic() - began
        self.lives, self.ends[end] = self.lives + 1, self.ends[end] + 1
        self._audit(life, summary, began)
        if auditor.counts.total() > violations:
            self._logs.mkdir(parents=True, exist_ok=True)
            shutil.copy(world.line.log, self._logs)
        world.line.log.unlink(missing_ok=True)
        world.troubles.forget(began)
        took, waiting = time.monotonic() - began, self._stored()
        self._say(f"life {life.number}: {end} after {took:.0f} s, {self.frames} frames, {waiting} wait for the broker")

    def _live(self, life: Life, until: float, done: Callable[[], bool]) -> None:
        world, events, began, sampled = self._world, list(life.events), time.monotonic(), 0.0
        while (now := time.monotonic()) < until and not done():
            world.work()
            while events and now - began >= events[0].at:
                event = events.pop(0)
                self.faults[event.kind] += world.strike(event)
            if now - sampled >= SAMPLE_EVERY:
                self._take_sample()
                sampled = now
            asleep = time.monotonic()
            time.sleep(TICK)
            self._note_if_busy(asleep)

    def _note_if_busy(self, began: float) -> None:
        if time.monotonic() - began > HELD_UP:
            self.faults[BUSY] += 1
            self._world.troubles.note(BUSY, began)

    def _take_sample(self) -> None:
        world, now = self._world, time.monotonic()  # not of the tick's begin: the line may have been stopped since
        if not world.line.runs:
            raise Stuck("it has ended by itself")
        if world.troubles.excuse(("line is",), now, now, slack=0.0):
            return
        try:
            sample = world.line.sample()
        except OSError as error:
            reason = "it has ended by itself" if world.line.has_ended(DIES_WITHIN) else f"it does not answer: {error}"
            raise Stuck(reason) from error
        self._note_if_busy(now)
        self._auditor.check_sample(sample, self._samples[-1] if self._samples else None)
        self._samples.append(sample)
        moved = Counter(sample.captured)
        for name, fates in sample.sinks.items():
            moved[self._name(name)] = fates["taken"] + fates["failed"]
        for key, own in OWN_FAULTS.items():
            if key in moved:
                self._check_progress(key, moved[key], own, now)

    def _check_progress(self, key: str, count: int, own: tuple[str, ...], now: float) -> None:
        before, since = self._progress.get(key, (-1, now))
        if count != before:
            self._progress[key] = count, now
        elif now - since > STILL:
            if not self._world.troubles.excuse((*own, *ALWAYS), since, now, slack=RECOVERY):
                self._auditor.blame("deadlock", f"{key} has stood still at {count} for {now - since:.0f} s")
            self._progress[key] = count, now

    def _name(self, sink: str) -> str:
        return next((name for start, name in self._world.sinks.items() if sink.startswith(start)), sink)

    def _end(self, life: Life) -> dict[str, Any] | None:
        """End the line as planned; return its summary if it can tell one."""
        world = self._world
        world.troubles.begin("line ends")
        self.faults[f"end by {life.end}"] += 1
        if life.end == "kill":
            world.line.kill()
            return None
        world.line.signal(signal.SIGCONT)
        code, summary = world.line.end(signal.SIGTERM if life.end == "term" else signal.SIGINT)
        if code not in ((0, 2) if life.end == "term" else (130, 2)) or summary["failed_sources"]:
            self._auditor.blame("crash", f"exit code {code} after {life.end}, {summary['failed_sources']}")
        log = world.line.log.read_text(errors="replace")
        if "Traceback" in log or "did not end within" in log:
            self._auditor.blame("crash", f"its log has an error, see {self._logs}/log-{life.number}.txt")
        self._auditor.check_summary(summary)
        return summary

    def _audit(self, life: Life, summary: Mapping[str, Any] | None, began: float) -> None:
        """Compare what the line has said with what has arrived."""
        world, auditor, last = self._world, self._auditor, self._samples[-1] if self._samples else Sample(began)
        captured = {name: figures["captured"] for name, figures in summary["sources"].items()} if summary else {}
        self.sources.update(captured or last.captured)
        self.frames += sum((captured or last.captured).values())
        self.dropped.update(summary["dropped_by_cause"] if summary else {"of killed lines": last.dropped.total()})
        self.reloads.update(last.reloads)
        accounts = self._accounts(summary, last)
        path = world.line.log.with_name(f"record-{life.number}.jsonl")
        record = auditor.read_record(read_lines(path), world.swaps, killed=summary is None)
        path.unlink(missing_ok=True)
        self.results += len(record.known)
        auditor.check_count("record", len(record.known), accounts["record"])
        self._note("record", accounts["record"], len(record.known))
        auditor.check_images(record, dict(world.images.written), began, ("folder",))
        self._audit_files(life, accounts, record)
        self._audit_receivers(life, accounts, record)
        self._judge_growth(life)

    def _accounts(self, summary: Mapping[str, Any] | None, last: Sample) -> dict[str, Account]:
        accounts = {name: Account(0) for name in self._world.sinks.values()}
        if summary:
            for sink in summary["sinks"]:
                counts = sink["taken"], sink["failed"], sink["dropped"], sink["offered"]
                accounts[self._name(sink["sink"])] = Account(*counts, details=sink)
        else:
            for name, fates in last.sinks.items():
                accounts[self._name(name)] = Account(fates["taken"], details=fates)
        return accounts

    def _audit_files(self, life: Life, accounts: Mapping[str, Account], record: Record) -> None:
        world, auditor = self._world, self._auditor
        path = world.disk / f"results-{life.number}.jsonl"
        lines, damaged = rows_of_lines(read_lines(path))
        path.unlink(missing_ok=True)
        there = auditor.check_rows("jsonl", iter(lines), accounts["jsonl"], record.known, damaged)
        self._note("jsonl", accounts["jsonl"], there)
        rows, self._last_row = rows_of_database(world.database, self._last_row)
        there = auditor.check_rows("sqlite", iter(rows), accounts["sqlite"], record.known)
        self._note("sqlite", accounts["sqlite"], there)
        self._rejects = auditor.check_rejects(world.rejects, accounts["rejects"], self._rejects, REJECTS_BYTES)
        self._note("rejects", accounts["rejects"], self._rejects)

    def _audit_receivers(self, life: Life, accounts: Mapping[str, Account], record: Record) -> None:
        world, auditor = self._world, self._auditor
        got, again = world.webhook.inbox.empty()
        auditor.check_count("webhook", len(got), accounts["webhook"])
        repeated = auditor.check_delivered("webhook", got, again, record.known, REPEATED)
        self._note("webhook", accounts["webhook"], len(got), repeated)
        shown = len(world.plc.acknowledged)
        auditor.check_count("modbus", shown, accounts["modbus"], most=False)
        self._note("modbus", accounts["modbus"], shown)
        if world.broker:
            self._owed[life.number] = accounts["mqtt"].taken
            self._awaited.update({identity: (life.number, checksum) for identity, checksum in record.known.items()})
            there, repeated = self._match_delivered()
            self._note("mqtt", accounts["mqtt"], there, repeated)

    def _match_delivered(self) -> tuple[int, int]:
        """Compare what came by MQTT with what lives of the line have decided, also earlier ones."""
        assert self._world.broker
        got, again = self._world.broker.inbox.empty()
        known = {identity: checksum for identity, (_, checksum) in self._awaited.items()}
        repeated = self._auditor.check_delivered("mqtt", got, again, known, RESENT)
        self._early.update(got)
        for identity in self._early.keys() & self._awaited.keys():
            life, checksum = self._awaited.pop(identity)
            if self._early.pop(identity) != checksum:
                self._auditor.blame("altered", f"mqtt: {identity} differs from the record")
            self._owed[life] -= 1
        return len(got), repeated

    def finish(self, number: int) -> None:
        """Let everything arrive that waits for the broker, with a line without faults.

        Args:
            number: of its life.
        """
        if not self._world.broker:
            return
        drain = Life(number, DRAIN_WITHIN, 1, (), "term")
        self.run(drain, DRAIN_FPS, math.inf, lambda: len(self._samples) > 2 and not self._stored())
        time.sleep(1.0)
        there, repeated = self._match_delivered()
        self.sinks["mqtt"].update(there=there, again=repeated)
        self._auditor.check_owed("mqtt", self._owed, len(self._early), self._stored())

    def _stored(self) -> int:
        return next((fates["stored"] for name, fates in self._last_sinks() if self._name(name) == "mqtt"), 0)

    def _last_sinks(self) -> Iterable[tuple[str, Counter[str]]]:
        return self._samples[-1].sinks.items() if self._samples else ()

    def _note(self, sink: str, account: Account, there: int, again: int = 0) -> None:
        fates = self.sinks.setdefault(sink, Counter())
        fates.update(taken=account.taken, failed=account.failed or 0, dropped=account.dropped or 0)
        fates.update(there=there, again=again)

    def _judge_growth(self, life: Life) -> None:
        """Memory and files of a long life must not grow: see `floors`."""
        if not self._samples or self._samples[-1].at - self._samples[0].at < JUDGED:
            return
        warm = [sample for sample in self._samples if sample.at > self._samples[0].at + WARM_UP]
        rss, files = floors(warm, lambda sample: sample.rss_mib), floors(warm, lambda sample: sample.files)
        peak = max(sample.rss_mib for sample in self._samples)
        growth = Growth(
            life.number,
            self._samples[-1].captured.total(),
            round(rss[1] - rss[0], 1),
            files[1] - files[0],
            round(peak, 1),
        )
        self.growth.append(growth)
        self._auditor.check_growth(growth, MOST_GROWTH_MIB, MOST_NEW_FILES)
