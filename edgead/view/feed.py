"""Sends pictures to the viewers at a bounded rate, each encoded once for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from edgead.runtime.result import Result
from edgead.view.hub import Hub
from edgead.view.pictures import LIVE_SIDE, draw
from edgead.view.rejects import Rejects
from edgead.view.state import to_json

MOST_PICTURES = 3
"""Live pictures in one call of `Feed.send`, of all cameras together."""
HELD_EVERY, STRIP_EVERY = 1.0, 1.0
"""Least seconds between two pictures of a camera's last reject, and between two strips."""


class Feed:
    """What was sent to the viewers.

    Args:
        hub: to send through.
        rejects: the last rejects.
    """

    def __init__(self, hub: Hub, rejects: Rejects) -> None:
        self._hub, self._rejects = hub, rejects
        self._sent: dict[str, tuple[object, float]] = {}

    def forget(self) -> None:
        """Send everything again: nobody has it."""
        self._sent.clear()

    def send(self, pictured: Sequence[tuple[str, Result]], now: float) -> None:
        """Send what is new: last pictures, last rejects, strips.

        Args:
            pictured: the newest result with a frame of each camera.
            now: `time.monotonic` seconds.
        """
        waiting = sorted(pictured, key=lambda one: self._when(f"picture {one[0]}"))
        for camera, result in [one for one in waiting if self._is_new(f"picture {one[0]}", one[1].id)][:MOST_PICTURES]:
            if result.frame is not None:
                picture = draw(result, result.frame, LIVE_SIDE)
                values = {"id": result.id, "verdict": result.verdict.value, "picture": picture}
                self._publish("picture", camera, values, result.id, now)
        for camera, _ in pictured:
            self._send_rejects(camera, now)

    def _send_rejects(self, camera: str, now: float) -> None:
        rejects = self._rejects.of(camera)
        ids = [each.result.id for each in rejects]
        if ids and self._is_new(f"held {camera}", ids[0]) and now - self._when(f"held {camera}") >= HELD_EVERY:
            values = {**dataclasses.asdict(rejects[0].state("")), "picture": rejects[0].live}
            self._publish("held", camera, values, ids[0], now)
        if self._is_new(f"strip {camera}", ids) and now - self._when(f"strip {camera}") >= STRIP_EVERY:
            shown = [{**dataclasses.asdict(each.state("")), "picture": each.small} for each in rejects]
            self._publish("strip", camera, {"rejects": shown}, ids, now)

    def _publish(self, event: str, camera: str, values: Mapping[str, object], what: object, now: float) -> None:
        self._hub.publish(event, f"{event} {camera}", to_json({"camera": camera, **values}))
        self._sent[f"{event} {camera}"] = what, now

    def _is_new(self, key: str, what: object) -> bool:
        return key not in self._sent or self._sent[key][0] != what

    def _when(self, key: str) -> float:
        return self._sent[key][1] if key in self._sent else 0.0
