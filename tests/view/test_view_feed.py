"""What is sent: the newest only, at a bounded rate, one copy for all viewers."""

from __future__ import annotations

import asyncio
import json

import numpy as np

from edgead.decision import Verdict
from edgead.runtime.result import Result
from edgead.view.feed import HELD_EVERY, MOST_PICTURES, Feed
from edgead.view.hub import Hub
from edgead.view.rejects import Rejects


def test_a_slow_viewer_gets_the_newest_of_each_kind() -> None:
    async def look() -> list[bytes]:
        hub = Hub()
        hub.begin()
        slow, got = hub.messages(), []
        for number in range(3):
            hub.publish("state", "state", b"%d" % number)
        hub.publish("picture", "picture front", b"a")
        await asyncio.sleep(0)
        got.append(await slow.__anext__())
        assert hub.viewers == 1
        for number in range(3, 9):
            hub.publish("state", "state", b"%d" % number)
        await asyncio.sleep(0)
        got.append(await slow.__anext__())
        hub.close()
        await asyncio.sleep(0)
        got.append(await slow.__anext__())
        await slow.aclose()
        assert hub.viewers == 0
        return got

    first, second, last = asyncio.run(look())
    assert first == b"event: state\ndata: 2\n\nevent: picture\ndata: a\n\n"
    assert second == b"event: state\ndata: 8\n\n"
    assert last == b"event: ended\ndata: {}\n\n"


def test_a_viewer_that_comes_while_nobody_was_seen_misses_nothing() -> None:
    async def look(leaves: bool) -> list[bytes]:
        hub = Hub()
        hub.begin()
        viewer, got = hub.messages(), []
        hub.publish("state", "state", b"0")
        await asyncio.sleep(0)
        got.append(await viewer.__anext__())
        if leaves:
            await viewer.aclose()
        hub.publish("state", "state", b"1")
        hub.forget()  # whoever looked before the viewer came
        await asyncio.sleep(0)
        viewer = hub.messages() if leaves else viewer
        hub.publish("picture", "picture front", b"a")
        await asyncio.sleep(0)
        return [*got, await viewer.__anext__()]

    assert asyncio.run(look(leaves=False))[1] == b"event: state\ndata: 1\n\nevent: picture\ndata: a\n\n"
    assert asyncio.run(look(leaves=True))[1] == b"event: picture\ndata: a\n\n"


def test_a_hub_without_a_server_takes_messages_and_does_nothing() -> None:
    hub = Hub()
    hub.publish("state", "state", b"1")
    hub.close()
    assert hub.viewers == 0


class Kept(Hub):
    """Keeps what is published."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, str]] = []

    def publish(self, event: str, key: str, data: bytes) -> None:
        self.events.append((event, json.loads(data)["camera"]))

    def take(self, kind: str) -> list[str]:
        found = [camera for event, camera in self.events if event == kind]
        self.events = [one for one in self.events if one[0] != kind]
        return found


def result_of(camera: str, number: int) -> Result:
    frame = np.full((24, 32, 3), 90, np.uint8)
    return Result(
        2.0, Verdict.FAIL, "", 1.0, source_id=camera, frame=frame, frame_size=(24, 32), id=f"{camera} {number}"
    )


def test_pictures_are_bounded_and_every_camera_has_its_turn() -> None:
    hub = Kept()
    feed = Feed(hub, Rejects())
    cameras = [f"camera {number}" for number in range(7)]
    turns = []
    for step in range(1, 4):
        feed.send([(camera, result_of(camera, step)) for camera in cameras], float(step))
        turns.append(hub.take("picture"))
    assert [len(turn) for turn in turns] == [MOST_PICTURES] * 3
    assert {camera for turn in turns for camera in turn} == set(cameras)
    feed.send([(camera, result_of(camera, 3)) for camera in turns[-1]], 4.0)
    assert hub.take("picture") == []  # they have it


def test_many_rejects_do_not_mean_many_messages() -> None:
    hub, rejects = Kept(), Rejects()
    feed = Feed(hub, rejects)
    for number in range(100):
        result = result_of("front", number)
        rejects.add(result)
        feed.send([("front", result)], 100 + number * HELD_EVERY / 10)
    assert 9 <= len(hub.take("held")) <= 11
    assert 9 <= len(hub.take("strip")) <= 11
