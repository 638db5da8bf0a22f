"""An unfinished bundle: graphs in a folder, and the content of its other files."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import MODEL, Golden, write_bundle
from edgead.bundle.manifest import HeldOutRecord, Manifest, StoredThreshold
from edgead.console import Console
from edgead.datasets import Frames
from edgead.decision import Threshold, conformal_threshold
from edgead.export.graph.subgraph import computes
from edgead.export.graph.tensorrt_rules import warn_of_refusals
from edgead.export.inference import infer_singly
from edgead.export.odd_images import warn_of_odd_images
from edgead.runtime.engines import Engine
from edgead.runtime.health import is_black
from edgead.runtime.look import look_at


@dataclasses.dataclass(frozen=True)
class DecisionLimits:
    """Limits of scores and map values; higher values are defects.

    Attributes:
        threshold: of the score.
        mask: of the map.
        scores, map_maxima: sorted scores and map maxima of the good images that the limits were fitted to.
        held_out: what those images looked like; None if it is not known.
    """

    threshold: Threshold
    mask: float
    scores: tuple[float, ...] = ()
    map_maxima: tuple[float, ...] = ()
    held_out: HeldOutRecord | None = None

    def stored(self) -> StoredThreshold:
        """Return the manifest's record. It holds the scores, so that `--threshold fpr:…` works on the line."""
        return StoredThreshold.of(self.threshold, self.scores, self.map_maxima)


def fit_limits(
    normals: Frames, scores: NDArray[np.float32], map_maxima: NDArray[np.float32], false_reject: float
) -> DecisionLimits:
    """Fit the limits to scores and map maxima ``[N]`` of N held-out good images."""
    return DecisionLimits(
        conformal_threshold(scores, false_reject),
        conformal_threshold(map_maxima, false_reject).value,
        tuple(np.sort(scores).tolist()),
        tuple(np.sort(map_maxima).tolist()),
        _looks_of(normals, np.argsort(scores)),
    )


def _looks_of(normals: Frames, order: NDArray[np.intp]) -> HeldOutRecord:
    """Return what images looked like, in an order of their numbers."""
    looks = [look_at(normals.frames[number], normals.sizes[number]) for number in order]
    brightness, sharpness, aspects = zip(*looks)
    return HeldOutRecord(brightness, sharpness, aspects, dark=any(map(is_black, normals.frames)))


def measure_limits(
    engine: Engine, normals: Frames, false_reject: float, console: Console
) -> tuple[DecisionLimits, list[float]]:
    """Run held-out good images, whole canvases, and fit the limits to the outputs.

    Args:
        engine: of canvases, see `edgead.runtime.engines.tiled`: with tiles, the limits are those of stitched outputs.
        normals: the images.
        false_reject: bound of the threshold.
        console: shows progress.

    Returns:
        The limits, and the milliseconds of each inference.
    """
    times: list[float] = []
    outputs = infer_singly(engine, normals.frames, console.track("scoring"), times)
    scores, maxima = zip(*((score, found.max()) for score, found in outputs))
    limits = fit_limits(normals, np.array(scores, np.float32), np.array(maxima, np.float32), false_reject)
    warn_of_odd_images(normals, scores, limits.threshold.value, console)
    return limits, times


@dataclasses.dataclass(frozen=True)
class BundleDraft:
    """An unfinished bundle.

    Attributes:
        folder: holds the graphs.
        manifest: without the files' hashes.
        golden: golden frames and their outputs.
        summary: one line on the differences between graph and reference.
        scoring_ms: engine ↦ median milliseconds of an inference of the float32 graph on the held-out images.
    """

    folder: Path
    manifest: Manifest
    golden: Golden
    summary: str
    scoring_ms: Mapping[str, float] = dataclasses.field(default_factory=dict)


def finish_bundle(folder: Path, draft: BundleDraft, console: Console) -> Manifest:
    """Write a draft's graphs, golden frames and manifest into an empty folder. Report its threshold."""
    for graph in draft.folder.glob("*.onnx"):
        shutil.move(graph, folder / graph.name)
    warn_of_refusals(folder / MODEL, console)
    made = draft.manifest
    if made.reconstruction and not all(computes(graph, made.reconstruction.tensor) for graph in folder.glob("*.onnx")):
        console.say("The graph of this precision does not contain the reconstruction; predict --save writes none.")
        made = dataclasses.replace(made, reconstruction=None)
    manifest = write_bundle(folder, made, draft.golden)
    console.say(draft.summary)
    console.say(manifest.threshold.describe(manifest.data.unseen))
    return manifest
