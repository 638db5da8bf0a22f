"""Cost against input side, batch, cameras, tiles, views (DifferNet) and steps (TransFusion), with fitted exponents.

    python benchmarks/scaling.py --out benchmarks/results/scaling.json
    python benchmarks/scaling.py --out scaling.json --quick

Networks have random weights: latency does not depend on them. All sizes of one comparison take turns. A page with the
plots is written beside the results.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from edgead import schema
from edgead.console import Console
from edgead.demo import make_parts
from edgead.export import export
from edgead.export.graph.to_onnx import write_network
from edgead.files import write_json
from edgead.machine import describe_measurement
from edgead.reports.page import write_page
from edgead.reports.power_law import fit_power_law
from edgead.reports.scaling_page import Scaling, ScalingResults, Series, scaling_page
from edgead.runtime.engines import Engine
from edgead.runtime.engines.auto import REST, take_turn
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.runtime.engines.openvino_engine import OpenVinoEngine
from edgead.runtime.inspector import Inspector, load
from edgead.runtime.sources.python import IterableSource
from edgead.runtime.stream import Stream
from edgead.train import train
from edgead.train.configuration import configure
from edgead.train.methods import get_method

ENGINES: dict[str, Callable[[Path], Engine]] = {
    "onnxruntime": OnnxRuntimeEngine,
    "openvino": lambda path: OpenVinoEngine(path, "f32", "openvino-cpu", batch=8),
}
ROUNDS, QUICK_ROUNDS = 15, 3
SIDES, BATCHES, CAMERAS, VIEWS = (64, 96, 128, 192, 256), (1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8)
STEPS = (1, 2, 4, 9, 18)
TILES = (1, 2, 3, 4)
"""Rows of tiles, and columns."""
FRAMES = 16
"""Frames of each camera in a round."""

Call = Callable[[], object]
Graphs = dict[float, tuple[Path, NDArray[np.uint8]]]
"""Size ↦ the graph, and its input."""


def write_graph(folder: Path, method: str, *settings: str) -> Path:
    """Write a network with random weights from seed 0; return its file."""
    kind = get_method(method)
    torch.manual_seed(0)
    path = folder / f"{'-'.join((method, *settings)).replace('=', '')}.onnx"
    write_network(kind(configure(kind, "nano", settings)), path, Console())
    return path


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


SMALL = noise(1, 64, 64, 3)


def time_in_turn(calls: Mapping[float, Call], rounds: int, prepare: Callable[[float], None]) -> dict[float, float]:
    """Return the median milliseconds of each call; all take turns, and the first round does not count."""
    times: dict[float, list[float]] = {size: [] for size in calls}
    for number in range(rounds + 1):
        for size, call in calls.items():
            prepare(size)
            start = time.perf_counter()
            call()
            if number:
                times[size].append((time.perf_counter() - start) * 1e3)
    return {size: round(statistics.median(each), 4) for size, each in times.items()}


def make_series(times: Mapping[float, float]) -> Series:
    """Fit a power law to medians."""
    return Series(tuple(times), tuple(times.values()), fit_power_law(list(times.items())))


def scale_graphs(title: str, unit: str, cost: str, graphs: Graphs, rounds: int) -> Scaling:
    """Time one graph and its input for each size, on both engines."""
    found = {}
    for name, open_graph in ENGINES.items():
        engines = {size: open_graph(path) for size, (path, _) in graphs.items()}

        def prepare(size: float, engines: Mapping[float, Engine] = engines) -> None:
            take_turn(engines[size], graphs[size][1])

        def infer(size: float, engines: Mapping[float, Engine] = engines) -> Call:
            return lambda: engines[size].infer(graphs[size][1])

        found[name] = make_series(time_in_turn({size: infer(size) for size in graphs}, rounds, prepare))
        for engine in engines.values():
            engine.close()
    return Scaling(title, unit, cost, found)


def make_bundle(folder: Path, tiles: str) -> Path:
    """Train a network for one step with so many tiles, like "2x2"; return its bundle's file."""
    parts = make_parts(folder / f"parts-{tiles}", train=8, good=1, bad=1)
    settings = ("steps=1", "size=64", "batch_size=2")
    [run] = train("draem", parts, preset="nano", settings=settings, tiles=tiles, out=folder / f"run-{tiles}")
    return export(run, out=folder / f"{tiles}.edgead").path


def scale_tiles(bundles: Mapping[float, Path], rounds: int) -> Scaling:
    """Time a decision on a large frame, with resizing, cutting and stitching."""
    [frame] = noise(1, 1024, 1024, 3)
    found = {}
    for name in ENGINES:
        with ExitStack() as stack:
            inspectors = {size: stack.enter_context(load(bundle, engine=name)) for size, bundle in bundles.items()}
            calls = {size: partial(inspector.inspect, frame) for size, inspector in inspectors.items()}

            def prepare(size: float, calls: Mapping[float, Call] = calls) -> None:
                time.sleep(REST)
                calls[size]()

            found[name] = make_series(time_in_turn(calls, rounds, prepare))
    return Scaling("DRAEM nano 64², tiles of a frame of 1024²", "tiles", "one frame", found)


def scale_cameras(bundle: Path, counts: Sequence[int], rounds: int) -> Scaling:
    """Time one frame of every camera through the stream, with resizing and decisions."""
    frames, found = noise(FRAMES, 256, 256, 3), {}
    for name in ENGINES:
        with ExitStack() as stack:
            inspector = stack.enter_context(load(bundle, engine=name))

            def stream(count: int, inspector: Inspector = inspector) -> Call:
                def run_all() -> None:
                    sources = [IterableSource(list(frames), str(index)) for index in range(count)]
                    with Stream(inspector, sources) as results:
                        assert sum(1 for _ in results) == count * FRAMES

                return run_all

            times = time_in_turn({count: stream(count) for count in counts}, rounds, lambda size: None)
            found[name] = make_series({size: round(ms / FRAMES, 4) for size, ms in times.items()})
    return Scaling("DRAEM nano 64², cameras on one engine", "cameras", "one frame of each camera", found)


def measure(rounds: int, quick: bool, folder: Path) -> list[Scaling]:
    """Measure everything; `quick` leaves the largest sizes out."""

    def some(sizes: Sequence[int]) -> Sequence[int]:
        return sizes[:3] if quick else sizes

    def graphs(method: str, setting: str, sizes: Sequence[int], *others: str) -> Graphs:
        return {size: (write_graph(folder, method, f"{setting}={size}", *others), SMALL) for size in some(sizes)}

    drawn = graphs("draem", "size", SIDES)
    sides: Graphs = {side: (drawn[side][0], noise(1, side, side, 3)) for side in some(SIDES)}
    batches: Graphs = {count: (sides[SIDES[0]][0], noise(count, 64, 64, 3)) for count in some(BATCHES)}
    views = graphs("differnet", "views", VIEWS, "size=64")
    steps = graphs("transfusion", "reverse_steps", STEPS, "size=64")
    tiled = {float(count**2): make_bundle(folder, f"{count}x{count}") for count in some(TILES)}
    return [
        scale_graphs("DRAEM nano, side of the input", "side, pixels", "one frame", sides, rounds),
        scale_graphs("DRAEM nano 64², frames in one inference", "frames", "one inference", batches, rounds),
        scale_cameras(tiled[1], some(CAMERAS), rounds),
        scale_tiles(tiled, rounds),
        scale_graphs("DifferNet nano 64², views", "views", "one frame", views, rounds),
        scale_graphs("TransFusion nano 64², reverse steps", "steps", "one frame", steps, rounds),
    ]


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Results, .json; the page gets .html.")
@click.option("--rounds", type=click.IntRange(1), default=ROUNDS, show_default=True)
@click.option("--quick", is_flag=True, help=f"Three sizes each and {QUICK_ROUNDS} rounds, to try it.")
def main(out: Path, rounds: int, quick: bool) -> None:
    """Measure how the cost grows, and write results and page."""
    rounds = QUICK_ROUNDS if quick else rounds
    head = describe_measurement("benchmarks/scaling.py")
    with tempfile.TemporaryDirectory() as folder:
        scalings = measure(rounds, quick, Path(folder))
    results = ScalingResults(**vars(head), rounds=rounds, scalings=tuple(scalings))
    write_json(out, schema.write(results))
    page = write_page(out.with_suffix(".html"), scaling_page(results))
    for scaling in scalings:
        for name, series in scaling.series.items():
            click.echo(f"{scaling.title}, {name}: exponent {series.law.describe()}")
    click.echo(f"{out}\n{page}")


if __name__ == "__main__":
    main()
