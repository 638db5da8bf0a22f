"""The gate of settings that are open at export, for instance fewer reverse steps. Reasons: docs/adr/0057."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import MODEL
from edgead.errors import GateError
from edgead.export.draft import BundleDraft
from edgead.export.options import BuildOptions
from edgead.export.quantization.gate import Gate
from edgead.geometry.tiling import Tiling
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine


def check_settings(
    draft: BundleDraft,
    published: Path,
    held_out: NDArray[np.uint8],
    anomalies: NDArray[np.uint8],
    options: BuildOptions,
) -> None:
    """Compare a float32 graph with that of the method's published settings, as a lower precision with float32.

    Args:
        draft: the graph of the settings that the user has chosen.
        published: file of the graph of the published ones.
        held_out: good images, ``[N, H, W, C] uint8``.
        anomalies: synthetic ones, of the same shape.
        options: of the export; its budget holds.

    Raises:
        GateError: the graph decides otherwise.
    """
    tiling = Tiling(draft.manifest.geometry, draft.manifest.size)
    with closing(OnnxRuntimeEngine(published)) as reference, closing(OnnxRuntimeEngine(draft.folder / MODEL)) as chosen:
        budget, console = options.precision.budget, options.console
        gate = Gate(reference, held_out, anomalies, None, options.false_reject, budget, console, tiling)
        judgement = gate.judge({"the graph of these settings": chosen})
    if not judgement.passed:
        raise GateError(
            "With these --set values the graph does not decide as with the published ones:\n  "
            + "\n  ".join(judgement.failures)
            + "\nNo bundle was written. Leave out --set, or allow more with --max-auroc-drop and --max-flips."
        )
    loss = judgement.worst("rank_loss")
    options.console.say(
        f"the settings pass the gate (rank loss {loss:.4f}), which proves little; measure them with defective parts"
    )
