"""Compares what the line says with what has arrived. Every check is a function of its own inputs, so tests can lie.

A result is acknowledged when the line counts it as taken by a sink: from then on it must be where that sink puts it,
whatever happens later. Of a killed line the last sample before the kill counts.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arrived import parse
from latency import Latencies
from pictures import read_score
from receivers import Again
from soak_report import Growth
from soaked_line import Sample
from troubles import Troubles

NAMES = ("ledger", "lost", "doubled", "altered", "deadlock", "crash", "memory", "files")
"""What must not be."""
NOTES = 40
BUSY = "machine is busy"
"""A fault of its own: the test, or a look at the metrics, was held up for `soaking.HELD_UP` seconds."""
RESENT = ("line", "broker", "disk", BUSY)
"""Faults after which MQTT may send a result again: it was not acknowledged, or that could not be noted."""
REPEATED = ("line is stopped", BUSY)
"""Faults after which a webhook may get a result again although it has answered: the answer came too late."""
ATTEMPT = 5.0
"""Seconds of a webhook's attempt, after which the result is sent again."""
DISTURBED = ("engine", "line", "hot swap", "swap", "clock")
"""Faults that may delay decisions. All others are those of sources and sinks, which must not."""


@dataclass
class Account:
    """What the line says of a sink at the end of a life.

    Attributes:
        taken: acknowledged results, at least.
        failed, dropped: the others; None if the line was killed.
        offered: all; None likewise.
        details: further figures.
    """

    taken: int
    failed: int | None = None
    dropped: int | None = None
    offered: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Record:
    """What the record, a JSONL file on a disk without faults, says of a life.

    Attributes:
        known: checksum of each result by its id.
        images: number of results of each image of the watched folder, by file name, and ``moments`` when they came.
    """

    known: dict[str, int] = field(default_factory=dict)
    images: Counter[str] = field(default_factory=Counter)
    moments: dict[str, float] = field(default_factory=dict)


class Auditor:
    """Counts what must not be.

    Attributes:
        counts: by `NAMES`.
        notes: about the first of them.
        checks: how often each was checked.
        unknown: UNKNOWN results by cause.
        verdicts: results by verdict.
        all_latency: of inferred frames; ``undisturbed`` of those that no fault of line or engine may have delayed.
    """

    def __init__(self, troubles: Troubles) -> None:
        self.counts: Counter[str] = Counter()
        self.checks: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.notes: list[str] = []
        self.all_latency, self.undisturbed = Latencies(), Latencies()
        self.life = 0
        self._troubles = troubles

    def blame(self, name: str, text: str) -> None:
        """Count something that must not be."""
        self.counts[name] += 1
        if len(self.notes) < NOTES:
            self.notes.append(f"{name}: life {self.life}: {text}")

    def check_sample(self, sample: Sample, before: Sample | None) -> None:
        """The equation of the ledger holds for each source at one moment, and no counter decreases."""
        self.checks["ledger"] += 1
        for source, captured in sample.captured.items():
            parts = sample.results[source], sample.dropped[source], sample.in_flight[source]
            if captured != sum(parts) or min(parts) < 0:
                self.blame("ledger", f"{source}: {captured} captured, {parts} inferred, dropped and in flight")
            if sample.unknown[source] != sample.by_cause[source]:
                self.blame("ledger", f"{source}: {sample.unknown[source]} UNKNOWN, {sample.by_cause[source]} by cause")
        for source, captured in (before.captured if before else {}).items():
            if sample.captured[source] < captured:
                self.blame("ledger", f"{source}: {captured} captured, later {sample.captured[source]}")

    def check_summary(self, summary: Mapping[str, Any]) -> None:
        """At the end nothing is in flight, and the figures of sources and sinks add up."""
        self.checks["summary"] += 1
        for name, figures in {"all": summary, **summary["sources"]}.items():
            parts = figures["inferred"], figures["dropped"], figures["in_flight"]
            verdicts = figures["passed"] + figures["failed"] + figures["unknown"]
            by_cause = sum(figures["unknown_by_cause"].values()), sum(figures["dropped_by_cause"].values())
            if figures["captured"] != sum(parts) or parts[2] or verdicts != parts[0]:
                self.blame("ledger", f"{name}: {figures['captured']} captured, {parts}, {verdicts} verdicts")
            if by_cause != (figures["unknown"], figures["dropped"]):
                self.blame("ledger", f"{name}: {by_cause} by cause, {figures['unknown']}, {figures['dropped']}")
        if summary["captured"] != sum(figures["captured"] for figures in summary["sources"].values()):
            self.blame("ledger", "the sources do not add up")
        for sink in summary["sinks"]:
            fates = sink["taken"], sink["failed"], sink["dropped"], sink["waiting"]
            if sink["offered"] != sum(fates) or sink["waiting"]:
                self.blame("ledger", f"{sink['sink']}: {sink['offered']} offered, {fates}")
            if sink["dropped"] != sum(sink["dropped_by_cause"].values()):
                self.blame("ledger", f"{sink['sink']}: {sink['dropped']} dropped, {sink['dropped_by_cause']}")

    def read_record(self, lines: Sequence[bytes], swaps: Sequence[int], killed: bool) -> Record:
        """Read the results of a life, in the order of their decisions, and check each for itself."""
        record, numbers, bundles = Record(), dict[str, int](), list[str]()
        for place, line in enumerate(lines):
            value = parse(line)
            if value is None:
                if not (killed and place == len(lines) - 1):
                    self.blame("altered", f"record: line {place + 1} is damaged")
                continue
            if value["id"] in record.known:
                self.blame("doubled", f"record: {value['id']} is there twice")
            record.known[value["id"]] = zlib.crc32(line.rstrip(b"\n"))
            self.verdicts[value["verdict"]] += 1
            self._check_result(value)
            self._check_order(value, numbers)
            if value["bundle"] not in bundles[-1:]:
                bundles.append(value["bundle"])
            if value["source_id"] == "watch" and value["path"]:
                name = Path(value["path"]).name
                record.images[name] += 1
                record.moments[name] = value["t_capture"]
        self._check_bundles(bundles, [f"bundle-{number}" for number in swaps])
        return record

    def _check_result(self, value: Mapping[str, Any]) -> None:
        score = value["score"]
        if value["verdict"] == "UNKNOWN":
            self.unknown[value["cause"]] += 1
        elif score is None or (score > value["threshold"]) != (value["verdict"] == "FAIL"):
            self.blame("altered", f"{value['id']}: {value['verdict']} with score {score}")
        if score is None:
            return
        if f"bundle-{read_score(score)[1]}" != value["bundle"]:
            self.blame("altered", f"{value['id']}: the score {score} is not of {value['bundle']}")
        if "infer" in value["latency_ms"]:
            taken, total = value["t_capture"], value["latency_ms"]["total"]
            self.all_latency.add(total)
            if not self._troubles.excuse(DISTURBED, taken, taken + total / 1e3, slack=2.0):
                self.undisturbed.add(total)

    def _check_order(self, value: Mapping[str, Any], numbers: dict[str, int]) -> None:
        source, number = value["source_id"], value["frame_id"]
        if number is not None:
            if number <= numbers.get(source, -1):
                self.blame("doubled", f"{source}: frame {number} after frame {numbers[source]}")
            numbers[source] = number

    def _check_bundles(self, decided: Sequence[str], offered: Sequence[str]) -> None:
        """Bundles decide in the order in which they were offered; one may be passed over."""
        rest = iter(offered)
        for bundle in decided:
            if bundle not in rest:
                self.blame("altered", f"{bundle} decides out of turn: offered {list(offered)}, decided {list(decided)}")
                return

    def check_images(self, record: Record, written: Mapping[str, float], began: float, excuses: tuple[str, ...]) -> int:
        """Every intact image has one result; return how many were checked.

        Left out are those of the life's first second and of the last seconds before its last image.
        """
        for name, count in record.images.items():
            if name in written and count > 1:
                self.blame("doubled", f"{name} has {count} results")
        last = max((written.get(name, 0.0) for name in record.images), default=0.0)
        due = [name for name, at in written.items() if began + 1.0 < at < last - 15.0]
        for name in due:
            if not record.images[name] and not self._troubles.excuse(excuses, written[name] - 1, written[name] + 1):
                self.blame("lost", f"the image {name} has no result")
        self.checks["images"] += len(due)
        return len(due)

    def check_rows(
        self, sink: str, rows: Iterator[tuple[str, bytes]], account: Account, known: Mapping[str, int], damaged: int = 0
    ) -> int:
        """A file or database has all acknowledged results, once each and unchanged; return how many it has.

        Args:
            sink: its name.
            rows: id and text of each.
            account: what the line says.
            known: checksums of the record.
            damaged: rows that cannot be read.
        """
        there = set[str]()
        for identity, text in rows:
            if identity in there:
                self.blame("doubled", f"{sink}: {identity} is there twice")
            there.add(identity)
            self._compare(sink, identity, zlib.crc32(text), known)
        self.check_count(sink, len(there), account)
        excess = account.failed if account.failed is not None else damaged
        if damaged > excess + 1:
            self.blame("altered", f"{sink}: {damaged} rows are damaged, {account.failed} have failed")
        return len(there)

    def check_count(self, sink: str, there: int, account: Account, most: bool = True) -> None:
        """As many results are there as the line says, at least; after a clean end no more than may have arrived."""
        self.checks[sink] += account.taken
        if there < account.taken:
            self.blame("lost", f"{sink}: {account.taken} were taken, {there} are there")
        uncertain = (account.failed or 0) + (account.dropped or 0)
        if most and account.offered is not None and there > account.taken + uncertain:
            self.blame("ledger", f"{sink}: {account.taken} were taken and {uncertain} not, {there} are there")

    def check_delivered(
        self,
        sink: str,
        got: Mapping[str, int],
        again: Sequence[Again],
        known: Mapping[str, int],
        excuses: tuple[str, ...],
    ) -> int:
        """What a receiver got is unchanged, and came again only where that is documented; return how often it did."""
        for identity, checksum in got.items():
            self._compare(sink, identity, checksum, known)
        for one in again:
            if not one.same:
                self.blame("altered", f"{sink}: {one.id} came again with other content")
            if not self._troubles.excuse(excuses, one.before - ATTEMPT, one.now):
                apart = f"{one.now - one.before:.1f} s after it was confirmed"
                self.blame("doubled", f"{sink}: {one.id} came again {apart}, without a reason")
        return len(again)

    def _compare(self, sink: str, identity: str, checksum: int, known: Mapping[str, int]) -> None:
        if identity in known and known[identity] != checksum:
            self.blame("altered", f"{sink}: {identity} differs from the record")

    def check_owed(self, sink: str, owed: Mapping[int, int], unknown: int, stored: int) -> None:
        """When all has arrived, no life has fewer results there than it said.

        Args:
            sink: its name.
            owed: results that each life has taken, less those that came and are in its record.
            unknown: results that came and are in no record: the line was killed before it could write them there.
            stored: results that still wait in the line's store.
        """
        missing = {life: count for life, count in owed.items() if count > 0}
        if sum(missing.values()) > unknown + stored:
            self.blame("lost", f"{sink}: {missing} of lives, {unknown} of unknown lives came, {stored} wait")

    def check_growth(self, growth: Growth, most_mib: float, most_files: float) -> None:
        """The floor of memory and files is the same late in a long life as in its middle."""
        self.checks["long lives"] += 1
        if growth.rss_mib > most_mib:
            self.blame("memory", f"it grew by {growth.rss_mib} MiB in a third of {growth.frames} frames")
        if growth.files > most_files:
            self.blame("files", f"{growth.files:g} more are open after a third of {growth.frames} frames")

    def check_rejects(self, folder: Path, account: Account, before: int, most_bytes: int) -> int:
        """Rejects are whole and their folder keeps its limit; return how many there are."""
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        whole = [name for name in names if name.endswith(".json")]
        stems = {name.removesuffix(".json") for name in whole}
        pictures = {name.removesuffix(".png") for name in names if name.endswith(".png") and ".overlay" not in name}
        alone = pictures - stems
        for name in whole:
            if parse((folder / name).read_bytes()) is None:
                self.blame("altered", f"rejects: {name} is damaged")
        if account.offered is not None:
            expected = before + account.taken - int(account.details.get("deleted", 0))
            if len(whole) != expected:
                self.blame("lost" if len(whole) < expected else "ledger", f"rejects: {len(whole)}, not {expected}")
            self.checks["rejects"] += account.taken
        size = sum(path.stat().st_size for path in folder.iterdir()) if folder.is_dir() else 0
        if size > 1.2 * most_bytes or len(alone) > self.life + 1:
            self.blame("files", f"rejects: {size} bytes, {len(alone)} without their result")
        return len(whole)
