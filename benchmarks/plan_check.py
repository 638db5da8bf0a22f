"""Compare the forecast of `edgead plan` with the real stream, at three loads.

    python benchmarks/plan_check.py BUNDLE --out benchmarks/results/plan-check-NAME.json

Each load is a share of what the engine can take. Forecast and stream are compared at the same cameras, frame rate and
frame size. The times are measured again before each load, and for both it is recorded what other processes and the
hypervisor took of the processors (`measured_while`, `streamed_while`): a difference between forecast and stream counts
only where these are alike. The machine should be idle; about three minutes.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import closing
from pathlib import Path

import click
import numpy as np

from edgead import schema
from edgead.benchmark.disturbance import judge, processor_times
from edgead.benchmark.figures import Stability
from edgead.bundle import read_bundle
from edgead.files import write_json
from edgead.machine import describe_measurement
from edgead.plan.measure import PacedCamera, drifting_periods, frames_of, measure_times
from edgead.plan.simulate import Load, simulate
from edgead.runtime.inspector import Inspector, load
from edgead.runtime.ledger import Ledger
from edgead.runtime.stream import Policy, Stream

LOADS = (0.4, 0.8, 1.5)


def observe(
    inspector: Inspector, frames: list[np.ndarray], asked: Load, seconds: float
) -> tuple[dict[str, float], Stability]:
    """Run the real stream; return the figures that were forecast, and whether the machine was quiet."""
    rng, start, period = np.random.default_rng(1), time.monotonic() + 0.1, 1 / asked.fps
    sources = [
        PacedCamera(frames, each, f"camera {number}", start + rng.uniform(0, period), int(seconds * asked.fps))
        for number, each in enumerate(drifting_periods(period, asked.cameras))
    ]
    ledger, latencies, services, before = Ledger(), [], [], processor_times()
    with Stream(inspector, sources, Policy(), ledger, say=lambda text: None) as stream:
        for result in stream:
            latencies.append(result.latency_ms["total"])
            services.append(result.latency_ms.get("infer", 0.0) + result.latency_ms.get("post", 0.0))
    quiet = judge(services, before, processor_times())
    p50, p99 = np.percentile(latencies, [50, 99])
    snapshot = ledger.snapshot()
    figures = {
        "utilisation": asked.cameras * asked.fps * float(np.mean(services)) / 1e3,
        "p50": float(p50),
        "p99": float(p99),
        "dropped": snapshot["dropped"] / snapshot["captured"],
        "frames": float(snapshot["captured"]),
        "unknown": float(snapshot["unknown"]),
    }
    return figures, quiet


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Results file.")
@click.option("--engine", default="auto", show_default=True)
@click.option("--cameras", default=4, show_default=True)
@click.option("--seconds", default=30.0, show_default=True, help="Length of each run of the real stream.")
def main(bundle: Path, out: Path, engine: str, cameras: int, seconds: float) -> None:
    """Measure BUNDLE, forecast three loads, run them, and write both."""
    head, opened = describe_measurement("benchmarks/plan_check.py"), read_bundle(bundle)
    frames = frames_of(opened, (720, 1280))
    with closing(load(bundle, engine=engine)) as inspector:
        rows = []
        for share in LOADS:
            before = processor_times()
            times = measure_times(inspector, cameras, frames)
            quiet = judge(times.disturbed, before, processor_times())
            fps = share * 1e3 / float(np.mean(times.disturbed)) / cameras
            asked = Load(cameras, round(fps, 2), 1e3)
            said = dataclasses.asdict(simulate(times, asked))
            seen, then = observe(inspector, frames, asked, seconds)
            while_ = {"measured_while": schema.write(quiet), "streamed_while": schema.write(then)}
            rows.append({"load": share, "fps": asked.fps, "forecast": said, "stream": seen, **while_})
            click.echo(f"load {share}: " + ", ".join(f"{name} {said[name]:.3g} / {seen[name]:.3g}" for name in PRINTED))
        name = inspector.engine.name
    value = {
        "schema": 1,
        **dataclasses.asdict(head),
        "bundle": opened.manifest.name,
        "engine": name,
        "cameras": cameras,
        "frame_size": [720, 1280],
        "seconds": seconds,
        "rows": rows,
    }
    write_json(out, value)


PRINTED = ("utilisation", "p50", "p99", "dropped")

if __name__ == "__main__":
    main()
