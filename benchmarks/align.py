"""Measure alignment: on how many good pictures the part is found, how exactly, and what it costs a frame.

    python benchmarks/align.py ../shared/data/mvtec_screw --out benchmarks/results/align.json
    python benchmarks/align.py ../shared/data/aws_cookies --max-rotation 0
    python benchmarks/align.py DATA --bundle PLAIN.edgead --bundle ALIGNED.edgead      # their accuracy as well

How exactly: each picture is shifted and turned by a drawn pose. The residual is by how much the pose that is then found
differs from the one before, moved by the drawn one: the farthest of the window's corners, in pixels of the picture.
Times are CPU time on one core, which a busy machine changes less than the time that passes.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

import edgead
from edgead.benchmark.accuracy import Accuracy, measure_accuracy
from edgead.cli.output import terminal
from edgead.datasets import open_category
from edgead.decision import conformal_threshold
from edgead.errors import MisplacedError
from edgead.files import write_json
from edgead.geometry import Geometry, GeometryRequest, Size
from edgead.geometry.alignment import find_pose, locate, reference_of
from edgead.geometry.pose import Alignment, Matrix, Pose, points_of
from edgead.geometry.resampling import warp
from edgead.images import COLOUR, Frame, cv2, fit_frame, read_frame
from edgead.machine import describe_measurement
from edgead.train.canvas import fix_geometry

SIZES: tuple[Size, ...] = ((480, 640), (1024, 1024), (1080, 1920), (3000, 4096))
"""(height, width) of frames that are timed, pixels."""
ROTATIONS = (0.0, 30.0, 180.0)
CANVAS = (256, 256)
PIXEL_SIZE = 256
FALSE_REJECTS = (0.05, 0.1)
"""Allowed shares of false rejects of further thresholds; the bundle's own allows 0.01."""


def search(geometry: Geometry, paths: Sequence[Path], seed: int) -> dict[str, Any]:
    """Return on how many pictures the part is found, why not on others, and the residuals of those that are."""
    rng, reasons = np.random.default_rng(seed), Counter[str]()
    correlations, residuals, unmoved = [], [], 0
    for path in paths:
        frame = read_frame(path)
        try:
            pose, correlation = find_pose(frame, geometry)
        except MisplacedError as error:
            reasons[error.why] += 1
            continue
        correlations.append(correlation)
        residual = _residual(frame, geometry, pose, rng)
        if residual is None:
            unmoved += 1
        else:
            residuals.append(residual)
    found = {"pictures": len(paths), "found": len(correlations), "not_found": dict(reasons)}
    quantiles = {f"p{share}": round(float(np.percentile(residuals, share)), 3) for share in (50, 90, 99)}
    lowest, middle = (round(float(np.percentile(correlations, share)), 3) for share in (0, 50))
    return found | {
        "correlation": {"lowest": lowest, "median": middle},
        "residual_pixels": quantiles,
        "moved_and_not_found": unmoved,
    }


def _residual(frame: Frame, geometry: Geometry, pose: Pose, rng: np.random.Generator) -> float | None:
    assert geometry.align is not None
    size = (frame.shape[0], frame.shape[1])
    turn = min(geometry.align.max_rotation / 4, 45)
    drawn = Pose(rng.uniform(-turn, turn), *rng.uniform(-0.04, 0.04, 2))
    pixels = points_of(0, 0, size[1], size[0], size)
    move = drawn.matrix(size, geometry.centre)  # from points of the picture to points of the moved one
    moved = warp(frame, np.linalg.inv(pixels) @ np.linalg.inv(move) @ pixels, size)
    try:
        again, _ = find_pose(moved, geometry)
    except MisplacedError:
        return None
    wanted, corners = move @ pose.matrix(size, geometry.centre), _corners(geometry, size)
    apart = (again.matrix(size, geometry.centre) - wanted) @ corners
    return float(np.hypot(apart[0], apart[1]).max())


def _corners(geometry: Geometry, size: Size) -> Matrix:
    x, y, width, height = geometry.crop or (0, 0, 1, 1)
    return np.array([(u * size[1], v * size[0], 1) for u in (x, x + width) for v in (y, y + height)]).T


def costs(paths: Sequence[Path], rounds: int) -> list[dict[str, Any]]:
    """Return the milliseconds of CPU time of fitting a frame, with and without alignment, at several sizes."""
    lib, rows = cv2(), []
    for size in SIZES:
        frames = [np.asarray(lib.resize(read_frame(path), size[::-1]), np.uint8) for path in paths[:4]]
        plain = _median(frames, Geometry(), rounds)
        for rotation in ROTATIONS:
            geometry = _reference(frames[0], rotation)
            row = {"height": size[0], "width": size[1], "max_rotation": rotation, "fit": plain}
            rows.append(row | {"aligned_fit": _median(frames, geometry, rounds)})
    return rows


def _reference(frame: Frame, rotation: float) -> Geometry:
    shape, pixels = reference_of(frame, Geometry())
    size = (frame.shape[0], frame.shape[1])
    return Geometry(align=Alignment("reference", size, shape, pixels, 0.2, rotation, 0.0, 0, 0))


def _median(frames: Sequence[Frame], geometry: Geometry, rounds: int) -> float:
    times = []
    for number in range(rounds + 1):
        frame = frames[number % len(frames)]
        start = time.process_time()
        try:
            fit_frame(frame, CANVAS, geometry=locate(frame, geometry))
        except MisplacedError:  # another picture of the product, at a small angle or none; the search took as long
            fit_frame(frame, CANVAS)
        if number:
            times.append((time.process_time() - start) * 1e3)
    return round(float(np.median(times)), 2)


def accuracy(bundle: Path, data: Path, engine: str) -> dict[str, Any]:
    """Return a bundle's figures on the labelled pictures."""
    with edgead.load(bundle, engine=engine) as inspector:
        measured = measure_accuracy(inspector, open_category(data), PIXEL_SIZE, terminal())
        made = inspector.bundle.manifest
    return {
        "method": f"{made.method} ({made.preset})",
        "geometry": made.geometry.describe(),
        "held_out": len(made.threshold.scores),
        "image_auroc": round(measured.metrics.image_auroc, 4),
        "aupro": None if measured.metrics.aupro is None else round(measured.metrics.aupro, 4),
        "false_reject_rate": round(measured.decisions.false_reject_rate, 4),
        "detection_rate": round(measured.decisions.detection_rate, 4),
        "at_fpr": {str(share): _at(share, measured, made.threshold.scores) for share in FALSE_REJECTS},
        "misplaced": measured.images.skipped,
    }


def _at(share: float, measured: Accuracy, held_out: Sequence[float]) -> dict[str, float]:
    """Return what the line would decide with ``--threshold fpr:SHARE``, set on the held-out images alone."""
    threshold = conformal_threshold(held_out, share).value
    fails, bad = np.array(measured.scores) > threshold, np.array([each.anomalous for each in measured.samples])
    rates = {"false_reject_rate": fails[~bad].mean(), "detection_rate": fails[bad].mean()}
    return {name: round(float(rate), 4) for name, rate in rates.items()}


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--reference", default="auto", show_default=True, help="Picture, or auto.")
@click.option("--crop", help="As in edgead train.")
@click.option("--max-shift", type=float)
@click.option("--max-rotation", default=180.0, show_default=True)
@click.option("--pictures", default=100, show_default=True, help="Good pictures at most.")
@click.option("--rounds", default=20, show_default=True, help="Timed calls of each kind; 0 for none.")
@click.option("--bundle", "bundles", multiple=True, type=click.Path(exists=True, path_type=Path), help="Repeatable.")
@click.option("--engine", default="onnxruntime", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Results file; what it has of other data is kept.")
def main(
    data: Path,
    reference: str,
    crop: str | None,
    max_shift: float | None,
    max_rotation: float,
    pictures: int,
    rounds: int,
    bundles: tuple[Path, ...],
    engine: str,
    out: Path | None,
) -> None:
    """Measure alignment on the good pictures of DATA."""
    head = describe_measurement("benchmarks/align.py")
    cv2().setNumThreads(1)
    category = open_category(data)
    requested = GeometryRequest.parse(crop, "stretch", None, None, reference, max_shift, max_rotation)
    geometry, _ = fix_geometry(requested, category.normals, CANVAS, COLOUR, terminal())
    step = max(1, math.ceil(len(category.normals) / pictures))
    row: dict[str, Any] = {
        "command": head.command,
        "data": category.name,
        "geometry": geometry.describe(),
        **search(geometry, category.normals[::step], 0),
        "load": round(os.getloadavg()[0], 1),
    }
    if rounds:
        row["cpu_ms"] = costs(category.normals, rounds)
    if bundles:
        row["accuracy"] = [accuracy(bundle, data, engine) for bundle in bundles]
    record: dict[str, Any] = json.loads(out.read_text()) if out and out.exists() else {"rows": []}
    record |= {"machine": asdict(head.machine), "versions": head.versions}
    record["rows"] = [each for each in record["rows"] if each["data"] != category.name] + [row]
    if out:
        write_json(out, record)
    click.echo(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
