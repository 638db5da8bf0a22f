"""What values the tensors of a graph take on real good images: what INT8 is scaled by."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime.quantization as quantization
from numpy.typing import NDArray

from edgead.errors import ConfigError
from edgead.export.precision import Ranges
from edgead.train.method import Track

METHODS = {
    "minmax": quantization.CalibrationMethod.MinMax,
    "entropy": quantization.CalibrationMethod.Entropy,
    "percentile": quantization.CalibrationMethod.Percentile,
}
PERCENTILE = 99.999
"""What `percentile` keeps of the values of a tensor."""


class _One(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Gives the calibrator one frame, so that it never holds the tensors of more than one."""

    def __init__(self, frame: NDArray[np.uint8]) -> None:
        self.frame: NDArray[np.uint8] | None = frame

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        frame, self.frame = self.frame, None
        return None if frame is None else {"frames": frame[None]}


def measure_ranges(model: Path, frames: NDArray[np.uint8], method: str, track: Track) -> Ranges:
    """Run frames through a float32 graph and return the range of every tensor.

    Args:
        model: the graph.
        frames: ``[N, H, W, 3] uint8 BGR``.
        method: ``"minmax"``: lowest and highest value. ``"percentile"``: without the outermost 0.001 %. ``"entropy"``:
            the range that loses least information when it is divided into 128 steps (TensorRT's rule).
        track: shows progress.

    Raises:
        ConfigError: no such method.
    """
    if method not in METHODS:
        raise ConfigError(f"The calibration methods are {', '.join(METHODS)}; not '{method}'.")
    options = {"symmetric": False, "percentile": PERCENTILE}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        # The library prints a line for every image.
        calibrator = quantization.create_calibrator(
            str(model), [], str(Path(folder, "augmented.onnx")), METHODS[method], extra_options=options
        )
        for frame in track(list(frames)):
            calibrator.collect_data(_One(frame))
        found = calibrator.compute_data()
    return {
        name: (float(np.min(each.range_value[0])), float(np.max(each.range_value[1]))) for name, each in found.items()
    }
