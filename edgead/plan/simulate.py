"""Plays the stream with measured times, by the rules of `edgead.runtime.stream` and `edgead.runtime.frame_queue`.

* Each source fits its frames in a thread of its own, one after the other.
* One fitted frame of each source may wait; a newer one takes its place, and the older one is dropped (``overtaken``).
* One engine takes the waiting frames of the sources in turn, one at a time.
* A frame that is older than `Load.max_staleness` when its turn comes is not inferred.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgead.plan.profile import Times

RUNS, FRAMES = 20, 400
"""Runs of a simulation, each with other phases of the cameras, and frames in each: its percentiles see bad phases."""


@dataclass(frozen=True)
class Load:
    """What the cameras ask for.

    Attributes:
        cameras: number of sources.
        fps: frames per second of each.
        deadline: latest verdict, milliseconds after the frame.
        synchronous: all cameras are triggered at the same moment; otherwise each runs on its own.
        max_staleness: see `edgead.runtime.policy.Policy`, milliseconds; None for no limit.
    """

    cameras: int
    fps: float
    deadline: float
    synchronous: bool = False
    max_staleness: float | None = None


@dataclass(frozen=True)
class Forecast:
    """What a simulation found.

    Attributes:
        utilisation: share of the engine's time that the frames ask for; above 1 it cannot keep up.
        p50, p99: from frame to verdict, milliseconds, of the frames that are decided.
        dropped: share of all frames that are overtaken by newer ones.
        stale: share of all frames that are UNKNOWN because they were too old.
        late: share of the decided frames whose verdict comes after the deadline.
    """

    utilisation: float
    p50: float
    p99: float
    dropped: float
    stale: float
    late: float


@dataclass
class _Tally:
    latencies: list[float] = field(default_factory=list)
    services: list[float] = field(default_factory=list)
    frames: int = 0
    dropped: int = 0
    stale: int = 0


def simulate(times: Times, load: Load, speed_up: float = 1.0, seed: int = 0) -> Forecast:
    """Forecast a stream.

    Args:
        times: measured.
        load: what the cameras ask for.
        speed_up: the engine is this many times as fast as measured.
        seed: of the draws; the same seed returns the same forecast.
    """
    rng, tally = np.random.default_rng(seed), _Tally()
    for _ in range(RUNS):
        _run(_Draws(times, speed_up, rng), load, rng, tally)
    latencies = np.array(tally.latencies or [np.inf])
    p50, p99 = np.percentile(latencies, [50, 99], method="higher")
    return Forecast(
        utilisation=load.cameras * load.fps * float(np.mean(tally.services or [0.0])) / 1e3,
        p50=float(p50),
        p99=float(p99),
        dropped=tally.dropped / tally.frames,
        stale=tally.stale / tally.frames,
        late=float(np.mean(latencies > load.deadline)),
    )


class _Draws:
    """Draws measured times at random, milliseconds."""

    def __init__(self, times: Times, speed_up: float, rng: np.random.Generator) -> None:
        size = 2 * FRAMES
        self.fit = rng.choice(times.fit, size)
        self.hand_over = iter(rng.choice(times.hand_over, size))
        self.undisturbed = iter(rng.choice(times.undisturbed, size) / speed_up)
        self.disturbed = iter(rng.choice(times.disturbed, size) / speed_up)


def _run(draws: _Draws, load: Load, rng: np.random.Generator, tally: _Tally) -> None:
    """Play `FRAMES` frames of all cameras; all times in milliseconds."""
    began, made, cameras, ready = _fitted(draws.fit, load, rng)
    begins, ends = sorted(began), sorted(ready)
    waiting: dict[int, int] = {}  # camera ↦ its waiting frame
    count, coming, turn, now = len(ready), 0, 0, 0.0
    tally.frames += count
    while coming < count or waiting:
        if not waiting and ready[coming] > now:  # the engine sleeps until a frame comes
            now = ready[coming] + next(draws.hand_over)
        while coming < count and ready[coming] <= now:
            tally.dropped += cameras[coming] in waiting
            waiting[cameras[coming]] = coming
            coming += 1
        camera = min(waiting, key=lambda each: (each - turn) % load.cameras)
        frame, turn = waiting.pop(camera), (camera + 1) % load.cameras
        if load.max_staleness is not None and now - made[frame] > load.max_staleness:
            tally.stale += 1
            continue
        service = next(draws.undisturbed)
        if bisect_left(begins, now + service) > bisect_right(ends, now):  # a frame is fitted meanwhile
            service = next(draws.disturbed)
        now += service
        tally.services.append(service)
        tally.latencies.append(now - made[frame])


def _fitted(
    fits: NDArray[np.float64], load: Load, rng: np.random.Generator
) -> tuple[list[float], list[float], list[int], list[float]]:
    """Return when each frame's fit begins, when the frame is made, its camera, and when its fit ends, by that end."""
    period, each = 1e3 / load.fps, max(1, FRAMES // load.cameras)
    frames: list[tuple[float, float, float, int]] = []
    for camera in range(load.cameras):
        phase, free = 0.0 if load.synchronous else rng.uniform(0, period), 0.0
        for number in range(each):
            made = phase + number * period
            begin = max(made, free)
            free = begin + float(fits[camera * each + number])
            frames.append((free, begin, made, camera))
    frames.sort()
    ready, began, made_at, cameras = (list(column) for column in zip(*frames))
    return began, made_at, cameras, ready
