"""What the page knows of a run: takes what the deciding thread left, and builds the state and the pictures from it."""

from __future__ import annotations

import math
import time
from typing import cast

from edgead import __version__
from edgead.marks import Marks
from edgead.runtime.identity import new_id
from edgead.runtime.ledger import Snapshot
from edgead.runtime.observer import Line
from edgead.runtime.result import Result
from edgead.runtime.sink_worker import SinkAccount
from edgead.text import utc_now
from edgead.view.banner import banner_of
from edgead.view.bundles import Bundles
from edgead.view.curves import Curves, Hours, Rate, Samples
from edgead.view.rejects import Rejects
from edgead.view.seen import Seen, take_all
from edgead.view.state import CameraState, State, model_of


class _Camera:
    """What is remembered of one camera."""

    def __init__(self) -> None:
        self.curves, self.hours, self.rate = Curves(), Hours(), Rate()


class Log:
    """The page's memory. Only its thread calls `update`.

    Args:
        line: the run.
        seen: what the deciding thread leaves.
        rejects: the last rejects.
        marks: of them.
        bundles: for changeovers.
        may_change: see `State`.
    """

    def __init__(
        self, line: Line, seen: Seen, rejects: Rejects, marks: Marks, bundles: Bundles, may_change: bool
    ) -> None:
        self._line, self._seen, self._rejects, self._marks = line, seen, rejects, marks
        self._bundles, self._may_change = bundles, may_change
        self._run, self._cameras = new_id(), dict[str, _Camera]()
        self.samples = Samples()

    def update(self) -> Snapshot:
        """Take what is new and return the ledger at this moment."""
        facts = []
        while self._seen.facts:
            facts.append(self._seen.facts.popleft())
        for name in [*self._line.cameras, *self._seen.latest]:
            self._cameras.setdefault(name, _Camera())
        for fact in facts:
            self._cameras[fact.camera].curves.add(fact)
        self.samples.add(facts)
        for queue in list(self._seen.rejects.values()):
            for result in take_all(queue):
                self._rejects.add(result)
        ledger, now, clock = self._line.ledger(), time.time(), time.monotonic()
        for name, figures in ledger["sources"].items():
            if camera := self._cameras.get(name):
                camera.hours.update(figures, now)
                camera.rate.update(figures["inferred"], clock)
        return ledger

    def pictures(self) -> list[tuple[str, Result]]:
        """Return the newest result with a picture of each camera."""
        return [(name, seen[0]) for name in self._cameras if (seen := self._seen.pictured.get(name))]

    def state(self, ledger: Snapshot) -> State:
        """Build the state.

        Args:
            ledger: what `update` returned.
        """
        failures = self._line.failed_sources
        return State(
            at=utc_now("milliseconds"),
            run=self._run,
            version=__version__,
            paused=self._line.paused,
            may_change=self._may_change,
            cameras=[
                self._camera_state(name, camera, ledger, failures.get(name, ""))
                for name, camera in self._cameras.items()
            ],
            ledger={name: value for name, value in ledger.items() if name != "sources"},  # type: ignore[arg-type]
            sinks=[_without_details(account) for account in self._line.sinks()],
            model=model_of(self._line),
            bundles=self._bundles.names(),
        )

    def _camera_state(self, name: str, camera: _Camera, ledger: Snapshot, failure: str) -> CameraState:
        now, policy = time.monotonic(), self._line.policy
        result, came = self._seen.latest.get(name, (None, now))
        shown, pictured = self._seen.pictured.get(name, (None, now))
        age = now - _made(result, came)
        banner = banner_of(result, age, paused=self._line.paused, failure=failure, recent=policy.silence)
        scored = result is not None and math.isfinite(result.score)
        live = name in self._line.cameras
        return CameraState(
            name=name,
            banner=banner,
            age=None if result is None else round(age, 2),
            picture_age=None if shown is None else round(now - _made(shown, pictured), 2),
            frame_id=result.frame_id if result else None,
            score=result.score if result and scored else None,
            threshold=result.threshold if result and scored else None,
            scores=list(camera.curves.scores),
            latency=camera.curves.latency(),
            per_second=camera.rate.value(),
            figures=ledger["sources"].get(name),
            hours=camera.hours.state(),
            rejects=[each.state(self._marks.of(each.result.id)) for each in self._rejects.of(name)],
            checked=policy.health == "all" or (policy.health == "live" and live),
            drift=self._line.alarms().get(name, []),
        )


def _made(result: Result | None, came: float) -> float:
    """Return when the picture of a result was made, as far as it is known, else when the result came."""
    return (result.t_capture if result else 0.0) or came


def _without_details(account: SinkAccount) -> SinkAccount:
    """Leave out what a sink adds to its account: a plug-in's may be no JSON."""
    return cast(SinkAccount, {name: value for name, value in account.items() if name in SinkAccount.__annotations__})
