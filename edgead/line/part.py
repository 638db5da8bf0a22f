"""One part: its frames, its rule, and when its answer is certain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, cast

from edgead.decision import Verdict
from edgead.errors import ConfigError
from edgead.runtime.clock import standstill
from edgead.runtime.frame_inspector import FrameInspector
from edgead.runtime.result import Result
from edgead.schema import Within, check
from edgead.settings import parse_settings, split_settings

LONGEST = 600_000.0
"""Milliseconds."""
DIGITS = 6
"""Of a number of frames that must fail, at most: Python refuses to read thousands."""


@dataclass(frozen=True)
class PartRules:
    """What belongs to a part, and how it is answered.

    Attributes:
        within: milliseconds from the trigger to the answer. A part without one by then is UNKNOWN.
        frames: of each camera.
        fails: how many of all frames must fail to fail the part: ``any`` (one; all must pass), ``all``, or a number.
        delay: milliseconds from the trigger until the part is in front of the cameras. A negative one also takes
            frames that were made before the trigger and arrive after it.
        min_distance: milliseconds between two triggers; closer ones are parts that cannot be told apart.
        window: milliseconds, after trigger and delay, in which the part is in front of the cameras: a later frame shows
            another one. 0 for `within`.

    Raises:
        ConfigError: a value that makes no sense.
    """

    within: Annotated[float, Within(0, LONGEST, above=True)] = 1000.0
    frames: Annotated[int, Within(1, 1000)] = 1
    fails: str = "any"
    delay: Annotated[float, Within(-LONGEST, LONGEST)] = 0.0
    min_distance: Annotated[float, Within(0, LONGEST)] = 0.0
    window: Annotated[float, Within(0, LONGEST)] = 0.0

    def __post_init__(self) -> None:
        check(self)
        if not isinstance(self.fails, str):
            raise ConfigError(f"fails must be text: any, all or a number of frames, not {self.fails!r}.")
        number = self.fails.isascii() and self.fails.isdecimal() and len(self.fails) <= DIGITS
        if self.fails not in ("any", "all") and not number:
            raise ConfigError(f"fails must be any, all or a number of frames, not '{self.fails[:40]}'.")
        if self.delay >= self.within:
            raise ConfigError(f"within, {self.within:g} ms, must be longer than the delay of {self.delay:g} ms.")

    def needed(self, frames: int) -> int:
        """Return how many of a part's frames must fail to fail it.

        Raises:
            ConfigError: there are not so many.
        """
        count = {"any": 1, "all": frames}.get(self.fails) or int(self.fails)
        if not 1 <= count <= frames:
            raise ConfigError(f"fails must be any, all or a number from 1 to {frames}, a part's frames; not {count}.")
        return count


def refuse_long_delays(rules: PartRules, delays: Mapping[str, float]) -> None:
    """Refuse a camera that a part reaches only when it must be answered.

    Args:
        rules: of every part.
        delays: milliseconds from the trigger to the camera, by camera.

    Raises:
        ConfigError: there is one.
    """
    late = next((name for name, delay in delays.items() if delay >= rules.within), None)
    if late is not None:
        raise ConfigError(
            f"within, {rules.within:g} ms, must be longer than the delay of the camera {late}, {delays[late]:g} ms."
        )


def read_rules(texts: Iterable[str]) -> PartRules:
    """Parse ``NAME=VALUE`` settings.

    Raises:
        ConfigError: an unknown name, or a value that makes no sense.
    """
    given = split_settings(texts, "--part NAME=VALUE, as in --part within=200")
    return PartRules(**cast(dict[str, Any], parse_settings(PartRules, given, "--part")))


class Part:
    """A part from its trigger to its answer. Not thread-safe.

    Args:
        part_id: unique for ever.
        at: of its trigger, `time.monotonic` seconds.
        cameras: names of the sources that each owe it frames.
        rules: of the line.
        inspector: decides on its frames.

    Attributes:
        answer: its result; None until it is certain.
        taken: when the newest frame that it took was made, by camera.
    """

    def __init__(
        self, part_id: str, at: float, cameras: Sequence[str], rules: PartRules, inspector: FrameInspector
    ) -> None:
        self.id, self.at, self.until = part_id, at, at + rules.within / 1e3
        self.inspector = inspector
        self.answer: Result | None = None
        self.taken: dict[str, float] = {}
        self._lacks = dict.fromkeys(cameras, rules.frames)
        self._frames = rules.frames * len(cameras)
        self._fails_at = rules.needed(self._frames)
        self._awaited = self._passed = self._failed = 0
        self._first_unknown: Result | None = None
        self._missing: dict[str, str] = {}

    def overdue(self, now: float) -> float:
        """Return for how many seconds its time has been over, below 0 if it is not, at a `time.monotonic` of now.

        That clock does not include time in suspend, which counts here.
        """
        return max(now - self.until, standstill.since(self.at) - (self.until - self.at))

    def lacks(self, camera: str) -> bool:
        """Return whether it still takes a frame of this camera."""
        return self.answer is None and self._lacks[camera] > 0

    def owes_nothing(self, camera: str) -> bool:
        """Return whether no further frame of this camera can be its."""
        return self._lacks[camera] == 0

    def take(self, camera: str, made: float) -> None:
        """Give it a frame of a camera, whose result or loss follows."""
        self.taken[camera] = made
        self._lacks[camera] -= 1
        self._awaited += 1

    def leave_out(self, camera: str) -> None:
        """Note that a frame of a camera came after the answer."""
        self._lacks[camera] -= 1

    def lose(self, camera: str, cause: str) -> None:
        """Note that a frame it took has no result."""
        self._awaited -= 1
        self._missing[camera] = f"a frame of the camera {camera} was dropped: {cause}"

    def end_frames(self, camera: str) -> None:
        """Note that a later part stands in front of this camera."""
        if self._lacks[camera]:
            self._lacks[camera] = 0
            self._missing[camera] = f"the next part was in front of the camera {camera} before a frame of this one came"

    def judge(self, result: Result) -> None:
        """Take the result of one of its frames. The frame that makes the answer certain decides."""
        self._awaited -= 1
        if self.answer is not None:
            return
        if result.verdict is Verdict.UNKNOWN:
            self._first_unknown = self._first_unknown or result
        elif result.verdict is Verdict.FAIL:
            self._failed += 1
        else:
            self._passed += 1
        certain = self._failed >= self._fails_at or self._passed > self._frames - self._fails_at
        if certain:
            self.answer = result

    def leave(self) -> Result | None:
        """Return the answer, if it is certain, and keep no picture of it: the part may be remembered for long."""
        answer = self.answer
        if answer is not None:
            self.answer, self._first_unknown = replace(answer, anomaly_map=None, frame=None), None
        return answer

    @property
    def is_over(self) -> bool:
        """Nothing that is still to come can make the answer certain."""
        return self.answer is None and not self._awaited and not any(self._lacks.values())

    @property
    def unknown(self) -> Result | None:
        """The first of its results that is UNKNOWN."""
        return self._first_unknown

    @property
    def is_late(self) -> bool:
        """Frames came, and their decisions did not."""
        return self._awaited > 0

    def what_is_missing(self) -> tuple[str, str]:
        """Return a camera without its frames, and why."""
        if self._missing:
            return next(iter(self._missing.items()))
        camera = next((name for name, count in self._lacks.items() if count), next(iter(self._lacks)))
        return camera, f"the camera {camera} delivered no frame of the part in time"
