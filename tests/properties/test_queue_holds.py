"""The queue before the engine, against a model of its rules in a few lines, in any order of events."""

from __future__ import annotations

from collections import deque

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from settings import some

from edgead.decision import Verdict
from edgead.runtime.frame_inspector import Prepared
from edgead.runtime.frame_queue import FrameQueue
from edgead.runtime.ledger import Ledger
from edgead.runtime.result import Result
from edgead.runtime.sources import Captured

SOURCES = 2


def make(source: int, number: int) -> Prepared:
    return Prepared(Captured(None, "", f"s{source}", number, 0.0), None, (0, 0), "", "", 0.0, 0.0)


class QueueModel(RuleBasedStateMachine):
    """What waits, what comes and what was dropped, as the documentation says it."""

    @initialize(policy=st.sampled_from(["drop-oldest", "drop-newest"]), capacity=st.integers(1, 3))
    def begin(self, policy: str, capacity: int) -> None:
        self.dropped: list[tuple[int, str]] = []
        self.ledger = Ledger()
        self.queue = FrameQueue(
            self.ledger,
            [True] * SOURCES,
            policy,
            capacity,
            0,
            lambda captured, cause: self.told.append((captured.frame_id, cause)),
        )
        self.told: list[tuple[int | None, str]] = []
        self.policy, self.capacity = policy, capacity
        self.waiting: list[deque[int]] = [deque() for _ in range(SOURCES)]
        self.coming: list[deque[int]] = [deque() for _ in range(SOURCES)]
        self.number = self.entered = self.counted = 0
        self.closed = self.was_cut = False

    def tell(self, captured: Captured, cause: str) -> None:
        self.told.append((captured.frame_id, cause))

    @rule(source=st.integers(0, SOURCES - 1))
    def enter(self, source: int) -> None:
        self.number += 1
        accepted = self.queue.enter(source, make(source, self.number).captured)
        assert accepted != self.closed
        if accepted:
            self.entered += 1
            self.coming[source].append(self.number)

    @rule(source=st.integers(0, SOURCES - 1))
    def put(self, source: int) -> None:
        if not self.coming[source]:
            return
        number, waiting = self.coming[source].popleft(), self.waiting[source]
        self.queue.put(source, make(source, number))
        if self.was_cut:
            self.dropped.append((number, "stopped"))
        elif len(waiting) < self.capacity:
            waiting.append(number)
        elif self.policy == "drop-newest":
            self.dropped.append((number, "refused"))
        else:
            self.dropped.append((waiting.popleft(), "overtaken"))
            waiting.append(number)

    @rule(source=st.integers(0, SOURCES - 1))
    def turn_away(self, source: int) -> None:
        if self.coming[source]:
            number = self.coming[source].popleft()
            self.queue.turn_away(source, make(source, number).captured, "idle")
            self.dropped.append((number, "idle"))

    @rule(most=st.integers(1, 4))
    def take(self, most: int) -> None:
        taken = self.queue.take(most, 0)
        assert len(taken) == min(most, sum(map(len, self.waiting)))
        for source, prepared in taken:
            assert prepared.captured.frame_id == self.waiting[source].popleft()
            self.ledger.count(Result(0.0, Verdict.PASS, "", 1.0, source_id=f"s{source}"))
            self.counted += 1

    @precondition(lambda self: self.number > 3)
    @rule()
    def close(self) -> None:
        self.queue.close()
        self.closed = True

    @precondition(lambda self: self.number > 3)
    @rule()
    def cut(self) -> None:
        self.queue.cut()
        self.dropped += [(number, "stopped") for waiting in self.waiting for number in waiting]
        self.waiting = [deque() for _ in range(SOURCES)]
        self.closed = self.was_cut = True

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "ledger"):
            return
        facts = self.ledger.snapshot()
        assert facts["captured"] == self.entered == facts["inferred"] + facts["dropped"] + facts["in_flight"]
        assert facts["inferred"] == self.counted
        assert self.told == self.dropped
        assert sum(facts["dropped_by_cause"].values()) == len(self.dropped)
        left = sum(map(len, self.waiting)) + sum(map(len, self.coming))
        assert facts["in_flight"] == left
        for source, waiting in enumerate(self.waiting):
            assert len(waiting) <= self.capacity
            assert self.queue.is_empty(source) == (not waiting and not self.coming[source])
        assert self.queue.ended == (self.closed and left == sum(map(len, self.coming)) * self.was_cut)


QueueModel.TestCase.settings = some
test_the_queue_is_its_model = QueueModel.TestCase
