"""The simulated line of benchmarks/: a short form of it, and proof that each of its counts can fail."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("pymodbus.client", reason="no pymodbus (pip install 'edgead[modbus]')")
sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "simulated_line"))

import judge as judge_module
from faults import plan_life, plan_lives
from judge import HOLD, LONGEST, SLACK, Judge, Part
from pictures import draw, make_bundle, read_score, score_of
from simulated_line import SimulatedLineReport, simulate_line

from edgead.decision import Verdict
from edgead.line.outputs.modbus_plc import PollingPlc
from edgead.line.outputs.register_map import VERDICTS, Snapshot
from edgead.runtime.inspector import load

PASS, FAIL, UNKNOWN = (VERDICTS[verdict] for verdict in (Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN))


@pytest.mark.long
def test_no_part_is_lost_doubled_or_swapped_and_no_pass_is_stale(tmp_path: Path) -> None:
    report = simulate_line(2000, 5, tmp_path, quiet_parts=0)
    assert not any(report.violations.values()), report.notes
    assert report.announced == sum(report.fates.values())
    assert report.fates["answered"] > 1900
    assert report.unexplained < 1000  # it decides: most parts whose picture came are not UNKNOWN, on any machine
    assert report.records["written"] > 1900
    assert not {"doubled", "other"} & set(report.records)
    happened = {"kill", "changeover", "hot swap", "stall", "plc restart", "lost trigger", "lost picture"}
    assert {name for name, count in report.faults.items() if count} >= happened | {"bounced trigger"}


class Tampering(PollingPlc):
    """Reads what a line with four errors would show, each once, and far from the others."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._shift, self._results, self._last = 0, 0, Snapshot()
        self._left = {"lost", "doubled", "swapped", "stale"}
        self._hidden = self._wrong = 0

    def read(self) -> Snapshot:
        seen = super().read()
        seen = replace(seen, sequence=(seen.sequence + self._shift) % 65535)
        if not seen.verdict:
            return self._between(seen)
        if seen.sequence != self._last.sequence:
            self._results += 1
        if self._results == 30 and self._has("lost"):
            self._hidden = seen.sequence
        if self._results == 90 and self._has("swapped"):
            self._wrong = seen.sequence
        self._last = seen
        if seen.sequence == self._hidden:
            return replace(seen, verdict=0)
        return replace(seen, score=seen.score + 1) if seen.sequence == self._wrong else seen

    def _between(self, seen: Snapshot) -> Snapshot:
        """The last result is over, and the next one is not there yet."""
        if self._results >= 60 and self._has("doubled"):
            self._shift = 1
            return replace(self._last, sequence=self._last.sequence + 1)
        if self._results >= 120 and self._last.verdict == PASS and self._has("stale"):
            return self._last
        return seen

    def _has(self, error: str) -> bool:
        if error in self._left:
            self._left.remove(error)
            return True
        return False

    def acknowledge(self, sequence: int) -> None:
        super().acknowledge((sequence - self._shift) % 65535)


@pytest.fixture(scope="module")
def tampered(tmp_path_factory: pytest.TempPathFactory) -> SimulatedLineReport:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge_module, "GIVEN_UP", 2.0)
        return simulate_line(0, 1, tmp_path_factory.mktemp("line"), quiet_parts=200, connect=Tampering)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("lost", "has no answer"),
        ("doubled", "it is answered"),
        ("swapped", "the picture is of part"),
        ("stale", "it was acknowledged before"),
    ],
)
def test_each_count_counts(tampered: SimulatedLineReport, name: str, why: str) -> None:
    assert tampered.violations[name]
    assert any(note.startswith(f"{name}: ") and why in note for note in tampered.notes), tampered.notes
    assert tampered.fates["answered"] == 199


def test_the_same_seed_gives_the_same_parts_and_faults() -> None:
    assert plan_life(4, 2, 3000, False) == plan_life(4, 2, 3000, False)
    assert plan_life(4, 2, 3000, False) != plan_life(5, 2, 3000, False)
    assert sum(parts for _, parts in plan_lives(1_000_001)) == 1_000_001


def test_a_result_tells_which_picture_and_which_bundle_made_it(tmp_path: Path) -> None:
    for bundle in (1, 3):
        with load(make_bundle(tmp_path / f"{bundle}.edgead", bundle), engine="onnxruntime") as inspector:
            for number, fails in ((65535, 0), (70000, 1 << bundle - 1), (12, 0b010)):
                result = inspector.inspect(draw(number, fails))
                assert result.score == score_of(number, bundle, fails)
                assert read_score(result.score) == (number % 65536, bundle)
                assert (result.verdict is Verdict.FAIL) == bool(fails >> bundle - 1 & 1)


def answer(number: int, sequence: int, **changed: Any) -> Snapshot:
    """What the line shows of a good part that bundle 1 has decided on."""
    shown = Snapshot(session=7, valid=1, sequence=sequence, verdict=PASS, passed=sequence, recipe="a 1")
    return replace(replace(shown, part_id=f"part-{number}", score=score_of(number, 1, 0)), **changed)


@pytest.fixture
def judge() -> Judge:
    """Parts 0 to 9 were announced at second 0."""
    judge = Judge()
    for number in range(10):
        judge.announce(Part(number, f"part-{number}", 0, {1}, 0.0))
    return judge


def test_what_is_right_is_no_violation(judge: Judge) -> None:
    for number in range(10):
        judge.see(answer(number, number + 1), 0.1, 0.1)
        judge.see(answer(number, number + 1), 0.2, 0.2)
        judge.acknowledged(number + 1)
        judge.see(answer(number, number + 1, verdict=0), 0.3, 0.3)
    judge.settle()
    assert (judge.violations, judge.counts["answered"]) == (0, 10)


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        (answer(1, 2), "lost"),  # part 0 was passed over
        (answer(0, 1, score=score_of(1, 1, 0)), "swapped"),  # the picture of another part
        (answer(0, 1, score=score_of(0, 2, 0)), "swapped"),  # another bundle than the recipe says
        (answer(0, 1, recipe="b 1", score=score_of(0, 2, 0)), "swapped"),  # another product than was asked for
        (answer(0, 1, verdict=FAIL), "swapped"),
        (answer(0, 1, score=float("nan")), "swapped"),  # PASS without a picture
        (answer(77, 1), "swapped"),
    ],
)
def test_a_wrong_answer_is_counted(judge: Judge, shown: Snapshot, name: str) -> None:
    judge.see(shown, 0.1, 0.1)
    assert (judge.violations, judge.counts[name]) == (1, 1), judge.notes


def test_a_pass_is_stale_when_it_is_too_old_acknowledged_or_of_another_start(judge: Judge) -> None:
    judge.see(answer(0, 1), 0.1, 0.1)
    judge.see(answer(0, 1), LONGEST + SLACK + 0.1, 2.0)
    assert judge.counts["stale"] == 1
    judge.acknowledged(1)
    judge.see(answer(0, 1), 0.2, 0.2)
    assert judge.counts["stale"] == 2
    judge.kill()
    judge.settle()
    judge.see(answer(0, 1), 0.3, 0.3)
    assert judge.counts["stale"] == 3


def test_a_missed_answer_is_excused_only_by_a_plc_that_did_not_read(judge: Judge) -> None:
    judge.see(answer(0, 1), 0.1, 0.1)
    judge.rest(HOLD)
    judge.see(answer(2, 3), 1.2, 1.2)
    assert (judge.violations, judge.counts["missed"]) == (0, 1)
    judge.see(answer(4, 5), 1.3, 1.3)
    assert judge.counts["lost"] == 1


def test_what_is_in_flight_when_the_line_is_killed_is_cut_and_otherwise_lost(judge: Judge) -> None:
    judge.kill()
    judge.announce(Part(10, "part-10", 0, {1}, 0.0))
    judge.settle()
    assert (judge.counts["cut"], judge.counts["lost"]) == (10, 1)
    judge.compare(announced=3, triggered=4, answered=3)
    assert (judge.counts["doubled"], judge.counts["lost"]) == (1, 2)
