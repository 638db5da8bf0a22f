"""The gate of settings that are open at export, for instance fewer reverse steps. Reasons: docs/adr/0057."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgead.bundle import MODEL
from edgead.errors import GateError
from edgead.export.draft import BundleDraft
from edgead.export.options import BuildOptions
from edgead.export.quantization.gate import Gate
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.tiling import Tiling

if TYPE_CHECKING:
    from edgead.export.builder import SourceImages


def check_settings(draft: BundleDraft, published: Path, images: SourceImages, options: BuildOptions) -> None:
    """Compare a float32 graph with that of the method's published settings, as a lower precision with float32.

    Args:
        draft: the graph of the settings that the user has chosen.
        published: file of the graph of the published ones.
        images: held-out good images and synthetic anomalies; labelled images are not used.
        options: of the export; its budget holds.

    Raises:
        GateError: the graph decides otherwise.
    """
    assert images.normals is not None
    assert images.anomalies is not None
    engines = OnnxRuntimeEngine(published), OnnxRuntimeEngine(draft.folder / MODEL)
    gate = Gate(
        engines[0],
        images.normals.frames,
        images.anomalies,
        None,
        options.false_reject,
        options.precision.budget,
        options.console,
        Tiling(draft.manifest.geometry, draft.manifest.size),
    )
    judgement = gate.judge({"the graph of these settings": engines[1]})
    for engine in engines:
        engine.close()
    if not judgement.passed:
        raise GateError(
            "The settings of --set decide otherwise than the published ones:\n  "
            + "\n  ".join(judgement.failures)
            + "\nNo bundle was written. Leave out --set, or allow more with --max-auroc-drop and --max-flips."
        )
    loss = judgement.worst("rank_loss")
    options.console.say(
        f"the settings pass the gate (rank loss {loss:.4f}), which proves little: measure them with defective parts"
    )
