"""Parts: which frame belongs to which, the rule of several frames, and the ledger's equation at every instant."""

from __future__ import annotations

import math
import queue
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from level_bundle import frame_of
from line_bench import BAD, GOOD, Hand, is_balanced, running
from waiting import wait_until

from edgead.decision import Verdict
from edgead.errors import ConfigError
from edgead.images import encode_png
from edgead.line.part import PartRules
from edgead.line.parts import UNTRIGGERED, Parts
from edgead.line.triggers import BaseTrigger
from edgead.runtime.inspector import Inspector
from edgead.runtime.policy import Policy
from edgead.runtime.sinks.sqlite import SqliteSink
from edgead.runtime.sources.live import LiveSource
from edgead.runtime.sources.source import Captured

pytest.importorskip("onnxruntime")
SOON = PartRules(within=60)


def test_a_part_is_answered_by_its_frame(inspector: Inspector) -> None:
    camera = Hand()
    with running(inspector, Parts(), [camera]) as bench:
        ids = []
        for count, shown in enumerate((GOOD, BAD), 1):
            ids.append(bench.parts.trigger("A-17" if shown == BAD else ""))
            camera.show(shown)
            bench.wait(count)
    assert [(one.verdict, one.frame_id, one.part_id) for one in bench.results] == [
        (Verdict.PASS, 0, ids[0]),
        (Verdict.FAIL, 1, "A-17"),
    ]
    assert len(ids[0]) == 36
    answer = bench.results[1]
    assert answer.anomaly_map is not None
    assert 0 < answer.latency_ms["part"] < 1000
    assert answer.to_dict()["part_id"] == "A-17"
    assert bench.parts.ledger.snapshot()["answered"] == 2


def test_frames_that_no_trigger_asked_for_are_dropped_by_name(inspector: Inspector) -> None:
    camera = Hand()
    with running(inspector, Parts(), [camera]) as bench:
        camera.show(BAD)  # before the part
        made = camera.show(GOOD)
        time.sleep(0.05)
        bench.parts.trigger("A")
        camera.show(BAD, made)  # made before the trigger, on its way since
        camera.show(GOOD)
        camera.show(BAD)  # one more than the part needs
        [answer] = bench.wait(1)
        time.sleep(0.05)
    assert (answer.part_id, answer.verdict, answer.frame_id) == ("A", Verdict.PASS, 3)
    figures = bench.ledger.snapshot()
    assert (figures["captured"], figures["inferred"]) == (5, 1)
    assert figures["dropped_by_cause"] == {UNTRIGGERED: 4}


def test_a_camera_that_froze_between_two_parts_decides_on_none(inspector: Inspector) -> None:
    """Nobody looked at the frames between the parts: the first part after them passed by the picture of another one."""
    camera, policy = Hand(), Policy(health="live", frozen_after=0.2, blurred_below=0, capacity=16, silence=1e6)
    with running(inspector, Parts(), [camera], policy=policy) as bench:
        bench.parts.trigger("A")
        camera.show(GOOD)
        bench.wait(1)
        for _ in range(4):  # the belt is empty, and the camera goes on
            camera.show(GOOD + 1)
            time.sleep(0.1)
        bench.parts.trigger("B")
        camera.show(GOOD + 1)
        bench.wait(2)
        bench.parts.trigger("C")
        camera.show(GOOD)
        answers = bench.wait(3)
    assert [(one.part_id, one.verdict, one.cause) for one in answers] == [
        ("A", Verdict.PASS, ""),
        ("B", Verdict.UNKNOWN, "frozen"),
        ("C", Verdict.PASS, ""),
    ]
    assert bench.ledger.snapshot()["dropped_by_cause"] == {UNTRIGGERED: 4}


def test_a_part_without_a_frame_is_unknown_in_time(inspector: Inspector) -> None:
    with running(inspector, Parts(SOON), [Hand()]) as bench:
        began = time.monotonic()
        bench.parts.trigger("A")
        [answer] = bench.wait(1)
        took = time.monotonic() - began
    assert (answer.part_id, answer.verdict, answer.cause, answer.frame_id) == ("A", Verdict.UNKNOWN, "no_frame", None)
    assert (answer.source_id, answer.bundle) == ("front", "level")
    assert 0.06 <= took < 5
    assert bench.ledger.captured == 0


@pytest.mark.parametrize(
    "at",
    [time.time(), math.nan, math.inf, -math.inf, -1e12, "now"],
    ids=["time.time", *["NaN", "inf", "-inf", "old", "text"]],
)
def test_a_trigger_of_an_impossible_time_is_refused_and_holds_nothing_up(inspector: Inspector, at: Any) -> None:
    """Its part was never due, and all later parts waited for it without a word; NaN ended the thread that answers."""
    with running(inspector, Parts(SOON), [Hand()]) as bench:
        with pytest.raises(ConfigError, match=r"at is .*, and must be seconds of time.monotonic"):
            bench.parts.trigger("A", at)
        with pytest.raises(ConfigError, match="id must be text, not 5"):
            bench.parts.trigger(5)  # type: ignore[arg-type]
        bench.parts.trigger("B", time.monotonic() - 0.01)
        [answer] = bench.wait(1)
    assert (answer.part_id, answer.cause) == ("B", "no_frame")
    assert bench.parts.ledger.snapshot()["triggered"] == 1


class Unnumbered(Hand):
    """A camera of somebody else's: its frames have a name of their own, and all the same number."""

    def read(self) -> Iterator[Captured]:
        return (replace(captured, source_id="cam0", frame_id=0) for captured in super().read())


def test_frames_of_one_name_and_number_stay_with_their_parts(
    inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While two of them waited for the engine, the second part got the verdict of the first one, a PASS."""
    cameras, gate, infer = [Unnumbered("left"), Unnumbered("right")], threading.Event(), inspector.engine.infer
    monkeypatch.setattr(inspector.engine, "infer", lambda frames: (gate.wait(10), infer(frames))[1])
    said: list[str] = []
    with running(inspector, Parts(PartRules(within=20_000)), cameras, say=said.append) as bench:
        for name, shown in (("A", GOOD), ("B", BAD), ("C", GOOD)):
            bench.parts.trigger(name)
            for camera in cameras:
                camera.show(shown)
            wait_until(lambda name=name: bench.ledger.captured == 2 * (ord(name) - ord("A") + 1))
        gate.set()
        answers = bench.wait(3)
    assert [(answer.part_id, answer.verdict.value) for answer in answers] == [
        ("A", "PASS"),
        ("B", "FAIL"),
        ("C", "PASS"),
    ]
    assert said == ["cam0: the source repeats frame numbers; the count continues"]


def test_a_part_is_answered_in_time_while_the_engine_hangs(
    inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera, gate, infer = Hand(), threading.Event(), inspector.engine.infer
    monkeypatch.setattr(inspector.engine, "infer", lambda frames: (gate.wait(10), infer(frames))[1])
    with running(inspector, Parts(SOON), [camera]) as bench:
        bench.parts.trigger("A")
        camera.show(GOOD)
        [answer] = bench.wait(1)
        assert (answer.verdict, answer.cause) == (Verdict.UNKNOWN, "late")
        gate.set()
        time.sleep(0.05)
    assert len(bench.results) == 1  # the decision came later, and is no second answer
    assert (bench.ledger.passed, bench.parts.ledger.snapshot()["unknown_by_cause"]) == (1, {"late": 1})


def test_the_newest_part_in_front_of_the_camera_gets_the_frame(inspector: Inspector) -> None:
    camera = Hand()
    with running(inspector, Parts(PartRules(within=60_000)), [camera]) as bench:
        bench.parts.trigger("A")
        bench.parts.trigger("B")
        camera.show(GOOD)
        first, second = bench.wait(2)  # at once: no frame of A can come any more
    assert (first.part_id, first.cause) == ("A", "no_frame")
    assert "next part" in first.reason
    assert (second.part_id, second.verdict) == ("B", Verdict.PASS)


def test_a_late_frame_still_belongs_to_the_part_it_was_made_of(inspector: Inspector) -> None:
    camera = Hand()
    with running(inspector, Parts(), [camera]) as bench:
        bench.parts.trigger("A")
        time.sleep(0.01)
        made = time.monotonic()
        time.sleep(0.01)
        bench.parts.trigger("B")
        camera.show(BAD, made)
        camera.show(GOOD)
        answers = bench.wait(2)
    assert [(one.part_id, one.verdict) for one in answers] == [("A", Verdict.FAIL), ("B", Verdict.PASS)]


def test_the_delay_is_the_way_to_the_camera(inspector: Inspector) -> None:
    front, side = Hand("front"), Hand("side")
    with running(inspector, Parts(PartRules(within=5000, delay=20), delays={"side": 60}), [front, side]) as bench:
        start = time.monotonic()
        bench.parts.trigger("A", start)
        front.show(BAD, start + 0.01)  # the part before this one
        front.show(GOOD, start + 0.03)
        side.show(BAD, start + 0.03)
        wait_until(lambda: bench.ledger.inferred == 1)
        side.show(GOOD, start + 0.07)
        [answer] = bench.wait(1)
    assert (answer.verdict, answer.source_id) == (Verdict.PASS, "side")
    assert bench.ledger.snapshot()["dropped_by_cause"] == {UNTRIGGERED: 2}


def test_two_triggers_too_close_are_two_unknown_parts(inspector: Inspector) -> None:
    camera = Hand()
    with running(inspector, Parts(PartRules(min_distance=10_000)), [camera]) as bench:
        bench.parts.trigger("A")
        camera.show(GOOD)
        bench.wait(1)
        bench.parts.trigger("B")  # A is answered already
        bench.wait(2)
        time.sleep(0.01)
        camera.show(GOOD)
    assert [(one.part_id, one.verdict, one.cause) for one in bench.results] == [
        ("A", Verdict.PASS, ""),
        ("B", Verdict.UNKNOWN, "too_close"),
    ]
    with running(inspector, Parts(PartRules(min_distance=10_000)), [Hand()]) as bench:
        bench.parts.trigger("A")
        bench.parts.trigger("B")
        answers = bench.wait(2)
    assert [(one.part_id, one.cause) for one in answers] == [("A", "too_close"), ("B", "too_close")]


PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("fails", "shown", "verdict", "decides"),
    [
        ("any", [GOOD, GOOD, GOOD], PASS, 2),
        ("any", [GOOD, BAD], FAIL, 1),  # at once
        ("any", [None, BAD], FAIL, 1),
        ("any", [GOOD, None, GOOD], UNKNOWN, 1),
        ("all", [BAD, GOOD], PASS, 1),
        ("all", [BAD, BAD, BAD], FAIL, 2),
        ("all", [BAD, None, BAD], UNKNOWN, 1),
        ("2", [BAD, GOOD, BAD], FAIL, 2),
        ("2", [GOOD, GOOD], PASS, 1),
        ("2", [GOOD, BAD, None], UNKNOWN, 2),
        ("2", [GOOD, None, GOOD], PASS, 2),  # whatever the damaged frame showed, only one could fail
        ("any", [GOOD, GOOD], UNKNOWN, None),  # the third never comes
    ],
)
def test_several_frames_decide_by_the_rule(
    inspector: Inspector, fails: str, shown: list[int | None], verdict: Verdict, decides: int | None
) -> None:
    camera = Hand()
    rules = PartRules(frames=3, fails=fails, within=60 if decides is None else 60_000)
    with running(inspector, Parts(rules), [camera]) as bench:
        bench.parts.trigger("A")
        for level in shown:
            camera.show(level)
        [answer] = bench.wait(1)
    assert (answer.part_id, answer.verdict, answer.frame_id) == ("A", verdict, decides)
    assert len(bench.results) == 1


def test_several_cameras_answer_together_and_a_dead_one_is_named(inspector: Inspector) -> None:
    front, side = Hand("front"), Hand("side")
    with running(inspector, Parts(PartRules(within=200)), [front, side]) as bench:
        bench.parts.trigger("A")
        front.show(GOOD)
        side.show(GOOD)
        bench.wait(1)
        bench.parts.trigger("B")
        side.show(BAD)
        bench.wait(2)  # it fails without the other one
        bench.parts.trigger("C")
        front.show(GOOD)
        bench.wait(3)
    a, b, c = bench.results
    assert (a.verdict, b.verdict, b.source_id) == (Verdict.PASS, Verdict.FAIL, "side")
    assert (c.verdict, c.cause, c.source_id) == (Verdict.UNKNOWN, "no_frame", "side")
    assert "camera side" in c.reason


def test_an_unknown_frame_is_the_answer_with_its_own_cause(inspector: Inspector) -> None:
    camera = Hand()
    with running(inspector, Parts(), [camera]) as bench:
        bench.parts.trigger("A")
        camera.show(None)
        [answer] = bench.wait(1)
    assert (answer.verdict, answer.cause, answer.frame_id) == (Verdict.UNKNOWN, "unreadable", 0)


def test_a_part_whose_frame_is_dropped_says_so(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    camera, gate, infer = Hand(), threading.Event(), inspector.engine.infer
    monkeypatch.setattr(inspector.engine, "infer", lambda frames: (gate.wait(10), infer(frames))[1])
    policy = Policy(health="off", capacity=1, silence=1e6)
    with running(inspector, Parts(PartRules(within=60_000)), [camera], policy=policy) as bench:
        for name in "ABC":
            bench.parts.trigger(name)
            camera.show(GOOD)
            time.sleep(0.05)
        gate.set()
        answers = bench.wait(3)
    assert [(one.part_id, one.cause) for one in answers] == [("A", ""), ("B", "no_frame"), ("C", "")]
    assert "dropped: overtaken" in answers[1].reason


def test_parts_in_flight_are_answered_when_the_run_ends(inspector: Inspector) -> None:
    parts = Parts(PartRules(within=60_000))
    with pytest.raises(ConfigError, match="not begun"):
        parts.trigger()
    with running(inspector, parts, [Hand()]) as bench:
        bench.parts.trigger("A")
    assert [(one.part_id, one.verdict, one.cause) for one in bench.results] == [("A", Verdict.UNKNOWN, "stopped")]
    assert parts.ledger.snapshot()["in_flight"] == 0
    with pytest.raises(ConfigError, match="ended"):
        parts.trigger()


def test_an_error_in_the_callers_code_ends_the_run_also_from_the_thread_that_watches_the_time(
    inspector: Inspector,
) -> None:
    def breaks(result: Any) -> None:
        raise OSError("the printer is on fire")

    with running(inspector, Parts(SOON), [Hand()], on_result=breaks) as bench:
        bench.parts.trigger("A")
        bench.wait(1)
    assert "on fire" in str(bench.error)


def test_a_part_from_before_a_suspend_takes_no_picture_after_it(
    inspector: Inspector, suspend: Callable[[float], None]
) -> None:
    """`time.monotonic` does not notice: the time of the part was not over, and it got the PASS of what came later."""
    front = Hand()
    with running(inspector, Parts(PartRules(within=5000)), [front]) as bench:
        bench.parts.trigger("A")
        suspend(12)
        front.show(GOOD)
        [result] = bench.wait(1)
    assert (result.part_id, result.verdict, result.cause) == ("A", UNKNOWN, "no_frame")


@pytest.mark.parametrize("pause", [0.6, 12])
def test_a_part_announced_in_a_pause_takes_no_picture_of_the_one_before(
    inspector: Inspector, suspend: Callable[[float], None], pause: float
) -> None:
    """Picture and trigger waited for the end of the pause. B came first and passed by the picture of A."""
    front = Hand()
    with running(inspector, Parts(PartRules(within=400)), [front]) as bench:
        bench.parts.trigger("A")
        suspend(pause)
        bench.parts.trigger("B")
        front.show(GOOD)
        answers = bench.wait(2)
    assert [(one.part_id, one.verdict, one.cause) for one in answers] == [
        ("A", UNKNOWN, "no_frame"),
        ("B", UNKNOWN, "no_frame"),
    ]


def test_a_part_decided_before_a_suspend_is_late_after_it(
    inspector: Inspector, suspend: Callable[[float], None]
) -> None:
    """It waited for the part before it, and left as an answer in time."""
    front, side = Hand("front"), Hand("side")
    with running(inspector, Parts(PartRules(within=5000)), [front, side]) as bench:
        bench.parts.trigger("A")
        front.show(GOOD)
        wait_until(lambda: bench.ledger.inferred == 1)
        bench.parts.trigger("B")
        front.show(BAD)
        wait_until(lambda: bench.ledger.inferred == 2)
        suspend(12)
        since = time.monotonic()
        answers = bench.wait(2)
        assert time.monotonic() - since < 3  # not at the end of the 5 s
    assert [(one.part_id, one.verdict) for one in answers] == [("A", UNKNOWN), ("B", FAIL)]
    assert all(6 < time.monotonic() - one.t_answer < 60 for one in answers)


def test_each_bar_code_that_was_not_read_is_a_part(inspector: Inspector) -> None:
    """A reader that sends spaces for none: from the second one on, parts counted as bounces and had no result."""
    with running(inspector, Parts(PartRules(within=50)), [Hand()]) as bench:
        ids = [bench.parts.trigger(blank) for blank in ("", "  ", "  ", "\t")]
        results = bench.wait(4)
    assert [one.part_id for one in results] == ids
    assert len({*map(str.strip, ids)}) == 4
    assert bench.parts.ledger.snapshot()["bounced"] == 0


def test_parts_are_answered_though_a_trigger_cannot_be_closed(inspector: Inspector) -> None:
    class Stuck(BaseTrigger):
        def close(self) -> None:
            super().close()
            raise OSError("the bus is gone")

    triggers = [Stuck("first"), BaseTrigger("second")]
    with running(inspector, Parts(PartRules(within=60_000), triggers), [Hand()]) as bench:
        bench.parts.trigger("A")
    assert [(one.part_id, one.cause) for one in bench.results] == [("A", "stopped")]
    assert triggers[1].stopped.is_set()
    assert "the bus is gone" in str(bench.error)


def test_each_picture_of_a_camera_that_the_line_fires_is_a_part(inspector: Inspector) -> None:
    front, side = Hand("front"), Hand("side")
    with running(inspector, Parts(PartRules(within=4000), ["camera:?tolerance=20"]), [front, side]) as bench:
        start = time.monotonic()
        for number, (one, other) in enumerate(((GOOD, GOOD), (GOOD, BAD), (BAD, None))):
            front.show(one, start + number / 10)
            if other is not None:
                side.show(other, start + number / 10 + 0.005)
            bench.wait(number + 1)
        front.show(GOOD, start + 1)
        time.sleep(0.01)
        side.show(GOOD, start + 1.5)  # not of the same part: the other camera was not fired
        bench.wait(5)
    assert [one.verdict for one in bench.results] == [PASS, FAIL, FAIL, UNKNOWN, UNKNOWN]
    assert len({one.part_id for one in bench.results}) == 5


def test_a_picture_that_is_older_than_the_time_of_its_part_is_stale(inspector: Inspector) -> None:
    """It was `late`, with the advice to look for a busy computer: nobody looked at the camera or its network."""
    camera = Hand()
    with running(inspector, Parts(PartRules(within=500), ["camera:"]), [camera]) as bench:
        camera.show(GOOD, time.monotonic() - 1.5)
        [answer] = bench.wait(1)
        camera.show(GOOD)
        assert bench.wait(2)[1].verdict is PASS
    assert (answer.verdict, answer.cause, answer.source_id) == (UNKNOWN, "stale", "front")
    assert re.search(r"read 1\d{3} ms after it was taken, as far as is known, and within is 500 ms", answer.reason)


def test_parts_leave_in_the_order_of_their_pictures_though_one_camera_is_quicker(inspector: Inspector) -> None:
    """The part before left after this one: a PLC that counts parts took one PASS for the other's FAIL."""
    quick, slow = Hand("quick"), Hand("slow")
    with running(inspector, Parts(PartRules(within=2000), ["camera:"]), [quick, slow]) as bench:
        began = quick.show(GOOD)
        time.sleep(0.3)
        quick.show(GOOD, began + 0.2)  # it has lost the picture of the part between
        time.sleep(0.05)
        for made, level in ((began, GOOD), (began + 0.1, BAD), (began + 0.2, GOOD)):
            slow.show(level, made)
        answers = bench.wait(3)
    assert [(one.verdict, one.frame_id) for one in answers] == [
        (Verdict.PASS, 0),
        (Verdict.FAIL, 1),
        (Verdict.PASS, 2),
    ]


@pytest.mark.parametrize(("within", "age", "verdict"), [(8000, 0.0, PASS), (500, 3.0, UNKNOWN)])
def test_a_camera_that_is_many_parts_behind_another_opens_none_again(
    inspector: Inspector, within: float, age: float, verdict: Verdict
) -> None:
    """Of 20 parts there were 40 results: a PLC that counts parts took the later ones for those of other parts."""
    quick, slow = Hand("quick"), Hand("slow")
    with running(inspector, Parts(PartRules(within=within), ["camera:"]), [quick, slow]) as bench:
        began = time.monotonic() - age
        for camera in (quick, slow):
            for number in range(20):
                camera.show(GOOD, began + 0.03 * number)
                time.sleep(0.03)
        now = quick.show(GOOD)
        slow.show(GOOD, now)
        answers = bench.wait(21)
    assert [one.verdict for one in answers] == [verdict] * 20 + [PASS]
    assert bench.parts.ledger.snapshot()["triggered"] == 21


def test_a_camera_that_lost_a_part_holds_up_no_later_one(inspector: Inspector) -> None:
    """All later results waited for a picture that could not come any more, until the time of the part was over."""
    cameras = [Hand("left"), Hand("right")]
    with running(inspector, Parts(PartRules(within=5000), ["camera:"]), cameras) as bench:
        for number in range(3):
            made = cameras[0].show(GOOD)
            if number != 1:
                cameras[1].show(GOOD, made)
            time.sleep(0.1)
        answers = bench.wait(3, 2.0)
    assert [(one.verdict, one.cause) for one in answers] == [
        (Verdict.PASS, ""),
        (Verdict.UNKNOWN, "no_frame"),
        (Verdict.PASS, ""),
    ]
    assert "the next part was in front of the camera right" in answers[1].reason


def test_a_picture_that_comes_after_the_answer_or_the_next_part_opens_none(inspector: Inspector) -> None:
    front, side = Hand("front"), Hand("side")
    with running(inspector, Parts(PartRules(within=4000), ["camera:?tolerance=20"]), [front, side]) as bench:
        start = time.monotonic()
        side.show(BAD, start)
        bench.wait(1)  # answered by one camera
        front.show(GOOD, start + 0.005)
        side.show(GOOD, start + 0.1)
        side.show(GOOD, start + 0.2)  # the next part, before the other camera's picture of this one
        while bench.parts.ledger.snapshot()["triggered"] < 3:
            time.sleep(0.002)
        front.show(GOOD, start + 0.105)
        front.show(BAD, start + 0.205)
        bench.wait(3)
    assert [one.verdict for one in bench.results] == [FAIL, PASS, FAIL]
    assert bench.ledger.snapshot()["dropped_by_cause"] == {"untriggered": 1}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"within": 0}, "within"),
        ({"frames": 0}, "frames"),
        ({"fails": "most"}, "any, all or a number"),
        ({"fails": "9" * 5000}, "any, all or a number"),
        ({"delay": 1000}, "longer than the delay"),
        ({"min_distance": -1}, "min_distance"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PartRules(**rules)


def test_a_rule_that_the_cameras_cannot_meet_ends_the_run_at_its_start(inspector: Inspector) -> None:
    with running(inspector, Parts(PartRules(fails="3")), [Hand("a"), Hand("b")]) as bench:
        assert "from 1 to 2, a part's frames; not 3" in str(bench.error)
    with running(inspector, Parts(delays={"c": 5}), [Hand("a")]) as bench:
        assert "There is no camera c. Available: a" in str(bench.error)


def test_sinks_find_the_part(inspector: Inspector, tmp_path: Any) -> None:
    sink, camera = SqliteSink(tmp_path / "parts.sqlite"), Hand()
    with running(inspector, Parts(), [camera]) as bench:
        bench.parts.trigger("A-17")
        camera.show(BAD)
        [answer] = bench.wait(1)
    sink.write(answer)
    sink.flush()
    assert sink._connection.execute("SELECT part_id, verdict FROM results").fetchall() == [("A-17", "FAIL")]
    sink.close()


@pytest.mark.parametrize(("distance", "causes"), [(0, {"no_frame", "late"}), (50, {"no_frame", "late", "too_close"})])
def test_a_storm_of_triggers_leaves_no_part_without_an_answer(
    inspector: Inspector, distance: float, causes: set[str]
) -> None:
    """A contact that chatters: hundreds of triggers at once, and one frame. The part after the storm is a usual one."""
    camera, count = Hand(), 900  # a sink takes 1,024
    rules = PartRules(within=400, min_distance=distance)
    with running(inspector, Parts(rules), [camera]) as bench:
        ids = [bench.parts.trigger() for _ in range(count)]
        camera.show(BAD)
        assert is_balanced(bench.parts.ledger.snapshot())
        answered = bench.wait(count, 30)
        figures = bench.parts.ledger.snapshot()
        assert is_balanced(figures)
        assert (figures["triggered"], figures["in_flight"]) == (count, 0)
        time.sleep(distance / 1e3)
        last = bench.parts.trigger("after")
        camera.show(GOOD)
        after = bench.wait(count + 1)[-1]
    assert [one.part_id for one in answered] == ids  # each once, in order
    assert {one.cause for one in answered if one.verdict is Verdict.UNKNOWN} <= causes
    assert sum(one.verdict is Verdict.FAIL for one in answered) <= 1  # the frame's part, if it was not given up before
    assert not any(one.verdict is Verdict.PASS for one in answered)
    assert (after.part_id, after.verdict) == (last, Verdict.PASS)


@pytest.mark.parametrize("seed", range(6))
def test_the_ledger_balances_at_every_instant(inspector: Inspector, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triggers from several threads, cameras that stall, damaged frames, a slow engine, and a stop in the middle."""
    chance = random.Random(seed)
    infer, slow = inspector.engine.infer, random.Random(seed + 100)
    monkeypatch.setattr(
        inspector.engine, "infer", lambda frames: (time.sleep(slow.choice((0, 0, 0.002, 0.02))), infer(frames))[1]
    )
    cameras = [Hand(f"camera-{number}") for number in range(chance.choice((1, 2)))]
    rules = PartRules(
        within=chance.choice((15, 60)),
        frames=chance.choice((1, 2)),
        fails=chance.choice(("any", "all")),
        delay=chance.choice((0, 3)),
        min_distance=chance.choice((0, 2)),
    )
    parts, opened = Parts(rules), list[str]()
    policy = Policy(health="off", capacity=chance.choice((1, 8)), silence=1e6, batch=chance.choice((1, 3)))
    unbalanced: list[Any] = []
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.is_set():
            figures = parts.ledger.snapshot()
            if not is_balanced(figures):
                unbalanced.append(figures)
            time.sleep(0.0005)

    def fire(seed: int) -> None:
        mine = random.Random(seed)
        for number in range(60):
            try:
                opened.append(parts.trigger(f"{seed}-{number}"))
            except ConfigError:
                return
            time.sleep(mine.choice((0, 0.001, 0.004, 0.01)))

    def show(camera: Hand, seed: int) -> None:
        mine = random.Random(seed)
        while not stopped.is_set():
            camera.show(mine.choice((GOOD, GOOD, BAD, None)), time.monotonic() - mine.choice((0, 0, 0.002)))
            time.sleep(mine.choice((0.001, 0.002, 0.03)))

    with running(inspector, parts, cameras, policy=policy) as bench:
        triggers = [threading.Thread(target=fire, args=(seed * 10 + number,)) for number in (1, 2)]
        others = [threading.Thread(target=show, args=(camera, seed)) for camera in cameras]
        others.append(threading.Thread(target=watch))
        for thread in triggers + others:
            thread.start()
        if seed % 2:  # in the middle
            time.sleep(0.1)
            assert bench.stream
            bench.stream.stop()
        for thread in triggers:
            thread.join()
    stopped.set()
    for thread in others:
        thread.join()
    assert bench.error is None
    assert not unbalanced
    figures = parts.ledger.snapshot()
    assert is_balanced(figures)
    assert figures["in_flight"] == 0
    assert figures["triggered"] == len(opened) > 5
    answered = [one.part_id for one in bench.results]
    assert sorted(answered) == sorted(opened)  # none lost, none doubled
    for thread_number in (1, 2):  # each trigger's parts in its order
        mine = [part for part in answered if part.startswith(f"{seed * 10 + thread_number}-")]
        assert mine == sorted(mine, key=lambda part: int(part.partition("-")[2]))
    frames = [(one.source_id, one.frame_id) for one in bench.results if one.frame_id is not None]
    assert len(frames) == len(set(frames))  # no frame answers two parts
    total = bench.ledger.snapshot()
    assert total["captured"] == total["inferred"] + total["dropped"]
    assert total["in_flight"] == 0


def test_a_frame_after_the_window_is_not_of_the_part(inspector: Inspector) -> None:
    """The picture of A is lost, and so is the trigger of the next part, whose picture comes."""
    camera = Hand()
    with running(inspector, Parts(PartRules(within=600, window=100)), [camera]) as bench:
        start = time.monotonic()
        bench.parts.trigger("A", start)
        camera.show(BAD, start + 0.15)
        [result] = bench.wait(1)
        assert (result.part_id, result.cause) == ("A", "no_frame")
        assert bench.ledger.snapshot()["dropped_by_cause"] == {"untriggered": 1}
        later = time.monotonic()
        bench.parts.trigger("B", later)
        camera.show(GOOD, later + 0.05)
        assert bench.wait(2)[1].verdict is PASS


def test_an_id_that_comes_again_after_its_part_is_told(inspector: Inspector) -> None:
    """As the number of a carrier that comes round again: its part had no result, without a word."""
    said: list[str] = []
    with running(inspector, Parts(PartRules(within=50), say=said.append), [Hand()]) as bench:
        bench.parts.trigger("A")
        bench.parts.trigger("A")  # sent twice
        bench.wait(1)
        assert said == []
        for _ in range(2):
            bench.parts.trigger("A")
        assert bench.parts.ledger.snapshot()["bounced"] == 3
    assert said == [
        "the id A came again after the time of its part. That trigger opens no part and gets no result. "
        "Give each part an id of its own, or none."
    ]


@pytest.mark.parametrize("id_option", ["", "&id=100&id_registers=1"])
def test_parts_that_a_slow_plc_announces_are_unknown(inspector: Inspector, id_option: str) -> None:
    """A defective part got the PASS of the next one: its own picture had come before its trigger was known."""
    pytest.importorskip("pymodbus", reason="no pymodbus")
    from plc_bench import Plc

    plc, camera = Plc(), Hand()
    plc.start()
    try:
        trigger = f"modbus://127.0.0.1:{plc.port}/holding/1?poll_ms=2&timeout_ms=5000{id_option}"
        parts = Parts(PartRules(within=1500), [trigger])
        with running(inspector, parts, [camera]) as bench:
            wait_until(lambda: parts.triggers[0].ready)  # type: ignore[attr-defined]
            time.sleep(0.1)
            for number, (level, takes) in enumerate(((BAD, 0.0), (BAD, 0.3), (GOOD, 0.3), (BAD, 0.0)), 1):
                plc.takes = takes
                time.sleep(0.7)  # the question before is answered
                plc.set("hr", 1, number)
                plc.set("hr", 100, int.from_bytes(f"{number} ".encode(), "big"))
                time.sleep(0.05)
                camera.show(level)
            bench.wait(4)
    finally:
        plc.close()
    assert [(one.verdict.value, one.cause) for one in bench.results] == [
        ("FAIL", ""),
        ("UNKNOWN", "no_frame"),
        ("UNKNOWN", "no_frame"),
        ("FAIL", ""),
    ]
    assert re.fullmatch(
        r"the trigger is known up to \d+ ms late: the PLC answers slowly, .*, and the part may have passed meanwhile",
        bench.results[1].reason,
    )


def test_a_part_whose_trigger_is_read_after_its_frame_came_is_unknown(inspector: Inspector) -> None:
    """As GPIO on a busy machine: the part was decided on the frame of the next one, and passed."""
    camera = Hand()
    with running(inspector, Parts(), [camera]) as bench:
        fired = time.monotonic()
        camera.show(BAD)
        wait_until(lambda: bench.ledger.snapshot()["captured"] == 1)
        time.sleep(0.15)
        bench.parts.trigger("A", fired)
        camera.show(GOOD)
        [late] = bench.wait(1)
        fired = time.monotonic()
        time.sleep(0.15)
        bench.parts.trigger("B", fired)  # as late, and its frame is still to come
        camera.show(BAD, fired + 0.01)
        in_time = bench.wait(2)[1]
    assert (late.part_id, late.verdict, late.cause) == ("A", UNKNOWN, "no_frame")
    assert re.fullmatch(
        r"its trigger was read \d+ ms after it fired, when frames of the part had come, and the part may have .*",
        late.reason,
    )
    assert (in_time.part_id, in_time.verdict) == ("B", FAIL)


def test_a_part_that_took_a_frame_of_one_whose_trigger_is_late_is_unknown(inspector: Inspector) -> None:
    """A frame of A is lost. A takes one of B, of which nobody knows yet."""
    camera, said = Hand(), list[str]()
    with running(inspector, Parts(PartRules(frames=2), say=said.append), [camera]) as bench:

        def show_last_after_the_next_fired(frames: int, in_all: int) -> float:
            for _ in range(frames):
                fired = time.monotonic()
                camera.show(GOOD)
            wait_until(lambda: bench.ledger.snapshot()["inferred"] == in_all)
            time.sleep(0.15)
            return fired

        bench.parts.trigger("A")
        bench.parts.trigger("after A", show_last_after_the_next_fired(1, 1))
        bench.parts.trigger("C")
        bench.parts.trigger("after C", show_last_after_the_next_fired(2, 3))  # C is answered, A was not
        bench.wait(4)
    assert [(one.part_id, one.verdict.value) for one in bench.results] == [
        ("A", "UNKNOWN"),
        ("after A", "UNKNOWN"),
        ("C", "PASS"),
        ("after C", "UNKNOWN"),
    ]
    assert bench.results[0].reason.startswith("a frame may show the next part, whose trigger was read ")
    [line] = said
    assert re.fullmatch(r"part C may have been decided on a frame of the next one, whose trigger was read .*", line)


class Unstamped:
    """A network camera that says nothing of when its pictures were made, as `edgead.runtime.sources.live.Capture`."""

    def __init__(self) -> None:
        self.shown: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def read(self) -> tuple[bool, Any]:
        level = self.shown.get()
        return level is not None, frame_of(level or 0)

    def release(self) -> None:
        self.shown.put(None)


@pytest.mark.parametrize("window", [0, 60], ids=["B is announced", "B is not announced"])
def test_a_picture_that_may_be_of_the_next_part_is_of_none(inspector: Inspector, window: float) -> None:
    """B comes sooner than usual, so its picture may have waited. It counted as old, and A passed with it."""
    camera = Unstamped()
    source = LiveSource("front", lambda: camera)
    with running(inspector, Parts(PartRules(frames=2, within=400, window=window)), [source]) as bench:
        for _ in range(4):
            camera.shown.put(GOOD)
            time.sleep(0.2)
        bench.parts.trigger("A")
        camera.shown.put(GOOD)  # the second one is lost
        time.sleep(0.1)
        if not window:
            bench.parts.trigger("B")
        camera.shown.put(GOOD)
        answer = bench.wait(1)[0]
        camera.release()
    assert (answer.part_id, answer.verdict, answer.cause) == ("A", Verdict.UNKNOWN, "no_frame")


def test_pictures_of_uncertain_time_are_of_the_part_in_front_of_the_camera(inspector: Inspector) -> None:
    """Also for pictures that open the parts: those of another camera join a part only if they certainly show it."""
    front, side = Hand("front"), Hand("side")
    with running(inspector, Parts(PartRules(within=300), ["camera:?tolerance=50"]), [front, side]) as bench:
        now = front.show(GOOD)
        side.show(GOOD, now - 0.01, unsure=True)
        assert bench.wait(1)[0].verdict is PASS
        now = front.show(GOOD)
        time.sleep(0.1)
        side.show(GOOD, now, unsure=True)
        assert [one.verdict for one in bench.wait(3)[1:]] == [Verdict.UNKNOWN, Verdict.UNKNOWN]


def test_a_trigger_with_the_id_of_a_recent_part_opens_none(inspector: Inspector, monkeypatch: Any) -> None:
    monkeypatch.setattr("edgead.line.parts.REMEMBERED", 2)
    camera = Hand()
    with running(inspector, Parts(), [camera]) as bench:
        for part_id in ("A", "A", "B", "A"):
            assert bench.parts.trigger(part_id) == part_id
        camera.show(GOOD)
        camera.show(BAD)
        bench.wait(2)
        assert bench.parts.trigger("A") == "A"  # also when it is answered
        for _ in range(2):
            assert bench.parts.trigger() != bench.parts.trigger()  # parts without an id are all different
        figures = bench.parts.ledger.snapshot()
        assert (figures["triggered"], figures["bounced"]) == (6, 3)
        bench.parts.trigger("C")  # A is forgotten
        bench.parts.trigger("A")
        assert bench.parts.ledger.snapshot()["triggered"] == 8
    assert is_balanced(bench.parts.ledger.snapshot())


@pytest.mark.parametrize("notified", [True, False], ids=["notified", "polled"])
def test_a_picture_of_a_watched_folder_is_of_the_part_that_it_came_for(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notified: bool
) -> None:
    """Pictures counted as made when they were read: at three parts a second, defective ones got the PASS of another."""
    if not notified:
        monkeypatch.setattr("edgead.runtime.sources.watch.open_notifier", lambda *_: (None, "a test wants it so"))
    shown = {f"{number}": BAD if number in (1, 2, 5) else GOOD for number in range(7)}
    with running(inspector, Parts(PartRules(within=20_000)), [f"watch:{tmp_path}"]) as bench:
        for part_id, level in shown.items():
            bench.parts.trigger(part_id)
            (tmp_path / ".writing").write_bytes(encode_png(frame_of(level)))
            (tmp_path / ".writing").rename(tmp_path / f"{part_id}.png")
            time.sleep(0.05)
        answers = bench.wait(len(shown), 30)
    assert {one.part_id: Path(one.path).stem for one in answers} == {part_id: part_id for part_id in shown}
    assert [one.verdict for one in answers] == [
        Verdict.FAIL if level == BAD else Verdict.PASS for level in shown.values()
    ]


@pytest.mark.parametrize("local", [True, False], ids=["local", "network drive"])
def test_a_picture_that_came_while_its_folder_was_away_is_of_no_later_part(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    """It counted as made when the folder was back, and B passed by the picture of A."""
    if not local:
        monkeypatch.setattr("edgead.runtime.sources.watch.LOCAL", frozenset())
    folder, away = tmp_path / "watched", tmp_path / "away"
    folder.mkdir()
    with running(inspector, Parts(PartRules(within=1500)), [f"watch:{folder}?poll=0.02"]) as bench:
        bench.parts.trigger("A")
        folder.rename(away)
        (away / "A.png").write_bytes(encode_png(frame_of(GOOD)))
        wait_until(lambda: bool(bench.ledger.snapshot()["reported_by_cause"]))
        time.sleep(0.1)
        bench.parts.trigger("B")
        away.rename(folder)
        answers = [one for one in bench.wait(3) if one.part_id]
    assert [(one.part_id, one.verdict) for one in answers] == [("A", PASS if local else UNKNOWN), ("B", UNKNOWN)]
