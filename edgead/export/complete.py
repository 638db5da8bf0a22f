"""What makes a graph a bundle, whoever trained it: parity, threshold, golden frames, manifest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgead
from edgead.bundle import FORMAT, MODEL, Golden, Manifest, write_bundle
from edgead.console import Console
from edgead.decision import Threshold, conformal_threshold
from edgead.export.parity import HALF_TOLERANCE, TOLERANCE, check_parity
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine

Frames = NDArray[np.uint8]
Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]


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


def limits_of(engine: OnnxRuntimeEngine, normals: Frames, false_reject: float, console: Console) -> Limits:
    """Compute the limits from held-out good images ``[N, H, W, 3] uint8 BGR``."""
    scores, maps = run_singly(engine.infer, normals, console)
    peaks = maps.max(axis=(1, 2))
    return Limits(
        conformal_threshold(scores, false_reject),
        conformal_threshold(peaks, false_reject).value,
        np.sort(scores).tolist(),
        np.sort(peaks).tolist(),
    )


def complete(
    folder: Path,
    facts: dict[str, Any],
    reference: Callable[[Frames], Golden],
    probes: Frames,
    shown: list[int],
    limits: Callable[[OnnxRuntimeEngine], Limits],
    console: Console,
    precision: str = "fp32",
) -> Manifest:
    """Complete a folder that holds the graph: compare it with what it was made from, set its limits, seal it.

    Args:
        folder: of the future bundle, with `edgead.bundle.MODEL` in it.
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
    parity = check_parity(expected, *run_singly(engine.infer, probes, Console()), tolerance)
    found = limits(engine)
    manifest = Manifest(
        format=FORMAT,
        precision=precision,
        threshold={
            **dataclasses.asdict(found.threshold),
            # Kept so that `--threshold fpr:…` can choose anew beside the line, also where only a region counts.
            "scores": found.scores,
            "peaks": found.peaks,
        },
        mask_threshold=found.mask,
        parity=dataclasses.asdict(parity),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        edgead=edgead.__version__,
        **facts,
    )
    golden = Golden(probes[shown], expected.scores[shown], expected.maps[shown])
    manifest = write_bundle(folder, manifest, golden)
    console.say(f"graph and network differ by at most {parity.largest:.2g} (allowed {parity.tolerance:.2g})")
    console.say(found.threshold.describe())
    return manifest


def run_singly(infer: Callable[[Frames], Outputs], frames: Frames, console: Console) -> Outputs:
    """Run frames one by one: scores ``[N]`` and maps ``[N, H, W]``."""
    outputs = [infer(frames[index : index + 1]) for index in console.track("scoring")(range(len(frames)))]
    return np.concatenate([scores for scores, _ in outputs]), np.concatenate([maps for _, maps in outputs])
