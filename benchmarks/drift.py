"""Time what drift costs a compared frame, and count its false alarms in simulated lines without drift.

python benchmarks/drift.py benchmarks/results/drift.json
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np

from edgead.binomial import interval
from edgead.console import Terminal
from edgead.files import write_json
from edgead.line.drift import MEASURES, DriftSettings, Windows
from edgead.line.two_samples import smallest_significant
from edgead.machine import describe_measurement
from edgead.runtime.look import look_at

SIDES = (256, 448)
HELD_OUT = (20, 40, 200)
FRAMES_A_LINE = 20_000


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--rounds", default=300, show_default=True, help="Timed frames and windows.")
@click.option("--frames", default=20_000_000, show_default=True, help="Simulated frames for each number of images.")
@click.option("--alarms", default=1.0, show_default=True, help="Stated false alarms in a million frames.")
def main(out: Path, rounds: int, frames: int, alarms: float) -> None:
    """Write medians in milliseconds, and what was counted, to OUT."""
    head = describe_measurement("benchmarks/drift.py")
    settings, rng = DriftSettings(alarms=alarms), np.random.default_rng(0)
    costs = {f"look_at_{side}_ms": time_look(side, rounds, rng) for side in SIDES}
    costs |= {f"window_of_{n}_images_ms": time_window(n, settings, rounds, rng) for n in HELD_OUT}
    costs |= {f"limit_of_{n}_images_ms": time_limit(n, settings) for n in HELD_OUT}
    rates = [simulate(n, settings, frames, rng) for n in HELD_OUT]
    write_json(out, {**asdict(head), "settings": vars(settings), "costs": costs, "rates": rates})
    click.echo("\n".join(map(str, [costs, *rates])))


def time_look(side: int, rounds: int, rng: np.random.Generator) -> float:
    frame = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        look_at(frame, (side, side))
        times.append((time.perf_counter() - began) * 1e3)
    return round(float(np.median(times)), 4)


def time_window(images: int, settings: DriftSettings, rounds: int, rng: np.random.Generator) -> float:
    windows, times = Windows(rng.normal(size=(images, len(MEASURES))), settings.window, settings.alpha), []
    for _ in range(rounds):
        *rest, last = map(tuple, rng.normal(size=(settings.window, len(MEASURES))))
        for values in rest:
            windows.add(values)
        began = time.perf_counter()
        windows.add(last)
        times.append((time.perf_counter() - began) * 1e3)
    return round(float(np.median(times)), 4)


def time_limit(images: int, settings: DriftSettings) -> float:
    smallest_significant.cache_clear()
    began = time.perf_counter()
    smallest_significant(images, settings.window, settings.alpha)
    return round((time.perf_counter() - began) * 1e3, 2)


def simulate(images: int, settings: DriftSettings, frames: int, rng: np.random.Generator) -> dict[str, object]:
    """Count alarms of lines that each have their own held-out images, from the same distribution as their frames."""
    lines, windows_a_line = frames // FRAMES_A_LINE, FRAMES_A_LINE // settings.window
    alarms = different = with_alarm = 0
    for _ in Terminal().track(f"{images} held-out images")(range(lines)):
        windows, before = Windows(rng.normal(size=(images, len(MEASURES))), settings.window, settings.alpha), alarms
        for _ in range(windows_a_line):
            for values in rng.normal(size=(settings.window, len(MEASURES))):
                alarms += len(windows.add(tuple(values)))
            different += len(windows.active)
        with_alarm += alarms > before
    low, high = interval(with_alarm, lines)
    return {
        "held_out_images": images,
        "frames": lines * FRAMES_A_LINE,
        "lines": lines,
        "alarms": alarms,
        "significant_tests": different,
        "significant_tests_per_million_frames": round(different / (lines * FRAMES_A_LINE) * 1e6, 3),
        "lines_with_an_alarm": with_alarm,
        "stated_alarms_per_million_frames": settings.alarms,
        "share_of_lines_with_an_alarm_95": [round(low, 6), round(high, 6)],
    }


if __name__ == "__main__":
    main()
