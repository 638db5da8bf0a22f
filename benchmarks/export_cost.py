"""What rewritten and simplified graphs save, and what a view costs. Untrained: latency does not depend on the weights.

    python benchmarks/export_cost.py --out benchmarks/results/export-cost.json

Processor time says what a graph costs where other programs share the machine.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import onnx
import torch

from edgead.benchmark.machine import describe_machine, versions
from edgead.export.to_onnx import trace, write_onnx
from edgead.runtime.engines.auto import time_engines
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.train.method import Method, configure
from edgead.train.methods import METHODS, get_method

VIEWS = (1, 2, 4, 8)


def make(name: str, preset: str, *settings: str) -> Method:
    """Make a method with weights drawn from seed 0."""
    kind = get_method(name)
    torch.manual_seed(0)
    return kind(configure(kind, preset, settings))


def shrink(name: str, preset: str, rounds: int) -> dict[str, dict[str, float]]:
    """Compare a method's graph as traced from the reference, as traced from its rewritten form, and simplified."""
    method = make(name, preset)
    size = method.config.size
    frame = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        paths = {each: Path(folder, f"{each}.onnx") for each in ("reference", "rewritten", "simplified")}
        trace(method.detector(), size, paths["reference"])
        trace(method.deployable(), size, paths["rewritten"])
        write_onnx(method.deployable(), size, paths["simplified"], method.sensitive)
        engines = {each: OnnxRuntimeEngine(path) for each, path in paths.items()}
        for engine in engines.values():
            engine.infer(frame)
        times = time_engines(engines, frame, rounds)
        return {
            each: {
                "nodes": len(onnx.load(path).graph.node),
                "megabytes": path.stat().st_size / 1e6,
                "p50_ms": times[each],
                "rounds": rounds,
            }
            for each, path in paths.items()
        }


def measure(graphs: dict[str, tuple[torch.nn.Module, tuple[int, int]]], rounds: int) -> dict[str, dict[str, float]]:
    """Time one frame on every graph in turn, `rounds` times; milliseconds of the clock and of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        engines = {}
        for name, (module, size) in graphs.items():
            write_onnx(module, size, Path(folder, f"{name}.onnx"))
            engines[name] = OnnxRuntimeEngine(Path(folder, f"{name}.onnx"))
        rng = np.random.default_rng(0)
        frames = {name: rng.integers(0, 256, (1, *size, 3), dtype=np.uint8) for name, (_, size) in graphs.items()}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in graphs}
        for turn in range(rounds + 2):
            for name, engine in engines.items():
                start, used = time.perf_counter(), time.process_time()
                engine.infer(frames[name])
                if turn >= 2:
                    times[name].append((time.perf_counter() - start, time.process_time() - used))
    found = {}
    for name, each in times.items():
        clock, processor = np.median(each, axis=0) * 1e3
        found[name] = {"p50_ms": float(clock), "p50_cpu_ms": float(processor), "rounds": rounds}
    return found


@click.command()
@click.option("--rounds", default=20, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(rounds: int, out: Path) -> None:
    """Measure and write JSON."""
    machine, results = describe_machine(), {}
    shrunk = {}
    for name in METHODS:
        shrunk[f"{name}-edge"] = shrink(name, "edge", rounds)
        click.echo(f"{name}: {shrunk[f'{name}-edge']}")
    for label, settings in (
        ("aand-paper", ("paper",)),
        ("aand-edge", ("edge",)),
        ("aand-nano", ("nano",)),
        ("aand-edge-squeezenet1_1", ("edge", "backbone=squeezenet1_1", "size=257")),
    ):
        method = make("aand", *settings)
        size = method.config.size
        rows = measure({"detector": (method.detector(), size), "deployable": (method.deployable(), size)}, rounds)
        faster = {key: rows["detector"][key] / rows["deployable"][key] for key in ("p50_ms", "p50_cpu_ms")}
        results[label] = {**rows, "times_faster": faster}
        click.echo(f"{label}: {faster}")
    graphs = {}
    for views in VIEWS:
        method = make("differnet", "edge", f"views={views}")
        graphs[f"views={views}"] = (method.deployable(), method.config.size)
    results["differnet-edge"] = measure(graphs, rounds)
    click.echo(f"differnet-edge: {results['differnet-edge']}")
    record = {
        "command": sys.argv,
        "machine": machine,
        "versions": versions(),
        "engine": "onnxruntime-cpu",
        "load": os.getloadavg(),
        "graphs": shrunk,
        "results": results,
    }
    out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
