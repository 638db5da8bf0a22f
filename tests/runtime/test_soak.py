"""The soak test of benchmarks/: a short form of it, and proof that each of its checks can fail."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("pymodbus.client", reason="no pymodbus (pip install 'edgead[modbus]')")
pytest.importorskip("paho.mqtt.client", reason="no paho-mqtt (pip install 'edgead[mqtt]')")
pytest.importorskip("av", reason="no PyAV (pip install 'edgead[rtsp]')")
sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "soak"))
sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "simulated_line"))

from arrived import read_lines, rows_of_lines
from auditor import NAMES, REPEATED, Account, Auditor
from latency import Latencies
from lives import KINDS, Event, Life, plan_life
from pictures import score_of
from receivers import Again, Inbox
from soak_report import Growth, SoakReport, add, next_life, read_report
from soaked_line import Sample, floors, read_metrics
from soaking import Soaking
from troubles import Troubles
from world import World

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_a_short_soak_finds_nothing(tmp_path: Path) -> None:
    out, logs = tmp_path / "soak.json", tmp_path / "logs"
    command = [sys.executable, str(ROOT / "benchmarks" / "soak" / "soak.py"), "--out", str(out), "--logs", str(logs)]
    asked = ["--seed", "3", "--lives", "2", "--life-seconds", "10", "--fps", "50"]
    done = subprocess.run([*command, *asked], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    report = read_report(out)
    assert report
    assert not any(report.violations.values())
    planned = Counter(event.kind for number in (0, 1) for event in plan_life(3, number, 10.0).events)
    assert sum(planned.values()) > 4
    possible = {kind: count for kind, count in planned.items() if not kind.startswith(tuple(report.missing))}
    assert possible.items() <= report.faults.items()
    assert {"kill", "term"} <= set(report.ends)
    assert report.checks["ledger"] > 10
    assert report.checks["summary"] >= 1
    for name in ("record", "jsonl", "sqlite", "rejects", "webhook", "modbus"):
        assert report.sinks[name]["there"], name
        assert report.checks[name], name
    assert {"synthetic", "loop", "watch"} <= {name for name, count in report.sources.items() if count}
    assert next_life(report, 3) == 2


class Tampered(Soaking):
    """Takes away, repeats and changes what has arrived, before it is audited."""

    def _audit(self, life: Life, summary: Any, began: float) -> None:
        world = self._world
        record = read_lines(world.line.log.with_name(f"record-{life.number}.jsonl"))
        path = world.disk / f"results-{life.number}.jsonl"
        lines = read_lines(path)
        path.write_bytes(b"".join([lines[1], lines[2], lines[2], lines[3].replace(b"schema", b"Schema"), *lines[6:]]))
        inbox = world.webhook.inbox
        got = next(iter(inbox._got[0].items()))
        del inbox._got[0][got[0]]
        world.webhook.inbox._again.append(Again(json.loads(record[5])["id"], began - 99.0, began - 98.0, True))
        world.plc.acknowledged.clear()
        next(world.rejects.glob("*.json")).unlink()
        if world.broker:
            inbox = world.broker.inbox
            time.sleep(1.0)
            inbox._got[0] = {identity: inbox._got[0][identity] for identity in list(inbox._got[0])[3:]}
        super()._audit(life, summary, began)


@pytest.mark.long
def test_what_is_taken_away_repeated_or_changed_is_named(tmp_path: Path) -> None:
    world = World(tmp_path, 25.0)
    auditor = Auditor(world.troubles)
    soaking = Tampered(world, auditor, tmp_path / "logs", lambda text: None)
    try:
        soaking.run(Life(0, 4.0, 1, (), "term"), 50.0, time.monotonic() + 60)
        auditor.check_owed("mqtt", soaking._owed, 0, 0)
    finally:
        world.close()
    notes = "\n".join(auditor.notes)
    for what in ("lost: life 0: jsonl", "doubled: life 0: jsonl", "altered: life 0: jsonl", "lost: life 0: webhook"):
        assert what in notes, notes
    for what in ("doubled: life 0: webhook", "lost: life 0: modbus", "lost: life 0: rejects"):
        assert what in notes, notes
    assert "ledger" not in notes
    assert "sqlite" not in notes
    assert not world.broker or "lost: life 0: mqtt" in notes
    assert list((tmp_path / "logs").iterdir())


def once(act: Callable[[], object]) -> Callable[[], bool]:
    """Return what never ends a life, and acts when it is first asked."""
    left = [act]

    def done() -> bool:
        if left:
            left.pop()()
        return False

    return done


@pytest.mark.long
def test_a_line_that_dies_stands_still_or_shows_an_error_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soaked_line.ANSWER_WITHIN", 2.0)
    world = World(tmp_path, 25.0)
    line, auditor = world.line, Auditor(world.troubles)
    soaking = Soaking(world, auditor, tmp_path / "logs", lambda text: None)

    def write_error() -> None:
        with line.log.open("a") as log:
            log.write("\n" * 10_000 + "Traceback (most recent call last):\n")  # beyond what the line itself writes

    acts = [lambda: line.signal(signal.SIGKILL), lambda: line.signal(signal.SIGSTOP), write_error]
    found = []
    try:
        for number, act in enumerate(acts):
            before, noted = auditor.counts.copy(), len(auditor.notes)
            soaking.run(Life(number, 2.0, 1, (), "term"), 25.0, time.monotonic() + 60, once(act))
            found.append((dict(auditor.counts - before), auditor.notes[noted:]))
    finally:
        world.close()
    (died, (died_note,)), (stood, (stood_note,)), (erred, (error_note,)) = found
    assert (died, stood, erred) == ({"crash": 1}, {"deadlock": 1}, {"crash": 1})
    assert "it has ended by itself" in died_note
    assert "it does not answer" in stood_note
    assert "its log has an error" in error_note
    assert soaking.ends == {"violation": 2, "term": 1}
    assert "most recent call first" in (tmp_path / "logs" / "log-1.txt").read_text()  # where its threads were


@pytest.mark.parametrize(
    ("code", "failed_sources", "crashes"), [(0, [], 0), (2, [], 0), (1, [], 1), (-11, [], 1), (0, ["rtsp"], 1)]
)
def test_a_wrong_end_is_a_crash(tmp_path: Path, code: int, failed_sources: list[str], crashes: int) -> None:
    """Of the line only its end is played."""
    (tmp_path / "log.txt").touch()
    end = {**summary(), "failed_sources": failed_sources}
    line = SimpleNamespace(log=tmp_path / "log.txt", signal=lambda number: None, end=lambda number: (code, end))
    world = SimpleNamespace(troubles=Troubles(), line=line)
    auditor = Auditor(world.troubles)
    Soaking(world, auditor, tmp_path, lambda text: None)._end(Life(0, 1.0, 1, (), "term"))  # type: ignore[arg-type]
    assert auditor.counts == ({"crash": 1} if crashes else {})


def test_a_source_or_sink_that_stands_still_is_a_deadlock_unless_a_fault_explains_it(tmp_path: Path) -> None:
    troubles = Troubles()
    auditor, world = Auditor(troubles), SimpleNamespace(troubles=troubles)
    soaking = Soaking(world, auditor, tmp_path, lambda text: None)  # type: ignore[arg-type]
    now = time.monotonic()
    for second in range(0, 200, 2):
        soaking._check_progress("loop", second, ("video",), now + second)  # moves
        soaking._check_progress("webhook", min(second, 10), ("webhook",), now + second)
    assert auditor.counts == {"deadlock": 3}  # once for each minute
    assert "webhook has stood still at 10 for 62 s" in auditor.notes[0]
    troubles.begin("webhook is slow")
    for second in range(0, 100, 2):
        soaking._check_progress("other", 7, ("webhook",), now + second)
    assert auditor.counts == {"deadlock": 3}


def test_a_line_that_is_stopped_in_the_tick_of_a_sample_is_not_asked(tmp_path: Path) -> None:
    troubles, asked = Troubles(), []
    line = SimpleNamespace(runs=True, sample=lambda: asked.append(1))

    def strike(event: Event) -> bool:
        troubles.begin(event.kind)
        return True

    world = SimpleNamespace(troubles=troubles, line=line, work=lambda: None, strike=strike)
    soaking = Soaking(world, Auditor(troubles), tmp_path, lambda text: None)  # type: ignore[arg-type]
    life = Life(0, 0.2, 1, (Event(0.0, "line is stopped", 5.0, 0.0),), "term")
    soaking._live(life, time.monotonic() + 0.2, lambda: False)
    assert soaking.faults["line is stopped"] == 1
    assert not asked


def test_the_same_seed_gives_the_same_faults() -> None:
    assert plan_life(4, 2) == plan_life(4, 2)
    assert plan_life(4, 2) != plan_life(5, 2)
    lives = [plan_life(1, number) for number in range(40)]
    assert {event.kind for life in lives for event in life.events} == set(KINDS)
    assert {life.end for life in lives} == {"kill", "term", "int"}
    assert all(event.at < life.seconds for life in lives for event in life.events)


@pytest.fixture
def auditor() -> Auditor:
    return Auditor(Troubles())


def row(number: int, **changed: Any) -> dict[str, Any]:
    """A result that bundle 1 has decided."""
    fields = {"id": f"id-{number}", "verdict": "PASS", "cause": None, "score": score_of(number, 1, 0), "threshold": 0.0}
    place = {"source_id": "watch", "frame_id": number, "path": f"/in/image-{number}.png", "bundle": "bundle-1"}
    return {**fields, **place, "t_capture": 10.0 + number, "latency_ms": {"infer": 1.0, "total": 4.0}, **changed}


def lines_of(*rows: dict[str, Any]) -> list[bytes]:
    return [json.dumps(each).encode() + b"\n" for each in rows]


def named(auditor: Auditor) -> list[str]:
    return [name for name in NAMES if auditor.counts[name]]


def test_a_right_record_is_no_violation(auditor: Auditor) -> None:
    failed = row(3, verdict="FAIL", score=score_of(3, 2, 2), bundle="bundle-2")
    unknown = row(4, verdict="UNKNOWN", cause="stale", score=None, bundle="bundle-2", latency_ms={})
    record = auditor.read_record([*lines_of(row(1), row(2), failed, unknown), b'{"id": '], [1, 3, 2], killed=True)
    assert (auditor.counts.total(), len(record.known)) == (0, 4), auditor.notes
    assert record.known["id-1"] == zlib.crc32(json.dumps(row(1)).encode())
    assert auditor.undisturbed.percentile(0.99) == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        ([row(1), row(2, id="id-1")], "doubled"),
        ([row(2), row(1)], "doubled"),  # a frame that was decided before
        ([row(1, verdict="FAIL")], "altered"),
        ([row(1, score=None)], "altered"),  # PASS without a score
        ([row(1, bundle="bundle-2")], "altered"),  # another bundle than the one that made the score
        ([row(1, bundle="bundle-3", score=score_of(1, 3, 0))], "altered"),  # one that was not offered
    ],
)
def test_a_wrong_record_is_named(auditor: Auditor, rows: list[dict[str, Any]], name: str) -> None:
    auditor.read_record(lines_of(*rows), [1, 2], killed=False)
    assert named(auditor) == [name]


def test_a_cut_line_is_excused_only_at_the_end_of_a_killed_record(auditor: Auditor) -> None:
    cut = lines_of(row(1))[0][:-9]
    auditor.read_record([cut + b"\n", *lines_of(row(2))], [1], killed=True)
    auditor.read_record([cut], [1], killed=False)
    assert auditor.counts == {"altered": 2}


def sample(**changed: Any) -> Sample:
    counts = {"captured": 10, "results": 6, "dropped": 3, "in_flight": 1, "unknown": 2, "by_cause": 2}
    return Sample(0.0, **{name: Counter(line=count) for name, count in {**counts, **changed}.items()})


@pytest.mark.parametrize(
    "changed", [{}, {"captured": 11}, {"in_flight": 0}, {"by_cause": 1}, {"dropped": 4, "in_flight": -0}]
)
def test_a_ledger_that_does_not_add_up_is_named(auditor: Auditor, changed: dict[str, int]) -> None:
    auditor.check_sample(sample(**changed), None)
    assert named(auditor) == (["ledger"] if changed and changed != {"dropped": 4, "in_flight": 0} else [])


def test_a_ledger_that_forgets_is_named(auditor: Auditor) -> None:
    auditor.check_sample(sample(), sample(captured=12, dropped=5))
    assert named(auditor) == ["ledger"]


def summary(**changed: int) -> dict[str, Any]:
    figures = {"captured": 10, "inferred": 7, "passed": 4, "failed": 1, "unknown": 2, "dropped": 3, "in_flight": 0}
    figures |= {"unknown_by_cause": {"stale": 2}, "dropped_by_cause": {"overtaken": 3}}
    sink = {"sink": "jsonl", "offered": 7, "taken": 5, "failed": 1, "dropped": 1, "waiting": 0}
    own = {name: changed.pop(name) for name in list(changed) if name in sink}
    return {
        **{**figures, **changed},
        "sources": {"line": {**figures, **changed}},
        "sinks": [{**sink, "dropped_by_cause": {"overflow": 1}, **own}],
    }


def test_a_right_summary_is_no_violation(auditor: Auditor) -> None:
    auditor.check_summary(summary())
    assert not auditor.counts.total()


@pytest.mark.parametrize("changed", [{"captured": 11}, {"inferred": 8}, {"unknown": 3}, {"taken": 6}, {"waiting": 1}])
def test_a_summary_that_does_not_add_up_is_named(auditor: Auditor, changed: dict[str, int]) -> None:
    auditor.check_summary(summary(**changed))
    assert named(auditor) == ["ledger"]


@pytest.mark.parametrize(
    ("there", "account", "name"),
    [
        ([1, 2], Account(2, 0, 0, 2), []),
        ([1, 2], Account(1), []),  # killed after the last sample
        ([1, 2], Account(1, 1, 0, 2), []),  # one was written and failed
        ([1], Account(2, 0, 0, 2), ["lost"]),
        ([1], Account(2), ["lost"]),
        ([1, 1], Account(1, 0, 0, 1), ["doubled"]),
        ([1, 2], Account(1, 0, 0, 1), ["ledger"]),  # one that was never counted
    ],
)
def test_rows_are_compared_with_the_account(
    auditor: Auditor, there: list[int], account: Account, name: list[str]
) -> None:
    rows, damaged = rows_of_lines(lines_of(*(row(number) for number in there)))
    auditor.check_rows("jsonl", iter(rows), account, {}, damaged)
    assert named(auditor) == name, auditor.notes


def test_rows_that_are_changed_or_damaged_are_named(auditor: Auditor) -> None:
    known = auditor.read_record(lines_of(row(1)), [1], killed=False).known
    auditor.check_rows("jsonl", iter([("id-1", b"{}")]), Account(1, 0, 0, 1), known)
    auditor.check_rows("jsonl", iter([]), Account(0, 0, 0, 0), known, damaged=2)
    assert auditor.counts == {"altered": 2}


def test_a_repetition_needs_a_reason_and_the_same_content() -> None:
    troubles, inbox = Troubles(), Inbox()
    auditor = Auditor(troubles)
    for text in (b'{"id": "a"}', b'{"id": "a"}', b'{"id": "b"}', b'{"id": "b", "score": 1}'):
        inbox.put(text)
    inbox.put(b'{"id": "c"}', confirmed=False)
    inbox.put(b'{"id": "c"}')
    inbox.put(b'{"id": "c"}', confirmed=False, came=0.0)  # the first one, whose answer took too long
    got, again = inbox.empty()
    assert (set(got), [one.id for one in again], inbox.unconfirmed) == ({"a", "b", "c"}, ["a", "b"], 2)
    troubles.begin("line is stopped")
    assert auditor.check_delivered("webhook", got, again, {}, REPEATED) == 2
    assert auditor.counts == {"altered": 1}
    early = [Again("a", again[0].before - 60, again[0].before - 50, True)]
    auditor.check_delivered("webhook", got, early, {}, REPEATED)
    assert auditor.counts == {"altered": 1, "doubled": 1}


def test_each_intact_image_has_one_result(auditor: Auditor) -> None:
    written = {f"image-{number}.png": 10.0 + number for number in range(30)}
    seen = [row(number) for number in range(30) if number != 7]
    auditor.check_images(auditor.read_record(lines_of(*seen), [1], killed=True), written, 10.0, ())
    assert auditor.notes == ["lost: life 0: the image image-7.png has no result"]
    twice = [*seen, row(30, path="/in/image-9.png")]
    auditor.check_images(auditor.read_record(lines_of(*twice), [1], killed=True), written, 30.0, ())
    assert auditor.counts == {"lost": 1, "doubled": 1}


@pytest.mark.parametrize(
    ("owed", "unknown", "stored", "lost"), [(0, 0, 0, 0), (3, 2, 1, 0), (3, 2, 0, 1), (1, 0, 0, 1)]
)
def test_what_never_came_by_mqtt_is_lost(auditor: Auditor, owed: int, unknown: int, stored: int, lost: int) -> None:
    auditor.check_owed("mqtt", {0: owed, 1: -5}, unknown, stored)
    assert auditor.counts["lost"] == lost


def test_rejects_are_whole_and_bounded(auditor: Auditor, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text('{"id": "a"}')
        (tmp_path / f"{name}.png").write_bytes(bytes(500))
    right = Account(3, 0, 0, 3, {"deleted": 2})
    assert auditor.check_rejects(tmp_path, right, 1, 1000) == 2
    assert not auditor.counts.total(), auditor.notes
    auditor.check_rejects(tmp_path, right, 2, 1000)
    assert named(auditor) == ["lost"]
    auditor.check_rejects(tmp_path, right, 1, 500)
    (tmp_path / "two.json").write_text("{")
    auditor.check_rejects(tmp_path, right, 1, 1000)
    assert named(auditor) == ["lost", "altered", "files"]


def test_growth_is_judged_by_the_floor_of_a_long_life(auditor: Auditor) -> None:
    samples = [Sample(float(second), rss_mib=100.0 + 50 * (second % 7 == 0), files=20) for second in range(90)]
    assert floors(samples, lambda one: one.rss_mib) == (100.0, 100.0)
    leaks = [Sample(float(second), rss_mib=100.0 + second) for second in range(90)]
    low, high = floors(leaks, lambda one: one.rss_mib)
    assert high - low == 30.0
    auditor.check_growth(Growth(0, 9, 30.0, 0, 190.0), 24.0, 8)
    auditor.check_growth(Growth(0, 9, 0.0, 9, 190.0), 24.0, 8)
    assert auditor.counts == {"memory": 1, "files": 1}


def test_metrics_are_read() -> None:
    text = (
        'edgead_frames_captured_total{source="line"} 7\nedgead_frames_inferred_total{source="line",verdict="PASS"} 4\n'
        'edgead_frames_inferred_total{source="line",verdict="UNKNOWN"} 2\nedgead_frames_in_flight{source="line"} 1\n'
        'edgead_sink_results_total{sink="jsonl:a",fate="taken"} 3\nedgead_sink_waiting{sink="jsonl:a"} 2\n'
        'edgead_sink_detail{sink="mqtt://b",name="stored"} 5\n# HELP edgead_bundle_reloads_total Reloads.\n'
    )
    read = read_metrics(text, 1.0)
    assert (read.captured["line"], read.results["line"], read.unknown["line"], read.in_flight["line"]) == (7, 6, 2, 1)
    assert read.sinks == {"jsonl:a": Counter(taken=3, waiting=2), "mqtt://b": Counter(stored=5)}


def test_sittings_add_up() -> None:
    latencies = Latencies()
    for _ in range(99):
        latencies.add(2.0)
    one = SoakReport(frames=5, sinks={"jsonl": {"taken": 2}}, latency_bins={"all": latencies.to_json()})
    more = Latencies()
    more.add(80.0)
    other = SoakReport(frames=6, sinks={"jsonl": {"taken": 1}}, latency_bins={"all": more.to_json()}, lives=1)
    total = add(one, other)
    assert (total.frames, total.lives, total.sinks["jsonl"]["taken"]) == (11, 1, 3)
    assert total.latency_ms["all"]["p99"] == pytest.approx(2.0, rel=0.05)
    assert total.latency_ms["all"]["p99.9"] == pytest.approx(80.0, rel=0.05)
