"""A bundle as teacher: its graph's scores and maps of frames, computed in batches by ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Outputs, cpu_model, read_bundle
from edgead.errors import CheckpointError, ConfigError, require
from edgead.geometry import STRETCH
from edgead.images import COLOUR, fit_frame
from edgead.onnx_session import new_session

BATCH = 8
"""Frames in one inference."""


class Teacher:
    """A bundle whose outputs are imitated.

    Args:
        path: of the bundle.
        digest: of its manifest; empty for any.

    Raises:
        BundleError: not a bundle, or a damaged one.
        CheckpointError: another bundle than the digest says.
        ConfigError: it reads depth, or has a geometry.
    """

    def __init__(self, path: Path, digest: str = "") -> None:
        bundle = read_bundle(path)
        manifest = bundle.manifest
        if digest not in ("", manifest.digest):
            raise CheckpointError(
                f"{path} is not the bundle that this run learns from: its digest is not {digest[:12]}….\n"
                "Restore that bundle, or start a new run."
            )
        if manifest.pixels.channels != COLOUR.channels:
            raise ConfigError(f"{path} reads depth; a student learns from bundles that read colour images.")
        if manifest.geometry != STRETCH:
            raise ConfigError(
                f"{path} aligns, crops, letterboxes or tiles its frames; a student is trained on stretched images.\n"
                "Use a teacher that was trained without --align, --crop, --fit and --tiles."
            )
        self.digest, self.size = manifest.digest, manifest.size
        self.batch = manifest.input.batch or BATCH
        name = cpu_model(bundle)
        ort = require("onnxruntime", "train")
        self._session: Any = new_session(ort, bundle.content(name))

    def outputs(self, frames: NDArray[np.uint8]) -> Outputs:
        """Return scores ``[N]`` and maps ``[N, h, w]`` at the teacher's own size of frames ``[N, H, W, 3] uint8``."""
        found = []
        for start in range(0, len(frames), self.batch):
            batch = np.stack([fit_frame(frame, self.size) for frame in frames[start : start + self.batch]])
            found.append(self._session.run(("scores", "maps"), {"frames": batch}))
        scores, maps = (np.concatenate(each) for each in zip(*found))
        return scores, maps
