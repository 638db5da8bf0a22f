"""Where a stream spends more than bare calls, and what settings of ONNX Runtime's threads change.

    python benchmarks/stream_threads.py --out benchmarks/results/stream-threads.json

DRAEM `nano` at 128² with random weights decides on a 1280×720 video that is paced like a camera; latency does not
depend on the weights. Each variant has stream passes and bare passes, all in turn, so that a disturbance of the machine
affects all. Use an idle machine.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from edgead.benchmark.stream import StreamLatency, measure_streams
from edgead.bundle import MODEL, Bundle, read_bundle
from edgead.demo import make_parts
from edgead.export import export
from edgead.files import write_json
from edgead.images import read_frame
from edgead.machine import describe_measurement
from edgead.runtime.engines import Engine
from edgead.runtime.engines.checked import check
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.runtime.engines.openvino_engine import OpenVinoEngine
from edgead.runtime.inspector import Inspector
from edgead.train import train

PINNED = "session.intra_op_thread_affinities"
CORES = sorted(os.sched_getaffinity(0))
VARIANTS: dict[str, dict[str, str] | None] = {
    "onnxruntime": {},
    "onnxruntime, dynamic blocks": {"session.dynamic_block_base": "4"},
    "onnxruntime, spinning 100 ms": {"session.intra_op.spin_duration_us": "100000"},
    "onnxruntime, pinned": {PINNED: ";".join(str(core + 1) for core in CORES[1:])},
    "openvino": None,
}
"""Entries of ONNX Runtime's session configuration; None for OpenVINO.

Dynamic blocks: a thread that comes late gets less of an operator's work. Spinning 100 ms: its threads are still awake
when the next frame comes, which costs a core; it shows how much of the tail is their waking up. Pinned: the thread that
decides is on the first core during an inference, and each of ONNX Runtime's threads on another one.
"""
HEIGHT, WIDTH, FRAMES = 720, 1280, 60


def make_bundle(folder: Path) -> Bundle:
    """Export DRAEM `nano` after one step of training."""
    parts = make_parts(folder / "parts", train=8, good=1, bad=1)
    settings = ("steps=1", "size=128", "batch_size=2")
    [run] = train("draem", parts, preset="nano", settings=settings, out=folder / "run")
    return read_bundle(export(run, out=folder / "nano.edgead").path)


def make_video(folder: Path) -> Path:
    """Write a video of drawn parts that move a little from frame to frame."""
    path = folder / "line.avi"
    [image, *_] = sorted((folder / "parts").rglob("*.png"))
    part = cv2.resize(read_frame(image), (WIDTH, HEIGHT))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (WIDTH, HEIGHT))
    for number in range(FRAMES):
        writer.write(np.roll(part, 3 * number, axis=1))
    writer.release()
    return path


class PinnedEngine(OnnxRuntimeEngine):
    """Computes with the calling thread on the first core."""

    def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        os.sched_setaffinity(0, CORES[:1])
        try:
            return super().infer(frames)
        finally:
            os.sched_setaffinity(0, CORES)


def open_variant(bundle: Bundle, entries: dict[str, str] | None) -> Inspector:
    """Open a bundle on the engine of a variant."""
    graph = bundle.path / MODEL
    engine: Engine
    if entries is None:
        engine = OpenVinoEngine(graph, "f32", "openvino-cpu")
    else:
        engine = (PinnedEngine if PINNED in entries else OnnxRuntimeEngine)(graph, entries=entries)
    return Inspector(bundle, check(engine, bundle))


def describe(name: str, found: StreamLatency) -> str:
    """Return a line of Markdown for a variant."""
    stages = " | ".join(f"{each.p50:.2f}, {each.p99:.2f}" for each in found.stages_ms.values())
    bare = f"{found.fit_and_engine_ms.p50:.2f}, {found.fit_and_engine_ms.p99:.2f}"
    return f"| {name} | {bare} | {found.stream_over_bare.p50:.2f} | {found.stream_over_bare.p99:.2f} | {stages} |"


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Results, .json.")
@click.option("--rounds", type=click.IntRange(2), default=8, show_default=True)
@click.option("--pause", default=0.03, show_default=True, help="Seconds before each frame.")
@click.option("--variant", "names", multiple=True, type=click.Choice(list(VARIANTS)), help="Repeatable; default: all.")
def main(out: Path, rounds: int, pause: float, names: tuple[str, ...]) -> None:
    """Measure all variants in turn and write the results."""
    head = describe_measurement("benchmarks/stream_threads.py")
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        bundle = make_bundle(folder)
        inspectors = {
            name: stack.enter_context(open_variant(bundle, VARIANTS[name])) for name in names or tuple(VARIANTS)
        }
        found = measure_streams(inspectors, make_video(folder), rounds, pause)
    record = {
        **asdict(head),
        "pause_seconds": pause,
        "variants": {name: {"entries": VARIANTS[name], **asdict(each)} for name, each in found.items()},
    }
    write_json(out, record)
    click.echo("| variant | bare ms, p50, p99 | stream / bare, p50 | p99 | queue | fit | infer | post |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for name, each in found.items():
        click.echo(describe(name, each))


if __name__ == "__main__":
    main()
