"""The conveyor: sends the parts of one life past light barrier and camera, with their faults."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from faults import KILLED_BEFORE, Event, Life, PlannedPart
from judge import Judge, Part
from line_camera import SimulatedCamera
from line_process import PRODUCTS, RULES, LineProcess
from pictures import draw
from simulated_plc import SimulatedPlc

from edgead.errors import EdgeadError

IN_FLIGHT = 4
"""Parts between trigger and answer, at most: the conveyor waits."""
PATIENCE = 60.0
"""Seconds in which the line must start, answer and end."""
GONE = (OSError, http.client.HTTPException)
"""What a request to a killed line raises."""


@dataclass
class Seen:
    """What was measured.

    Attributes:
        faults: how often each kind happened.
        changeover: seconds of each request for a product until its answer, after which it decides.
        hot_swap: seconds from each HUP until the PLC read the first answer of the new bundle.
        start: seconds of each start of a line until the PLC found it alive.
        busy: seconds in which parts came, without starts and ends of the line.
    """

    faults: Counter[str] = field(default_factory=Counter)
    changeover: list[float] = field(default_factory=list)
    hot_swap: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)
    busy: float = 0.0


class Conveyor:
    """Runs one life of a line after the other.

    Args:
        line, camera, plc, judge: are shared by all lives.
    """

    def __init__(self, line: LineProcess, camera: SimulatedCamera, plc: SimulatedPlc, judge: Judge) -> None:
        self._line, self._camera, self._plc, self._judge = line, camera, plc, judge
        self.seen = Seen()
        self.parts: list[Part] = []
        self._number = 0
        self._bundles: set[int] = set()
        self._swap: tuple[int, float] | None = None
        self._fired = 0.0
        self._killed = False

    def run(self, life: Life) -> None:
        """Run a life. Afterwards `parts` has its announced parts.

        Raises:
            EdgeadError: the line does not start, answer or end.
        """
        self.parts, self._bundles, self._swap, self._killed = [], {life.first}, None, False
        began = time.monotonic()
        self._camera.disconnect()
        self._line.start(life.with_products, life.first)
        self._await(lambda: self._camera.connected and self._plc.alive)
        self._judge.begin()
        self.seen.start.append(time.monotonic() - began)
        began = time.monotonic()
        killer = None
        for place, planned in enumerate(life.parts):
            if life.killed_after is not None and place == len(life.parts) - KILLED_BEFORE:
                killer = threading.Timer(life.killed_after, self._kill)
                killer.start()
            for event in life.events.get(place, ()):
                self._happen(event, life.with_products)
            self._bring(planned, 1 if life.quiet else IN_FLIGHT)
        if killer:
            killer.join()
        else:
            self._await(lambda: not self._judge.in_flight())
        self.seen.busy += time.monotonic() - began
        if not killer:
            self._end()
        self._judge.settle()

    def _kill(self) -> None:
        self._killed = True
        self._judge.kill()
        self._line.kill()
        self.seen.faults["kill"] += 1

    def _end(self) -> None:
        """End the line cleanly."""
        told = self._line.end()["parts"]
        self._judge.compare(len(self.parts), told["triggered"], told["answered"])

    def _bring(self, planned: PlannedPart, most: int) -> None:
        """Let a part pass the light barrier and the camera."""
        number, self._number = self._number, self._number + 1
        self._await(lambda: self._killed or self._judge.in_flight() < most)
        self._note_swap()
        part = Part(number, f"part-{number}", planned.fails, set(self._bundles), time.monotonic())
        if planned.triggered:
            self._announce(part, planned)
        else:
            self.seen.faults["lost trigger"] += 1
            time.sleep(max(0.0, self._fired + RULES["window"] / 1e3 - time.monotonic()))  # the pitch of the parts
        if planned.pictured:
            fate = self._camera.expose(draw(number, planned.fails))
            part.shown = fate == "shown"
            if not part.shown:
                self.seen.faults[f"picture {fate} in a stall"] += 1
        else:
            self.seen.faults["lost picture"] += 1
        if planned.triggered and planned.bounces == "late":
            self._fire(part)

    def _announce(self, part: Part, planned: PlannedPart) -> None:
        self._judge.announce(part)
        if not self._fire(part):
            self._judge.refuse(part)
            return
        self.parts.append(part)
        if planned.bounces:
            self.seen.faults["bounced trigger"] += 1
        if planned.bounces == "at once":
            self._fire(part)

    def _fire(self, part: Part) -> bool:
        try:
            self._line.fire(part.id)
            self._fired = time.monotonic()
            return True
        except GONE:
            if not self._killed:
                raise
            return False

    def _happen(self, event: Event, with_products: bool) -> None:
        if event.kind == "change":
            if with_products:
                self._change_over(event.bundle)
            else:
                self._replace(event.bundle)
            return
        self.seen.faults[event.kind] += 1
        if event.kind == "stall":
            self._camera.stall(event.seconds, event.loses)
        else:
            self._plc.restart(event.seconds)

    def _change_over(self, bundle: int) -> None:
        began = time.monotonic()
        try:
            self._line.change_over(PRODUCTS[bundle - 1])
        except GONE:
            if not self._killed:
                raise
            return
        self.seen.faults["changeover"] += 1
        self.seen.changeover.append(time.monotonic() - began)
        self._bundles = {bundle}

    def _replace(self, bundle: int) -> None:
        if bundle in self._bundles or self._swap:
            return  # it decides already, or another one is being loaded
        self.seen.faults["hot swap"] += 1
        self._judge.allow(bundle)
        self._bundles.add(bundle)
        self._swap = bundle, time.monotonic()
        self._line.link(bundle)
        self._line.reload()

    def _note_swap(self) -> None:
        """From the first answer of a new bundle on, the old one must not decide."""
        if self._swap and self._judge.deciding == self._swap[0]:
            self._bundles = {self._swap[0]}
            self.seen.hot_swap.append(time.monotonic() - self._swap[1])
            self._swap = None

    def _await(self, condition: Callable[[], bool]) -> None:
        """Wait, while the camera works."""
        until = time.monotonic() + PATIENCE
        while not condition():
            if self._plc.error:
                raise self._plc.error
            if not self._killed and (died := self._line.died):
                raise EdgeadError(f"The line has ended by itself:\n{died}")
            if time.monotonic() > until:
                raise EdgeadError(f"The line did not answer within {PATIENCE:g} s.")
            self._camera.work()
            time.sleep(0.0002)
