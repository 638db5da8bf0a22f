"""Compare exported graphs with direct exports, and measure the cost of a view. Latency does not depend on the weights.

    python benchmarks/export_cost.py --out benchmarks/results/export-cost.json
    python benchmarks/export_cost.py --only aand --rounds 5 --out export-cost.json

A file that is there already is added to: what is measured again is replaced, the rest stays with its own conditions.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch

from edgead.export.graph.to_onnx import trace, write_onnx
from edgead.machine import describe_measurement
from edgead.runtime.engines import Engine
from edgead.runtime.engines.auto import time_engines
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.runtime.engines.openvino_engine import OpenVinoEngine
from edgead.train.configuration import configure
from edgead.train.method import Method
from edgead.train.methods import get_method

ENGINES: dict[str, Callable[[Path], Engine]] = {
    "onnxruntime": OnnxRuntimeEngine,
    "openvino": lambda path: OpenVinoEngine(path, "f32", "openvino-cpu"),
}
VIEWS = (1, 2, 4, 8)
NETWORKS = {
    "draem-edge": ("edge",),
    "draem-paper": ("paper",),
    "differnet-edge": ("edge",),
    "aand-nano": ("nano",),
    "aand-edge-squeezenet1_1": ("edge", "backbone=squeezenet1_1", "size=257"),
    "aand-edge": ("edge",),
    "aand-paper": ("paper",),
    "transfusion-nano-1-step": ("nano", "reverse_steps=1"),
    "transfusion-nano-18-steps": ("nano", "reverse_steps=18"),
    "transfusion-edge-1-step": ("edge", "reverse_steps=1"),
    "drept-edge": ("edge",),
    "drept-paper": ("paper",),
}
"""Name, starting with the method ↦ preset and settings."""


def make(name: str, preset: str, *settings: str) -> Method:
    """Return a method with random weights from seed 0."""
    kind = get_method(name)
    torch.manual_seed(0)
    return kind(configure(kind, preset, settings))


def compare_graphs(method: Method, rounds: int, folder: Path) -> dict[str, Any]:
    """Compare a method's exported graph with a direct export of the same network."""
    size = method.config.size
    paths = {form: folder / f"{form}.onnx" for form in ("straight", "exported")}
    trace(method.reference_model(), size, paths["straight"])
    write_onnx(method.export_model(), size, paths["exported"], method.sensitive)
    return measure(paths, size, rounds)


def compare_views(rounds: int, folder: Path) -> dict[str, Any]:
    """Compare DifferNet's graphs with one and with several views of the part."""
    paths = {}
    for views in VIEWS:
        method = make("differnet", "edge", f"views={views}")
        paths[f"views={views}"] = folder / f"{views}.onnx"
        write_onnx(method.export_model(), method.config.size, paths[f"views={views}"], method.sensitive)
    return measure(paths, method.config.size, rounds)


def measure(paths: dict[str, Path], size: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Time the graphs in turn, on one CPU engine and then on the other.

    Returns:
        Each graph's nodes, megabytes, medians, and how many times faster it is than the first.
    """
    found: dict[str, Any] = {"rounds": rounds, "load_before": os.getloadavg()}
    for form, path in paths.items():
        nodes = [node for node in onnx.load(path).graph.node if node.op_type != "Constant"]
        found[form] = {"nodes": len(nodes), "megabytes": round(path.stat().st_size / 1e6, 3)}
    frames = np.random.default_rng(0).integers(0, 256, (4, *size, 3), dtype=np.uint8)
    for name, open_graph in ENGINES.items():
        engines = {form: open_graph(path) for form, path in paths.items()}
        time_engines(engines, frames, rounds=2)  # warms up
        times = time_engines(engines, frames, rounds)
        first = times[next(iter(paths))]
        for form, engine in engines.items():
            found[form] |= {f"{name}_p50_ms": times[form], f"{name}_times_faster": round(first / times[form], 3)}
            engine.close()
    return found


@click.command()
@click.option("--rounds", default=15, show_default=True)
@click.option("--only", default="", help="Measure only names with this prefix.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(rounds: int, only: str, out: Path) -> None:
    """Measure and write JSON, after every network."""
    record = json.loads(out.read_text()) if out.exists() else {"networks": {}}
    record |= asdict(describe_measurement("benchmarks/export_cost.py"))
    for label in (*NETWORKS, "differnet-views"):
        if not label.startswith(only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            if label == "differnet-views":
                found = compare_views(rounds, Path(folder))
            else:
                method = make(label.partition("-")[0], *NETWORKS[label])
                found = compare_graphs(method, rounds, Path(folder))
        record["networks"][label] = found
        click.echo(f"{label}: {found}", err=True)
        out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
