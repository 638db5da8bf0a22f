"""Latency against AUROC of edgead's bundles and anomalib's models, on the same images in one run.

    python benchmarks/peers/pareto.py DATA --bundle A.edgead --bundle B.edgead --engine onnxruntime \\
        --anomalib-python VENV/bin/python --anomalib PatchCore=FOLDER --out benchmarks/results/peers-NAME.json

DATA is a set in MVTec's form. FOLDER is written by prepare_patchcore.py. Every contender scores all labelled images
itself, then they take turns with whole calls from a BGR frame in memory to score and map in memory, in another order
each round. `edgead report` draws the results.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from processes import Process, measure

from edgead import metrics
from edgead.benchmark.accuracy import FPR_LIMIT
from edgead.benchmark.disturbance import describe_state
from edgead.benchmark.uncertainty import auroc_interval
from edgead.bundle import read_bundle
from edgead.datasets import Category, open_category, read_labelled_mask
from edgead.files import write_json
from edgead.images import read_frame
from edgead.machine import describe_measurement

SIZE = (256, 256)
"""Size of masks and maps for the pixel metrics."""


@dataclass(frozen=True)
class Contender:
    """What runs where.

    Attributes:
        python: interpreter.
        call: its name for contender.py.
        model: bundle or exported file.
        facts: of its row.
    """

    python: str
    call: str
    model: Path
    facts: dict[str, Any]


def contenders(given: argparse.Namespace) -> dict[str, Contender]:
    """Return label ↦ contender: each bundle on each engine, each model of anomalib by both of its inferencers."""
    found = {}
    for path in given.bundle:
        manifest = read_bundle(path).manifest
        for engine in given.engine:
            facts = {
                "bundle": path.stem,
                "method": manifest.method,
                "preset": manifest.preset,
                "precision": manifest.precision,
                "size": manifest.size,
                "engine": engine,
            }
            found[f"{path.stem} on {engine}"] = Contender(sys.executable, f"edgead {engine}", path, facts)
    for entry in given.anomalib:
        name, _, folder = entry.partition("=")
        training = json.loads(Path(folder, "training.json").read_text())
        for engine, call, file in (
            ("OpenVINOInferencer", "anomalib openvino", "openvino/model.xml"),
            ("TorchInferencer", "anomalib torch", "torch/model.pt"),
        ):
            label = f"anomalib {name}, {engine}"
            facts = {"name": label, "method": f"anomalib {name}", "engine": engine, "size": SIZE, "training": training}
            found[label] = Contender(given.anomalib_python, call, Path(folder, "weights", file), facts)
    return found


def figures(category: Category, scores: Sequence[float], maps: np.ndarray) -> dict[str, Any]:
    """Return image AUROC with its interval, pixel AUROC and AUPRO, without the pixels of unmarked defective images."""
    labels = [sample.anomalous for sample in category.test]
    auroc = metrics.rank(labels, scores).auroc()
    pairs = []
    for sample, heat in zip(category.test, maps):
        frame = read_frame(sample.path)
        mask = read_labelled_mask(sample, (frame.shape[0], frame.shape[1]), SIZE)
        if mask is not None and (mask.any() or not sample.anomalous):
            pairs.append((mask, heat))
    masks, heats = [mask for mask, _ in pairs], [heat for _, heat in pairs]
    pixels = metrics.rank(np.concatenate([mask.ravel() for mask in masks]), np.concatenate([h.ravel() for h in heats]))
    return {
        "category": category.name,
        "image_auroc": auroc,
        "image_auroc_interval": auroc_interval(auroc, labels.count(False), labels.count(True)),
        "pixel_auroc": pixels.auroc(),
        "aupro": metrics.aupro(masks, heats, FPR_LIMIT),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", type=Path, action="append", default=[])
    parser.add_argument("--engine", action="append", choices=("onnxruntime", "openvino"))
    parser.add_argument("--anomalib", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--anomalib-python", default="", help="Interpreter of the environment with anomalib.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=5, help="Calls in one turn.")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.engine = given.engine or ["onnxruntime"]
    head, category = describe_measurement("benchmarks/peers/pareto.py"), open_category(given.data)
    images, before, chosen = [sample.path for sample in category.test], describe_state(), contenders(given)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        np.save(folder / "frame.npy", read_frame(images[0]))
        rows, processes = [], {}
        for label, each in chosen.items():
            print(f"scoring {label}", file=sys.stderr)
            process = processes[label] = Process(each.python, each.call, each.model, folder / "frame.npy")
            stack.callback(process.close)
            process.wait()
            scores = process.score(images, folder / "maps.npy")
            rows.append({**each.facts, **figures(category, scores, np.load(folder / "maps.npy")), **process.facts})
        times = measure(processes, given.rounds, given.calls)
    for row, taken in zip(rows, times.values()):
        values = np.percentile(taken, [50, 90, 99])
        row["latency_ms"] = {name: round(float(value), 3) for name, value in zip(("p50", "p90", "p99"), values)}
        row["calls"] = len(taken)
    write_json(
        given.out,
        {
            "schema": 1,
            **asdict(head),
            "state_before": asdict(before),
            "conditions": {"rounds": given.rounds, "calls": given.calls, "images": len(images)},
            "rows": rows,
        },
    )
    for row in sorted(rows, key=lambda one: float(one["latency_ms"]["p50"])):
        label = row.get("name") or f"{row['bundle']} on {row['engine']}"
        print(f"{label:44} {row['latency_ms']['p50']:8.1f} ms  AUROC {100 * row['image_auroc']:.1f}")


if __name__ == "__main__":
    main()
