"""A pulse on a GPIO line: gpiod's own settings and errors, and a stand-in for the line where there is none."""

from __future__ import annotations

import inspect
import time
from typing import Any

import pytest
from line_bench import BAD, GOOD, Hand, running
from plc_parts import make_result
from waiting import wait_until

from edgead.decision import Verdict
from edgead.errors import ConfigError
from edgead.line.outputs.gpio import GpioOutput
from edgead.line.part import PartRules
from edgead.line.parts import Parts
from edgead.runtime.inspector import Inspector
from edgead.runtime.sink_worker import SinkWorker
from edgead.runtime.sinks import open_sink

gpiod = pytest.importorskip("gpiod", reason="no gpiod (pip install 'edgead[gpio]')")


class Line:
    """Stands in for `gpiod.LineRequest`, where the machine has no GPIO: notes what the line would do, and when."""

    def __init__(self, path: str, config: dict[Any, Any], consumer: str | None = None) -> None:
        [(self.line, self.settings)] = config.items()
        self.path, self.levels, self.released = path, list[tuple[bool, float]](), False

    def set_value(self, line: Any, value: Any) -> None:
        assert line == self.line
        assert not self.released
        self.levels.append((value is gpiod.line.Value.ACTIVE, time.monotonic()))

    def release(self) -> None:
        self.released = True


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[Line]:
    """The lines that were opened."""
    made: list[Line] = []
    assert {"set_value", "release"} <= set(dir(gpiod.LineRequest))
    signature = inspect.signature(gpiod.request_lines)

    def request(*arguments: Any, **options: Any) -> Line:
        signature.bind(*arguments, **options)
        made.append(Line(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(gpiod, "request_lines", request)
    return made


def test_a_pass_is_a_pulse_and_pulses_do_not_overlap(lines: list[Line]) -> None:
    worker = SinkWorker(open_sink("gpio:gpiochip0/17?pulse_ms=20"))
    for verdict in (Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS):
        worker.offer(make_result(verdict))
    worker.offer(make_result(part="", frame_id=None))  # a report about a camera
    worker.close()
    [line] = lines
    assert (line.path, line.line, line.released) == ("/dev/gpiochip0", 17, True)
    assert line.settings.direction is gpiod.line.Direction.OUTPUT
    assert line.settings.output_value is gpiod.line.Value.INACTIVE
    assert [level for level, _ in line.levels] == [True, False, True, False, False]
    times = [at for _, at in line.levels]
    assert times[1] - times[0] >= 0.02
    assert times[3] - times[2] >= 0.02
    account = worker.account()
    assert (account["offered"], account["taken"]) == (2, 2)


def test_a_result_that_comes_late_makes_no_pulse(lines: list[Line]) -> None:
    worker = SinkWorker(open_sink("gpio:/dev/gpiochip0/EJECT?pulse_ms=1&on=FAIL,UNKNOWN&late_ms=50&active_low=on"))
    worker.offer(make_result(Verdict.FAIL, t_capture=time.monotonic() - 1, latency_ms={"total": 10.0}))
    worker.close()
    [line] = lines
    assert (line.line, line.settings.active_low, line.released) == ("EJECT", True, True)
    assert [level for level, _ in line.levels] == [False]
    assert worker.account()["dropped_by_cause"] == {"late": 1}


def test_a_part_that_waited_for_the_one_before_is_ejected(inspector: Inspector, lines: list[Line]) -> None:
    """With one camera dead, all parts were ejected but those in which the other one had seen a defect."""
    ejector = open_sink("gpio:/dev/gpiochip0/EJECT?pulse_ms=1&on=FAIL,UNKNOWN&late_ms=500")
    front, side = Hand("front"), Hand("side")
    with running(inspector, Parts(PartRules(within=1200)), [front, side], sinks=[ejector]) as bench:
        for name, shown in (("A", GOOD), ("B", BAD), ("C", None)):
            bench.parts.trigger(name)
            front.show(shown)
            time.sleep(0.05)
        bench.wait(3)
    assert [(one.part_id, one.verdict.value) for one in bench.results] == [
        ("A", "UNKNOWN"),
        ("B", "FAIL"),
        ("C", "UNKNOWN"),
    ]
    assert [level for level, _ in lines[0].levels].count(True) == 3


def test_the_answer_of_a_part_whose_time_is_over_makes_no_pulse(inspector: Inspector, lines: list[Line]) -> None:
    """It was decided in time, and the process did not run when it had to leave."""
    front, side, parts = Hand("front"), Hand("side"), Parts(PartRules(within=500, fails="all"))
    with running(inspector, parts, [front, side], sinks=[open_sink("gpio:gpiochip0/17?late_ms=200")]) as bench:
        for count, shown in enumerate((BAD, GOOD), 1):
            parts.trigger()
            front.show(shown)
            wait_until(lambda count=count: bench.ledger.passed + bench.ledger.failed == count)
        with parts._changed:
            time.sleep(1.2)
        bench.wait(2)
    assert [one.verdict.value for one in bench.results] == ["UNKNOWN", "PASS"]
    assert True not in [level for level, _ in lines[0].levels]


def test_the_end_of_a_run_ends_a_pulse(lines: list[Line]) -> None:
    sink = open_sink("gpio:gpiochip0/17?pulse_ms=60000")
    assert isinstance(sink, GpioOutput)
    sink.stop()
    sink.write(make_result())
    sink.close()
    assert [level for level, _ in lines[0].levels] == [True, False, False]


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("gpio:17", "must name a chip and a line"),
        ("gpio:/dev/gpiochip99/17", r"line 17 of /dev/gpiochip99 cannot be used.*\n.*gpioinfo"),
        ("gpio:gpiochip0/17?pulse_ms=0", "pulse_ms must be from 1 to 60000"),
        ("gpio:gpiochip0/17?on=GOOD", r"Unknown verdict 'GOOD' of on\. Available: PASS, FAIL, UNKNOWN"),
        ("gpio:gpiochip0/17?on=", "on must be one or more verdicts"),
    ],
)
def test_a_line_that_cannot_be_used_is_refused(uri: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        open_sink(uri)
