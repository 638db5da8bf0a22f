"""A bundle before it is finished: graphs in a folder, and the content of its other files."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import MODEL, Golden, write_bundle
from edgead.console import Console
from edgead.decision import Threshold, conformal_threshold
from edgead.export.graph.subgraph import computes
from edgead.export.graph.tensorrt_rules import warn_of_refusals
from edgead.export.inference import run_singly
from edgead.manifest import Manifest, StoredThreshold
from edgead.runtime.engines import Engine


@dataclasses.dataclass(frozen=True)
class DecisionLimits:
    """The values above which scores and map values are defects.

    Attributes:
        threshold: of the score.
        mask: of the map.
        scores, map_maxima: sorted scores and highest map values of the good images that both came from.
    """

    threshold: Threshold
    mask: float
    scores: tuple[float, ...] = ()
    map_maxima: tuple[float, ...] = ()

    def stored(self) -> StoredThreshold:
        """Return the manifest's record. With the scores, `--threshold fpr:…` can choose again on the line."""
        return StoredThreshold.of(self.threshold, self.scores, self.map_maxima)


def fit_limits(scores: NDArray[np.float32], map_maxima: NDArray[np.float32], false_reject: float) -> DecisionLimits:
    """Compute the limits from held-out good images' scores and highest map values, both ``[n]``."""
    return DecisionLimits(
        conformal_threshold(scores, false_reject),
        conformal_threshold(map_maxima, false_reject).value,
        tuple(np.sort(scores).tolist()),
        tuple(np.sort(map_maxima).tolist()),
    )


def measure_limits(engine: Engine, normals: NDArray[np.uint8], false_reject: float, console: Console) -> DecisionLimits:
    """Compute the limits from held-out good images ``[N, H, W, C] uint8``."""
    scores, maps = run_singly(engine, normals, console.track("scoring"))
    return fit_limits(scores, maps.max(axis=(1, 2)), false_reject)


@dataclasses.dataclass(frozen=True)
class BundleDraft:
    """A bundle that is not finished.

    Attributes:
        folder: holds the graphs.
        manifest: without the files' hashes.
        golden: golden frames and their outputs.
        summary: one line on how far the graph is from its reference.
    """

    folder: Path
    manifest: Manifest
    golden: Golden
    summary: str


def finish_bundle(folder: Path, draft: BundleDraft, console: Console) -> Manifest:
    """Write a draft as a bundle: graphs, golden frames and manifest, into an empty folder. Report what it promises."""
    for graph in draft.folder.glob("*.onnx"):
        shutil.move(graph, folder / graph.name)
    warn_of_refusals(folder / MODEL, console)
    made = draft.manifest
    if made.reconstruction and not all(computes(graph, made.reconstruction.tensor) for graph in folder.glob("*.onnx")):
        console.say("At this precision the graph holds no reconstruction to look at")
        made = dataclasses.replace(made, reconstruction=None)
    manifest = write_bundle(folder, made, draft.golden)
    console.say(draft.summary)
    console.say(manifest.threshold.describe(manifest.data.unseen))
    return manifest
