"""Compare tiles with squeezing: the same network, image AUROC, AUPRO, training time and latency in one table.

    python benchmarks/tiles.py benchmarks/data/mvtec_screw benchmarks/data/mtd --out benchmarks/results/tiles.json
    python benchmarks/tiles.py --memory BUNDLE
    python benchmarks/tiles.py --cost BUNDLE --out benchmarks/results/tiles-cost.json

What is published (`results/tiles-METHOD.json`) was fixed before the first of these trainings ran:

* The sets at hand have no large pictures: 448×448 (the screws, reduced from 1024×1024), up to 632×403 (magnetic tiles),
  512×384 (cookies). So the network's input is small instead: 129² and 160² squeeze a screw by 3.5 and 2.8, as 4096×3000
  is squeezed to about 1024². 3×3 tiles of 160² with the usual overlap see it at 0.98 of its size, of 129² at 0.79.
* AAND `nano` has 600 steps for each kind: the same network and as many pictures in training, so the same time.
* PatchCore `nano` reads every tile once, so its training takes longer with tiles. Its memory has the same size.
* One seed. All other settings are the defaults. DATA are the three sets; each command is run from the root, with
  `--weights benchmarks/data/weights/squeezenet1_1_imagenet.pth --out benchmarks/results/tiles-METHOD.json`:

    python benchmarks/tiles.py DATA… --method patchcore --preset nano --set size=160 --budget ''
    python benchmarks/tiles.py DATA… --method aand --preset nano --set steps=600 --budget '' --tiles 3x3

Latencies are measured in turn, one decision of each kind after the other, and so are the graph and the whole decision.
On a machine that does other work, read their ratios only.

The second form inspects a few pictures of 4096×3000 with one bundle and prints the memory of the process. The third one
writes what a decision on such a picture costs beside its tiles alone.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import edgead
from edgead.benchmark.accuracy import measure_accuracy
from edgead.bundle import Bundle, read_bundle
from edgead.cli.output import terminal
from edgead.console import Console
from edgead.datasets import Category, open_category
from edgead.errors import EdgeadError
from edgead.export import export
from edgead.files import write_json
from edgead.geometry.tiling import Tiling, at_once
from edgead.images import Frame, cv2, fit_frame, read_frame
from edgead.machine import describe_measurement, resident_mib
from edgead.runtime.engines.opening import open_validated
from edgead.runtime.engines.tiled import batch_for
from edgead.train import train

LARGE = (3000, 4096)
"""(height, width) of a large picture, pixels."""
PIXEL_SIZE = 256
"""Side at which pixel metrics are computed."""
WARM_UP = 2


class Contender:
    """A bundle on one kind of frame: the whole decision, and the graph alone on the same tiles in the same batches."""

    def __init__(self, bundle: Bundle, frame: Frame, engine: str) -> None:
        self.inspector = edgead.load(bundle.path, engine=engine)
        self.graph = open_validated(engine, bundle, batch=batch_for(bundle.manifest, 1))
        self.frame = frame
        geometry, size = self.inspector.geometry, self.inspector.size
        tiling = Tiling(geometry, bundle.manifest.size)
        self.count, self.at_once = tiling.count, at_once(tiling.count)
        self.tiles = tiling.cut(fit_frame(frame, size, geometry=geometry)[None])

    def close(self) -> None:
        self.inspector.close()
        self.graph.close()

    def decide(self) -> float:
        """Return the milliseconds of a decision."""
        return _time(lambda: self.inspector.inspect(self.frame))

    def infer(self) -> float:
        """Return the milliseconds of the graph alone."""
        return _time(self._infer)

    def _infer(self) -> None:
        for first in range(0, self.count, self.at_once):
            self.graph.infer(self.tiles[first : first + self.at_once])


def accuracy(bundle: Bundle, category: Category, engine: str, console: Console) -> dict[str, float | None]:
    """Return accuracy on a category's labelled pictures."""
    with edgead.load(bundle.path, engine=engine) as inspector:
        measured = measure_accuracy(inspector, category, PIXEL_SIZE, console)
    return {
        "image_auroc": measured.metrics.image_auroc,
        "aupro": measured.metrics.aupro,
        "false_reject_rate": measured.decisions.false_reject_rate,
        "detection_rate": measured.decisions.detection_rate,
    }


def costs(bundles: Sequence[Bundle], frame: Frame, engine: str, rounds: int) -> list[dict[str, float]]:
    """Return median milliseconds of bundles that take turns in every round. The first one is what is compared with."""
    contenders = [Contender(bundle, frame, engine) for bundle in bundles]
    for contender in contenders * WARM_UP:
        contender.infer(), contender.decide()
    times = np.array([[(each.infer(), each.decide()) for each in contenders] for _ in range(rounds)])
    for contender in contenders:
        contender.close()
    graph, decision = np.moveaxis(times, 2, 0)  # [rounds, bundles] each
    return [
        {
            "decision": _median(decision[:, number]),
            "tiles_alone": _median(graph[:, number]),
            "decision_over_tiles": _median(decision[:, number] / graph[:, number]),
            "times_squeezed": _median(decision[:, number] / decision[:, 0]),
            "rounds": rounds,
        }
        for number in range(len(bundles))
    ]


def _median(values: NDArray[np.float64]) -> float:
    return round(float(np.median(values)), 4)


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


def measure_cost(paths: Sequence[Path], engine: str, rounds: int) -> list[dict[str, Any]]:
    """Return what a decision of each bundle on a picture of 4096×3000 costs."""
    frame = np.random.default_rng(0).integers(0, 256, (*LARGE, 3), dtype=np.uint8)
    bundles = [read_bundle(path) for path in paths]
    return [
        {"method": f"{each.manifest.method} {each.manifest.preset}", "geometry": each.manifest.geometry.describe()}
        | {"input": each.manifest.size, "canvas": each.manifest.canvas, "load": round(os.getloadavg()[0], 1), **cost}
        for each, cost in zip(bundles, costs(bundles, frame, engine, rounds))
    ]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| method | data | geometry | training, CPU s | image AUROC | AUPRO | time of a decision, times squeezed: own, "
        "4096×3000 | decision / tiles alone: own, 4096×3000 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        own, large = (row["cost_ms"][name] for name in ("own", "4096x3000"))
        aupro = "–" if row["aupro"] is None else f"{100 * row['aupro']:.1f}"
        lines.append(
            f"| {row['method']} | {row['data']} | {row['geometry']} | {row['training_cpu_s']:.0f} | "
            f"{100 * row['image_auroc']:.1f} | {aupro} | "
            f"{own['times_squeezed']:.1f}, {large['times_squeezed']:.1f} | "
            f"{own['decision_over_tiles']:.2f}, {large['decision_over_tiles']:.2f} |"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class Plan:
    """How every kind is trained and measured."""

    method: str
    preset: str
    settings: tuple[str, ...]
    budget: str | None
    weights: Path | None
    engine: str
    rounds: int

    def rows(self, folder: Path, kinds: Sequence[str | None], seed: int, console: Console) -> list[dict[str, Any]]:
        """Train, export and measure each kind (`None`: squeezed) on one data set."""
        category, rows, bundles = open_category(folder), list[dict[str, Any]](), list[Bundle]()
        with TemporaryDirectory() as scratch:
            for kind in kinds:
                began = _cpu_seconds()
                [run] = train(
                    self.method,
                    folder,
                    preset=self.preset,
                    settings=self.settings,
                    out=Path(scratch, f"run-{kind}"),
                    seed=seed,
                    budget=self.budget,
                    weights=self.weights,
                    tiles=kind,
                    console=console,
                )
                took = _cpu_seconds() - began
                bundle = export(run, out=Path(scratch, f"{kind}.edgead"), console=console)
                bundles.append(bundle)
                rows.append(
                    {
                        "method": f"{self.method} {self.preset}",
                        "settings": list(self.settings),
                        "budget": self.budget,
                        "data": category.name,
                        "tiles": kind,
                        "seed": seed,
                        "geometry": bundle.manifest.geometry.describe(),
                        "load": round(os.getloadavg()[0], 1),
                        "training_cpu_s": round(took, 1),
                        **accuracy(bundle, category, self.engine, console),
                    }
                )
            own = read_frame(category.normals[0])
            large = np.asarray(cv2().resize(own, LARGE[::-1]), np.uint8)
            for name, frame in (("own", own), ("4096x3000", large)):
                for row, found in zip(rows, costs(bundles, frame, self.engine, self.rounds)):
                    row.setdefault("cost_ms", {})[name] = found
        return rows


def _cpu_seconds() -> float:
    """Return the processor time of this process and of those of it that have ended (they load pictures)."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@click.command()
@click.argument("data", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--method", default="draem", show_default=True)
@click.option("--preset", default="edge", show_default=True)
@click.option("--set", "settings", multiple=True, help="NAME=VALUE.")
@click.option("--budget", default="20m", show_default=True, help="Training time of each run; empty for a set schedule.")
@click.option("--weights", type=click.Path(exists=True, path_type=Path), help="Of the backbone, as in edgead train.")
@click.option("--tiles", multiple=True, default=("2x2", "3x3"), show_default=True)
@click.option("--seeds", default=1, show_default=True, help="Trainings of each kind.")
@click.option("--engine", default="onnxruntime", show_default=True)
@click.option("--rounds", default=30, show_default=True)
@click.option("--memory", is_flag=True, help="DATA is a bundle: measure its memory instead.")
@click.option("--cost", is_flag=True, help="DATA are bundles: measure what a large picture costs instead.")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    data: tuple[Path, ...],
    method: str,
    preset: str,
    settings: tuple[str, ...],
    budget: str,
    weights: Path | None,
    tiles: tuple[str, ...],
    seeds: int,
    engine: str,
    rounds: int,
    memory: bool,
    cost: bool,
    out: Path | None,
) -> None:
    """Train, export and measure every data set squeezed and in tiles. What --out has already is not repeated."""
    if memory:
        for path in data:
            print_memory(path, engine)
        return
    plan = Plan(method, preset, settings, budget or None, weights, engine, rounds)
    record: dict[str, Any] = json.loads(out.read_text()) if out and out.exists() else {"rows": [], "commands": []}
    head = describe_measurement("benchmarks/tiles.py")
    record |= {"machine": asdict(head.machine), "versions": head.versions}
    record["commands"].append(head.command)
    if cost:
        record["rows"] += measure_cost(data, engine, rounds)
        if out:
            write_json(out, record)
        click.echo(json.dumps(record["rows"], indent=1))
        return
    for folder in data:
        for seed in range(seeds):
            key = {"method": f"{method} {preset}", "data": open_category(folder).name, "seed": seed}
            if any(key.items() <= row.items() for row in record["rows"]):
                continue
            try:
                record["rows"] += plan.rows(folder, (None, *tiles), seed, terminal())
            except EdgeadError as error:
                raise click.ClickException(str(error)) from error
            if out:
                write_json(out, record)
    click.echo(table(record["rows"]))


if __name__ == "__main__":
    main()
