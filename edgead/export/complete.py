"""What makes a graph a bundle, whoever trained it: parity, threshold, golden frames, manifest."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import edgead
from edgead.bundle import FORMAT, MODEL, Golden, Outputs, write_bundle
from edgead.console import Console
from edgead.decision import Threshold, conformal_threshold
from edgead.export.graph_rules import warn_of_refusals
from edgead.export.parity import HALF_TOLERANCE, TOLERANCE, check_parity
from edgead.manifest import Manifest, ParityRecord, StoredThreshold
from edgead.runtime.engines import Engine
from edgead.runtime.engines.checked import check_outputs
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine

Frames = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Limits:
    """Where scores and map values become too high.

    Attributes:
        threshold: of the score.
        mask: of the map.
        scores, peaks: sorted scores and highest map values of the good images that both came from.
    """

    threshold: Threshold
    mask: float
    scores: list[float]
    peaks: list[float]

    def fields(self) -> dict[str, Any]:
        """Return the manifest's fields."""
        # The scores are kept so that `--threshold fpr:…` can choose anew beside the line, also where a region counts.
        facts = self.threshold.fields()
        stored = StoredThreshold(**facts, scores=tuple(self.scores), peaks=tuple(self.peaks))
        return {"threshold": stored, "mask_threshold": self.mask}


def fit_limits(scores: NDArray[np.float32], peaks: NDArray[np.float32], false_reject: float) -> Limits:
    """Compute the limits from held-out good images' scores and highest map values, both ``[n]``."""
    return Limits(
        conformal_threshold(scores, false_reject),
        conformal_threshold(peaks, false_reject).value,
        np.sort(scores).tolist(),
        np.sort(peaks).tolist(),
    )


def limits_of(engine: Engine, normals: Frames, false_reject: float, console: Console) -> Limits:
    """Compute the limits from held-out good images ``[N, H, W, 3] uint8 BGR``."""
    scores, maps = run_singly(engine, normals, console.track("scoring"))
    return fit_limits(scores, maps.max(axis=(1, 2)), false_reject)


@dataclasses.dataclass(frozen=True)
class Assembled:
    """A bundle that is not sealed yet: a folder with the graphs in it, and what the other files will hold.

    `summary` says in one line how far the graph is from what it was made from.
    """

    folder: Path
    manifest: Manifest
    golden: Golden
    summary: str


def assemble(
    folder: Path,
    facts: dict[str, Any],
    reference: Callable[[Frames], Golden],
    probes: Frames,
    shown: list[int],
    limits: Callable[[Engine], Limits],
    console: Console,
    precision: str = "fp32",
) -> Assembled:
    """Compare a graph with what it was made from, and set its limits.

    Args:
        folder: with `edgead.bundle.MODEL` in it.
        facts: the manifest's fields that are not found out here.
        reference: frames to what the graph must give for them.
        probes: ``[K, H, W, 3] uint8 BGR``, the frames that are compared.
        shown: numbers of the probes that become golden frames.
        limits: called with the graph's engine.
        console: what shows progress.
        precision: of the graph and of its reference.

    Raises:
        GateError: the graph differs from its reference.
    """
    engine = OnnxRuntimeEngine(folder / MODEL)
    console.say(f"comparing graph and network on {len(probes)} frames")
    expected = reference(probes)
    tolerance = HALF_TOLERANCE if precision == "fp16" else TOLERANCE
    parity = check_parity(expected, *run_singly(engine, probes, Console().track("")), tolerance)
    manifest = Manifest(
        format=FORMAT,
        precision=precision,
        parity=ParityRecord(**dataclasses.asdict(parity)),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        edgead=edgead.__version__,
        **limits(engine).fields(),
        **facts,
    )
    golden = Golden(probes[shown], expected.scores[shown], expected.maps[shown])
    summary = f"graph and network differ by at most {parity.largest:.2g} (allowed {parity.tolerance:.2g})"
    return Assembled(folder, manifest, golden, summary)


def seal(folder: Path, assembled: Assembled, console: Console) -> Manifest:
    """Make a folder the bundle: graphs, golden frames, manifest, and nothing else. Say what it promises."""
    others = list(folder.iterdir())
    for graph in assembled.folder.glob("*.onnx"):
        graph.replace(folder / graph.name)
    for other in others:
        shutil.rmtree(other)
    warn_of_refusals(folder / MODEL, console)
    made = assembled.manifest
    if made.reconstruction and not all(_makes(graph, made.reconstruction.tensor) for graph in folder.glob("*.onnx")):
        console.say("At this precision the graph holds no reconstruction to look at")
        made = dataclasses.replace(made, reconstruction=None)
    manifest = write_bundle(folder, made, assembled.golden)
    console.say(assembled.summary)
    console.say(manifest.threshold.describe(manifest.data.unseen))
    return manifest


def _makes(graph: Path, tensor: str) -> bool:
    nodes = onnx.load(graph, load_external_data=False).graph.node
    return any(tensor in node.output for node in nodes)


def run_singly(engine: Engine, frames: Frames, track: Any) -> Outputs:
    """Run frames one by one: scores ``[N]`` and maps ``[N, H, W]``.

    Raises:
        DeviceError: outputs of another shape or type.
    """
    singles = (frames[index : index + 1] for index in track(range(len(frames))))
    outputs = [check_outputs(engine.name, engine.infer(frame), frame) for frame in singles]
    return np.concatenate([scores for scores, _ in outputs]), np.concatenate([maps for _, maps in outputs])
