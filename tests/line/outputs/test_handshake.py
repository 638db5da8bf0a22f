"""The handshake alone: what a PLC may see at which moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from plc_parts import Writing, make_result
from waiting import wait_until

from edgead.decision import Verdict
from edgead.errors import ConfigError, SinkError
from edgead.line.outputs.handshake import LAST, Handshake, PlcSink, Timing
from edgead.line.outputs.register_map import CAMERA_REPORTED, ID_CUT, MISSING_ACKNOWLEDGEMENT, STALLED, VERDICTS
from edgead.runtime.clock import standstill
from edgead.runtime.result import Result

NEVER = threading.Event()
PASS, FAIL, UNKNOWN = (VERDICTS[verdict] for verdict in Verdict)


def show(handshake: Handshake, result: Result) -> Writing:
    """Show a result in a thread of its own, which waits for the acknowledgement."""
    before = handshake.snapshot().sequence
    writing = Writing(lambda given: handshake.show(given, NEVER), result)
    wait_until(lambda: handshake.snapshot().sequence != before)
    return writing


def test_a_result_is_shown_until_it_is_acknowledged() -> None:
    handshake = Handshake(Timing(hold_ms=5000))
    writing = show(handshake, make_result(Verdict.FAIL))
    seen = handshake.snapshot()
    assert (seen.verdict, seen.valid, seen.part_id, seen.recipe, seen.failed) == (FAIL, 1, "part-1", "bottle 3", 1)
    assert not handshake.acknowledge(seen.sequence - 1)
    assert handshake.awaits()
    assert writing.waits
    assert handshake.acknowledge(seen.sequence)
    assert writing.end() == ""
    after = handshake.snapshot()
    assert (after.sequence, after.verdict, after.cause, after.unacknowledged) == (seen.sequence, 0, 0, 0)
    assert handshake.account()["wrong_acknowledgements"] == 1


def test_a_missing_acknowledgement_is_an_alarm_and_later_results_do_not_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handshake = Handshake(Timing(hold_ms=30), "plc")
    assert "did not acknowledge" in show(handshake, make_result()).end()
    seen = handshake.snapshot()
    assert (seen.verdict, seen.status, seen.unacknowledged) == (0, MISSING_ACKNOWLEDGEMENT, 1)
    assert [record.message for record in caplog.records] == [
        f"Alarm: plc: the PLC did not acknowledge result {seen.sequence} (part-1) in time (hold_ms=30)"
    ]
    with pytest.raises(SinkError, match="part-2"):
        handshake.show(make_result(part="part-2"), NEVER)
    newest = handshake.snapshot()
    assert (newest.part_id, newest.verdict) == ("part-2", PASS)
    assert handshake.acknowledge(newest.sequence)
    assert handshake.snapshot().status == 0
    writing = show(handshake, make_result(part="part-3"))
    assert writing.waits
    handshake.acknowledge(handshake.snapshot().sequence)
    assert writing.end() == ""


def test_without_handshake_a_result_stays_until_the_next_one_or_the_hold_time() -> None:
    handshake = Handshake(Timing(ack=False, hold_ms=60))
    handshake.show(make_result(), NEVER)
    handshake.show(make_result(Verdict.UNKNOWN, cause="silent"), NEVER)
    seen = handshake.snapshot()
    assert (seen.verdict, seen.cause, seen.passed, seen.unknown) == (UNKNOWN, 3, 1, 1)
    wait_until(lambda: handshake.snapshot().verdict == 0)
    assert handshake.snapshot().status == 0


def test_no_verdict_is_shown_while_the_stream_stands_still() -> None:
    handshake, idle = Handshake(Timing(ack=False, stall_ms=500)), 0.0
    assert (handshake.snapshot().valid, handshake.snapshot().heartbeat) == (0, 0)  # nothing decides yet
    handshake.begin(lambda: idle)
    assert handshake.snapshot().valid == 1
    handshake.show(make_result(), NEVER)
    assert handshake.snapshot().verdict == PASS
    idle = 0.6
    seen = handshake.snapshot()
    assert (seen.valid, seen.verdict, seen.status) == (0, 0, STALLED)
    time.sleep(0.11)
    assert handshake.snapshot().heartbeat == seen.heartbeat
    idle = 0.0
    assert handshake.snapshot().heartbeat == seen.heartbeat + 1
    handshake.close()
    assert (handshake.snapshot().valid, handshake.snapshot().verdict) == (0, 0)


def test_a_result_that_comes_late_is_never_a_pass() -> None:
    handshake = Handshake(Timing(ack=False, late_ms=200))
    for ago, verdict in ((0.05, PASS), (0.5, UNKNOWN)):
        captured = time.monotonic() - ago - 0.010
        handshake.show(make_result(t_capture=captured, latency_ms={"total": 10.0}), NEVER)
        assert handshake.snapshot().verdict == verdict
    assert handshake.snapshot().cause == 5


def test_a_verdict_from_before_a_suspend_is_over(suspend: Callable[[float], None]) -> None:
    """`time.monotonic` does not notice: the PLC could read the PASS of a part that had passed long before."""
    handshake, result = Handshake(Timing(ack=False)), make_result(t_capture=time.monotonic(), latency_ms={"total": 0.0})
    with standstill.watch():
        handshake.show(result, NEVER)
        assert handshake.snapshot().verdict == PASS
        suspend(12)
        assert handshake.snapshot().verdict == 0
        handshake.show(result, NEVER)  # it waited in the queue
        seen = handshake.snapshot()
        assert (seen.verdict, seen.cause) == (UNKNOWN, 5)


def test_the_sequence_goes_round_without_0_and_a_cut_id_is_marked() -> None:
    handshake = Handshake(Timing(ack=False))
    handshake.continue_after(LAST - 1)
    for expected in (LAST, 1):
        handshake.show(make_result(part="x" * 41), NEVER)
        seen = handshake.snapshot()
        assert (seen.sequence, seen.part_id, seen.status) == (expected, "x" * 40, ID_CUT)


def test_a_report_about_a_camera_is_no_result() -> None:
    sink = PlcSink("plc", Timing(ack=False))
    sink.begin(lambda: 0.0)
    before = sink.handshake.snapshot()
    assert not sink.wants(make_result(Verdict.UNKNOWN, part="", cause="silent", frame_id=None))
    seen = sink.handshake.snapshot()
    assert (seen.status, seen.sequence, seen.verdict) == (CAMERA_REPORTED, before.sequence, 0)
    no_frame = make_result(Verdict.UNKNOWN, cause="no_frame", frame_id=None)  # it answers a part
    assert sink.wants(no_frame)
    sink.write(no_frame)
    assert (sink.handshake.snapshot().status, sink.handshake.snapshot().cause) == (0, 20)


def test_the_end_of_a_run_ends_the_wait() -> None:
    sink = PlcSink("plc", Timing(hold_ms=60_000))
    writing = Writing(sink.write, make_result())
    wait_until(lambda: sink.handshake.snapshot().verdict == PASS)
    sink.stop()
    assert "did not acknowledge" in writing.end()


@pytest.mark.parametrize("option", ["hold_ms", "heartbeat_ms", "stall_ms", "late_ms"])
def test_times_that_make_no_sense_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=f"^{option} of a PLC output must be at least"):
        Timing(**{option: 0})
