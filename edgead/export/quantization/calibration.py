"""INT8 calibration: the ranges of a graph's tensors on real good images."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime.quantization as quantization
from numpy.typing import NDArray

from edgead.console import Console, Track
from edgead.datasets import Frames, load_frames, open_category
from edgead.decision import Threshold
from edgead.errors import DataError
from edgead.export.options import LEAST_IMAGES, Calibration
from edgead.export.quantization.entropy import narrowed
from edgead.export.quantization.int8 import Ranges
from edgead.geometry import STRETCH, Geometry
from edgead.geometry.tiling import Tiling
from edgead.images import PixelFormat
from edgead.runtime.engines import Engine

PERCENTILE = 99.999
"""Percentage of a tensor's values that `percentile` keeps."""


def find_images(calibration: Calibration, images: Sequence[Path]) -> list[Path]:
    """Return the paths of all images that calibration may draw from; `images` unless the options set others.

    Raises:
        DataError: no such folder, or too few images.
    """
    paths = list(open_category(calibration.data).normals) if calibration.data else [p for p in images if p.is_file()]
    _check_number(calibration, len(paths))
    return paths


def _check_number(calibration: Calibration, number: int) -> None:
    if number < LEAST_IMAGES:
        raise DataError(
            f"{calibration.data or 'The data'} has {number} good images for calibration; it needs at least "
            f"{LEAST_IMAGES}, better {Calibration.samples}.\nSet a folder of good images with --calib-data DIR."
        )


def load_images(
    calibration: Calibration,
    images: Sequence[Path],
    size: tuple[int, int],
    pixels: PixelFormat,
    seed: int,
    console: Console,
    geometry: Geometry = STRETCH,
) -> Frames:
    """Read the calibration images; a random sample if there are more than requested.

    Args:
        images: used unless `calibration` sets a folder.
        size: (height, width) of the model's canvas.
        pixels: how images become frames.
        seed: of the sample.
        console: shows progress.
        geometry: that fits images to the canvas.

    Raises:
        DataError: too few images.
    """
    paths = find_images(calibration, images)
    if len(paths) > calibration.samples:
        chosen = np.random.default_rng((seed, 0xCA1)).choice(len(paths), calibration.samples, replace=False)
        paths = [paths[index] for index in sorted(chosen)]
    if not calibration.data and (absent := [path for path in images if not path.is_file()]):
        console.say(f"Warning: {len(absent)} of {len(images)} calibration images are missing, for instance {absent[0]}")
    frames = load_frames(paths, size, pixels, console.track("reading calibration images"), geometry)
    for line in frames.skipped:
        console.say(f"Warning: skipped: {line}")
    _check_number(calibration, len(frames.frames))
    if len(frames.frames) < calibration.samples:
        console.say(f"calibrating on all {len(frames.frames)} images (--calib-samples {calibration.samples})")
    return frames


def draw_tiles(frames: NDArray[np.uint8], tiling: Tiling, samples: int, seed: int) -> NDArray[np.uint8]:
    """Return tiles of canvases ``[N, H, W, C] uint8`` to calibrate on: as many as `samples`, N at least, at random."""
    total = len(frames) * tiling.count
    if tiling.count == 1:
        return frames
    rng = np.random.default_rng((seed, 0xCA2))
    chosen = sorted(rng.choice(total, min(total, max(samples, len(frames))), replace=False).tolist())
    return np.stack([tiling.tile(frames[number // tiling.count], number % tiling.count) for number in chosen])


def warn_of_anomalies(
    frames: Frames, engine: Engine, fitted: Threshold, anomalies: NDArray[np.float32], console: Console
) -> None:
    """Warn of calibration images that score like defects. They would widen the ranges that INT8 divides into 256 steps.

    More of them are above the threshold than it promises, or some score as high as the median synthetic anomaly.

    Args:
        frames: the calibration images.
        engine: runs the float32 graph.
        fitted: the threshold.
        anomalies: ``[M]``, the float32 graph's scores of synthetic anomalies.
        console: shows the warning.
    """
    images = console.track("scoring calibration images")(range(len(frames.frames)))
    scores = np.concatenate([engine.infer(frames.frames[index : index + 1])[0] for index in images])
    above, expected = np.flatnonzero(scores > fitted.value), fitted.false_reject_bound * len(scores)
    if len(above) <= expected + 2 * np.sqrt(expected * (1 - fitted.false_reject_bound)):
        typical = np.median(anomalies)
        above = np.flatnonzero(scores >= typical) if typical > fitted.value else above[:0]
    if len(above):
        worst = [int(index) for index in above[np.argsort(-scores[above])][:3]]
        names = ", ".join(f"{frames.paths[index].name} ({scores[index]:.6g})" for index in worst)
        console.say(
            f"Warning: {len(above)} of {len(scores)} calibration images score like defects "
            f"(threshold {fitted.value:.6g}): {names}. If they show defects, choose other images with --calib-data, "
            "and train again if the network was trained on them."
        )


class _One(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Passes one frame to the calibrator, so that it holds the tensors of one frame at a time."""

    def __init__(self, frame: NDArray[np.uint8]) -> None:
        self.frame: NDArray[np.uint8] | None = frame

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        frame, self.frame = self.frame, None
        return None if frame is None else {"frames": frame[None]}


def measure_ranges(model: Path, frames: NDArray[np.uint8], method: str, track: Track) -> Ranges:
    """Run frames through a float32 graph and return the range of every tensor.

    Args:
        model: the graph.
        frames: ``[N, H, W, C] uint8``.
        method: ``"minmax"``: lowest and highest value. ``"percentile"``: without the outermost 0.001 %. ``"entropy"``:
            the range that loses the least information in 128 steps, see `edgead.export.quantization.entropy`.
        track: shows progress.
    """
    methods = quantization.CalibrationMethod
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        # The library prints a line for every image.
        path = Path(folder, "augmented.onnx")
        calibrator = _open(model, methods.Percentile if method == "percentile" else methods.MinMax, path)
        for frame in track(list(frames)):
            calibrator.collect_data(_One(frame))
        ranges = {
            name: (float(np.min(each.range_value[0])), float(np.max(each.range_value[1])))
            for name, each in calibrator.compute_data().items()
        }
        if method != "entropy":
            return ranges
        session = _open(model, methods.Entropy, path).infer_session  # its outputs are the tensors themselves
        names = [output.name for output in session.get_outputs()]
        return narrowed(
            ranges, track(list(frames)), lambda frame: dict(zip(names, session.run(None, {"frames": frame[None]})))
        )


def _open(model: Path, method: quantization.CalibrationMethod, path: Path) -> quantization.CalibraterBase:
    """Return ONNX Runtime's calibrator, which writes its graph to `path`."""
    options = {"symmetric": False, "percentile": PERCENTILE}
    return quantization.create_calibrator(str(model), [], str(path), method, extra_options=options)
