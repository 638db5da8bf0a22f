"""What OpenVINO gains when a graph is compiled for exactly one frame, not for any number of them.

    python benchmarks/fixed_frame.py --out benchmarks/results/fixed-frame.json

Networks have random weights: latency does not depend on them. All four engines of a network (both CPU engines, open and
fixed) take turns. Processor time is what counts on a busy machine: run it there on one core, with `taskset -c 0`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from graph_profile import PROFILED, write_graph
from numpy.typing import NDArray

from edgead.files import write_json
from edgead.machine import describe_measurement
from edgead.runtime.engines.auto import take_turn
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.runtime.engines.openvino_engine import OpenVinoEngine

SMALL = (
    "draem-nano",
    "draem-nano-int8",
    "aand-nano",
    "aand-nano-int8",
    "patchcore-nano",
    "patchcore-nano-int8",
    "transfusion-nano-1-step",
    "drept-edge",
)


def fixed_copy(path: Path) -> Path:
    """Write a copy of a graph whose inputs and outputs have exactly one frame."""
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    copy = path.with_name("fixed.onnx")
    onnx.save(model, copy)
    return copy


def measure(path: Path, frames: NDArray[np.uint8], rounds: int) -> dict[str, dict[str, float]]:
    """Return the medians of wall and processor time, in milliseconds, and the least processor time."""
    engines: dict[str, Any] = {
        "openvino, open": OpenVinoEngine(path, "f32", "openvino-cpu", batch=2),
        "openvino, fixed": OpenVinoEngine(path, "f32", "openvino-cpu"),
        "onnxruntime, open": OnnxRuntimeEngine(path),
        "onnxruntime, fixed": OnnxRuntimeEngine(fixed_copy(path)),
    }
    spans: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            take_turn(engine, frames)
            spans[name].append(timed(lambda engine=engine: engine.infer(frames)))  # type: ignore[misc]
    for engine in engines.values():
        engine.close()
    return {name: summary(found) for name, found in spans.items()}


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return the wall and the processor milliseconds of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - processor) * 1e3


def summary(spans: list[tuple[float, float]]) -> dict[str, float]:
    """Return the figures of one engine."""
    wall, processor = zip(*spans)
    return {
        "wall_p50_ms": round(statistics.median(wall), 3),
        "processor_p50_ms": round(statistics.median(processor), 3),
        "processor_least_ms": round(min(processor), 3),
    }


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--rounds", type=click.IntRange(1), default=15, show_default=True)
@click.option("--network", "names", multiple=True, type=click.Choice(list(PROFILED)), help="Repeatable.")
def main(out: Path, rounds: int, names: tuple[str, ...]) -> None:
    """Measure networks and write the results."""
    record: dict[str, Any] = {
        **asdict(describe_measurement("benchmarks/fixed_frame.py")),
        "rounds": rounds,
        "networks": {},
    }
    for name in names or SMALL:
        with tempfile.TemporaryDirectory() as scratch:
            path, frames = write_graph(name, Path(scratch))
            record["networks"][name] = measure(path, frames, rounds)
        write_json(out, record)
        click.echo(f"{name}: {record['networks'][name]}")


if __name__ == "__main__":
    main()
