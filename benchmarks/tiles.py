"""Compare tiles with squeezing: the same network and training time, image AUROC, AUPRO and latency in one table.

    python benchmarks/tiles.py ../shared/data/mvtec_screw ../shared/data/mtd --out benchmarks/results/tiles.json
    python benchmarks/tiles.py --memory BUNDLE

The second form inspects a few pictures of 4096×3000 with one bundle and prints the memory of the process.
"""

from __future__ import annotations

import gc
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np

import edgead
from edgead.benchmark.accuracy import measure_accuracy
from edgead.bundle import Bundle
from edgead.cli.output import terminal
from edgead.console import Console
from edgead.datasets import Category, open_category
from edgead.errors import EdgeadError
from edgead.export import export
from edgead.files import write_json
from edgead.images import Frame, cv2, fit_frame, read_frame
from edgead.machine import describe_machine, resident_mib, versions
from edgead.runtime.engines.opening import open_validated
from edgead.runtime.engines.tiled import batch_for
from edgead.runtime.inspector import Inspector
from edgead.tiling import Tiling, at_once
from edgead.train import train

LARGE = (3000, 4096)
"""(height, width) of a large picture, pixels."""
PIXEL_SIZE = 256
"""Side at which pixel metrics are computed."""
WARM_UP = 2


def measure(bundle: Bundle, category: Category, engine: str, rounds: int, console: Console) -> dict[str, Any]:
    """Return accuracy on a category's labelled pictures, and the cost of decisions on its first one and a large one."""
    with edgead.load(bundle.path, engine=engine) as inspector:
        accuracy = measure_accuracy(inspector, category, PIXEL_SIZE, console)
        own = read_frame(category.normals[0], inspector.pixels)
        large = np.asarray(cv2().resize(own, LARGE[::-1]), np.uint8)
        figures = {"image_auroc": accuracy.metrics.image_auroc, "aupro": accuracy.metrics.aupro}
        figures |= {"false_reject_rate": accuracy.decisions.false_reject_rate}
        figures |= {"detection_rate": accuracy.decisions.detection_rate}
        costs = {name: cost(inspector, frame, engine, rounds) for name, frame in (("own", own), ("4096x3000", large))}
    return {**figures, "cost_ms": costs}


def cost(inspector: Inspector, frame: Frame, engine: str, rounds: int) -> dict[str, float]:
    """Return median milliseconds of a decision, and of the graph alone on the same tiles in the same batches."""
    bundle = inspector.bundle
    tiling = Tiling(inspector.geometry, bundle.manifest.size)
    tiles = tiling.cut(fit_frame(frame, inspector.size, geometry=inspector.geometry)[None])
    alone = open_validated(engine, bundle, batch=batch_for(bundle.manifest, 1))
    size = at_once(tiling.count)

    def graph() -> None:
        for first in range(0, tiling.count, size):
            alone.infer(tiles[first : first + size])

    graph_times, times, shares = [], [], []
    for number in range(-WARM_UP, rounds):
        pair = _time(graph), _time(lambda: inspector.inspect(frame))
        if number >= 0:
            graph_times.append(pair[0])
            times.append(pair[1])
            shares.append(pair[1] / pair[0])
    alone.close()
    decision, tiles_alone = statistics.median(times), statistics.median(graph_times)
    return {
        "decision": round(decision, 3),
        "tiles_alone": round(tiles_alone, 3),
        "decision_over_tiles": round(statistics.median(shares), 4),
        "rounds": rounds,
    }


def _time(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def print_memory(path: Path, engine: str) -> None:
    """Print the resident memory of this process before and after decisions on large pictures, and its peak."""
    import resource

    frame = np.random.default_rng(0).integers(0, 256, (*LARGE, 3), dtype=np.uint8)
    before = resident_mib()
    with edgead.load(path, engine=engine) as inspector:
        opened = resident_mib()
        for _ in range(5):
            inspector.inspect(frame).frame = None
        gc.collect()
        geometry = inspector.geometry.describe()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    click.echo(f"{path}: {geometry}; canvas {inspector.size[1]}×{inspector.size[0]}")
    click.echo(f"MiB: {before:.0f} with one picture of 4096×3000, {opened:.0f} with the bundle, peak {peak:.0f}")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| data | geometry | image AUROC | AUPRO | ms a picture | ms at 4096×3000 | decision / tiles alone |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        own, large = (row["cost_ms"][name] for name in ("own", "4096x3000"))
        aupro = "–" if row["aupro"] is None else f"{100 * row['aupro']:.1f}"
        lines.append(
            f"| {row['data']} | {row['geometry']} | {100 * row['image_auroc']:.1f} | {aupro} | {own['decision']:.1f} | "
            f"{large['decision']:.1f} | {own['decision_over_tiles']:.2f}, {large['decision_over_tiles']:.2f} |"
        )
    return "\n".join(lines)


@click.command()
@click.argument("data", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--method", default="draem", show_default=True)
@click.option("--preset", default="edge", show_default=True)
@click.option("--set", "settings", multiple=True, default=("size=128",), show_default=True, help="NAME=VALUE.")
@click.option("--budget", default="20m", show_default=True, help="Training time of each run; empty for a set schedule.")
@click.option("--tiles", multiple=True, default=("2x2", "3x3"), show_default=True)
@click.option("--seeds", default=1, show_default=True, help="Trainings of each kind.")
@click.option("--engine", default="onnxruntime", show_default=True)
@click.option("--rounds", default=30, show_default=True)
@click.option("--memory", is_flag=True, help="DATA is a bundle: measure its memory instead.")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    data: tuple[Path, ...],
    method: str,
    preset: str,
    settings: tuple[str, ...],
    budget: str,
    tiles: tuple[str, ...],
    seeds: int,
    engine: str,
    rounds: int,
    memory: bool,
    out: Path | None,
) -> None:
    """Train, export and measure every data set squeezed and in tiles. What --out has already is not repeated."""
    if memory:
        for path in data:
            print_memory(path, engine)
        return
    command = shlex.join(["python", "benchmarks/tiles.py", *sys.argv[1:]])
    record: dict[str, Any] = json.loads(out.read_text()) if out and out.exists() else {"rows": []}
    record |= {"command": command, "machine": asdict(describe_machine()), "versions": versions()}
    record |= {"method": method, "preset": preset, "settings": list(settings), "budget": budget}
    console = terminal()
    for folder in data:
        category = open_category(folder)
        for seed in range(seeds):
            for wanted in (None, *tiles):
                key = {"data": category.name, "tiles": wanted, "seed": seed}
                if any(key.items() <= row.items() for row in record["rows"]):
                    continue
                with TemporaryDirectory() as scratch:
                    try:
                        [run] = train(
                            method,
                            folder,
                            preset=preset,
                            settings=settings,
                            out=Path(scratch, "run"),
                            seed=seed,
                            budget=budget or None,
                            tiles=wanted,
                            console=console,
                        )
                        bundle = export(run, out=Path(scratch, "made.edgead"), console=console)
                        figures = measure(bundle, category, engine, rounds, console)
                    except EdgeadError as error:
                        raise click.ClickException(str(error)) from error
                row = {**key, "geometry": bundle.manifest.geometry.describe(), "load": os.getloadavg()[0], **figures}
                record["rows"].append(row)
                if out:
                    write_json(out, record)
    click.echo(table(record["rows"]))


if __name__ == "__main__":
    main()
