"""Measure TransFusion's scores by number of reverse steps, from 18 (published) to 1, on validation data.

    python benchmarks/transfusion_steps.py RUN… --out benchmarks/results/transfusion-steps.json

Validation is what training never saw and no test label touches: the run's held-out good images, and synthetic anomalies
on them, drawn as in training. Losses are counted against 18 steps; the fewest steps that lose at most half a point in
image and pixel AUROC, on every run, are what the presets should have. With --test the labelled test images are measured
too, to be looked at and not to choose by. Processor time is of ONNX Runtime on the exported graph, all graphs in turn.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from numpy.typing import NDArray

from edgead import metrics
from edgead.console import Console
from edgead.datasets import load_frames, open_category
from edgead.export.graph.to_onnx import write_onnx
from edgead.machine import describe_measurement
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.train.checkpoint import load_method
from edgead.train.foreground import load_foreground_masks
from edgead.train.materials import load_textures
from edgead.train.method import TrainingData
from edgead.train.run_config import RunConfig

STEPS = (18, 8, 4, 2, 1)
WORST = 0.005
"""Largest accepted loss of image and pixel AUROC with fewer steps."""


def validation(run: RunConfig, method: Any, anomalies: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the run's held-out good images and synthetic anomalies on them, and their masks."""
    size = run.config.size
    held_out = load_frames([Path(run.data, name) for name in run.held_out], size, run.pixels)
    normals, parts = held_out.frames, load_foreground_masks(run.config.foreground, held_out.paths, size)
    rng = np.random.default_rng((run.seed, 0x57E9))
    textures = load_textures(run, Console()).frames
    made = [method.example(TrainingData(normals, textures, foreground_masks=parts), rng) for _ in range(anomalies)]
    frames = np.concatenate([normals, np.stack([example["frame"] for example in made])])
    empty = np.zeros((len(normals), *size), np.bool_)
    return frames, np.concatenate([empty, np.stack([example["mask"] for example in made])])


def labelled_images(run: RunConfig) -> tuple[NDArray[np.uint8], list[bool]]:
    """Return the labelled test images and their labels."""
    samples = open_category(run.data).test
    frames = load_frames([sample.path for sample in samples], run.config.size, run.pixels)
    return frames.frames, [sample.anomalous for sample in samples if sample.path in frames.paths]


def infer(
    engine: OnnxRuntimeEngine, frames: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Return scores, maps and median CPU milliseconds per frame."""
    scores, maps, times = [], [], []
    for frame in frames:
        used = time.process_time()
        score, pixels = engine.infer(frame[None])
        times.append(time.process_time() - used)
        scores.append(score)
        maps.append(pixels)
    return np.concatenate(scores), np.concatenate(maps), float(np.median(times) * 1e3)


def measure(folder: Path, anomalies: int, test: bool, scratch: Path) -> list[dict[str, Any]]:
    """Measure one run at every number of steps."""
    rows = []
    for steps in STEPS:
        run, method = load_method(folder, [f"reverse_steps={steps}"])
        frames, masks = validation(run, method, anomalies)
        path = scratch / f"{steps}.onnx"
        write_onnx(method.export_model(), method.config.size, path, channels=method.config.channels)
        scores, maps, milliseconds = infer(engine := OnnxRuntimeEngine(path), frames)
        labels = masks.any(axis=(1, 2))
        row: dict[str, Any] = {
            "run": folder.name,
            "category": run.category,
            "preset": run.preset,
            "size": method.config.size,
            "reverse_steps": steps,
            "validation": {
                "good": int((~labels).sum()),
                "anomalous": int(labels.sum()),
                "image_auroc": metrics.rank(labels, scores).auroc(),
                "pixel_auroc": metrics.rank(masks, maps).auroc(),
                "pixel_ap": metrics.rank(masks, maps).average_precision(),
            },
            "mean_score": {"good": float(scores[~labels].mean()), "anomalous": float(scores[labels].mean())},
            "nodes": len(onnx.load(path).graph.node),
            "megabytes": path.stat().st_size / 1e6,
            "cpu_ms": milliseconds,
        }
        if test:
            pictures, anomalous = labelled_images(run)
            row["test"] = {"image_auroc": metrics.rank(anomalous, infer(engine, pictures)[0]).auroc()}
        rows.append(row)
        click.echo(json.dumps(row))
    return rows


def fewest(rows: list[dict[str, Any]]) -> int:
    """Return the fewest steps that lose at most `WORST` relative to 18, in both figures and every run."""
    full = {row["run"]: row["validation"] for row in rows if row["reverse_steps"] == STEPS[0]}

    def good(steps: int) -> bool:
        return all(
            full[row["run"]][name] - row["validation"][name] <= WORST
            for row in rows
            if row["reverse_steps"] == steps
            for name in ("image_auroc", "pixel_auroc")
        )

    return min(steps for steps in STEPS if good(steps))


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--anomalies", default=200, show_default=True, help="Synthetic anomalies per run.")
@click.option("--test/--no-test", default=False, help="Also measure the labelled test images.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(runs: tuple[Path, ...], anomalies: int, test: bool, out: Path) -> None:
    """Measure and add to the results file; entries of the same runs are replaced."""
    record = json.loads(out.read_text()) if out.exists() else {"measured": {}, "rows": []}
    for folder in runs:
        record["measured"][folder.name] = asdict(describe_measurement("benchmarks/transfusion_steps.py", "torch"))
        with tempfile.TemporaryDirectory() as scratch:
            rows = measure(folder, anomalies, test, Path(scratch))
        record["rows"] = [row for row in record["rows"] if row["run"] != folder.name] + rows
        record |= {"engine": "onnxruntime-cpu", "allowed_loss": WORST, "fewest_steps": fewest(record["rows"])}
        out.write_text(json.dumps(record, indent=2) + "\n")
    click.echo(f"fewest steps: {record['fewest_steps']}")


if __name__ == "__main__":
    main()
