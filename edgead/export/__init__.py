"""Write bundles: from a run, or from a model that was trained elsewhere.

    from edgead.export import export, import_model

    bundle = export("runs/train/bottle", precision="int8")
    bundle = import_model("model.onnx", source="anomalib")

An ONNX file needs ``pip install 'edgead[import]'``; a run or a PyTorch checkpoint needs ``'edgead[train]'``. Importing
this package needs neither; a call reports what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgead.console import Console
from edgead.errors import ConfigError
from edgead.export.options import Budget, BuildOptions, Calibration, OnnxOptions, PrecisionOptions, to_precision_options

if TYPE_CHECKING:
    from edgead.bundle import Bundle

__all__ = ["Budget", "Calibration", "PrecisionOptions", "export", "import_model"]


def export(
    checkpoint: str | Path,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    false_reject: float = 0.01,
    settings: Sequence[str] = (),
    precision: str | PrecisionOptions = "fp32",
    force: bool = False,
    console: Console | None = None,
) -> Bundle:
    """Export a finished run as a bundle.

    The graph is compared with the trained network on held-out images and synthetic anomalies; the threshold is fitted
    to the graph's scores of the held-out images. A graph of lower precision must pass the gate, docs/precision.md.

    Args:
        checkpoint: folder of a finished run.
        data: folder of the data, if it has moved. The gate of a lower precision uses its labelled test images.
        out: folder of the bundle; by default ``runs/export/RUN.edgead``, or ``RUN-int8.edgead`` for another precision.
            A bundle of the same run and options is replaced.
        false_reject: largest share of good parts that may fail, above 0 and below 1.
        settings: ``"NAME=VALUE"`` for settings that may change at export, see `Method.export_settings`.
        precision: ``"fp32"``, ``"fp16"``, ``"int8"``, ``"int8-fp16"`` or ``"auto"`` (the fastest on this machine that
            passes the gate), or `PrecisionOptions` with calibration and budget.
        force: replace any bundle in `out`.
        console: shows progress; by default nothing is shown.

    Raises:
        GateError: the graph differs from the trained network, or the precision fails the gate.
        EdgeadError: see `edgead.errors`.
    """
    options = BuildOptions(out, false_reject, to_precision_options(precision), force, console or Console())
    from edgead.export.runs import export_run

    return export_run(Path(checkpoint), None if data is None else Path(data), settings, options)


def import_model(
    files: str | Path | Sequence[str | Path],
    *,
    method: str | None = None,
    source: str | None = None,
    threshold_data: str | Path | None = None,
    false_reject: float = 0.01,
    settings: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    input: str | None = None,
    score: str | None = None,
    map: str | None = None,
    pool: str = "max",
    rgb: bool | None = None,
    scale: float | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    precision: str | PrecisionOptions = "fp32",
    out: str | Path | None = None,
    force: bool = False,
    console: Console | None = None,
) -> Bundle:
    """Convert a model that was trained elsewhere to a bundle: an ONNX file, or a method's published checkpoint.

    Args:
        files: the ONNX file, or the files of the checkpoint. Of a pair, one is enough if the other is still in the
            folder that it was saved to.
        method: method of a published checkpoint; None for an ONNX file.
        source: of an ONNX file: ``"anomalib"``, or ``"onnx"`` (default) for any other.
        threshold_data: images of good parts that the model was not trained on. Optional for anomalib models, which
            hold a threshold.
        false_reject: wanted bound on the share of good parts that fail, above 0 and below 1.
        settings: with `method`: ``"NAME=VALUE"`` for settings that the weights do not show.
        size: (height, width) of the input in pixels, if the model accepts any size.
        input, score, map, pool, rgb, scale, mean, std: of an ONNX file, see `edgead.export.options.OnnxOptions`.
        precision, out, force, console: as for `export`; ``runs/import/NAME.edgead`` is the default folder.

    Raises:
        ModelError: the model cannot be imported.
        CheckpointError: not a checkpoint of this method, with the differences.
        GateError: the graph differs from the model, or the precision fails the gate.
        EdgeadError: see `edgead.errors`.
    """
    paths = [Path(each) for each in ([files] if isinstance(files, (str, Path)) else files)]
    chosen = OnnxOptions(input, score, map, size, rgb, scale, mean, std, pool)
    options = BuildOptions(out, false_reject, to_precision_options(precision), force, console or Console())
    if method is not None:
        from edgead.export.imports.published_checkpoint import import_checkpoint

        if source is not None or chosen != OnnxOptions(size=size):
            raise ConfigError("A published checkpoint takes settings and size. Leave out the options for ONNX files.")
        sizes = [f"size={size[0]}x{size[1]}"] if size else []
        return import_checkpoint(paths, method, threshold_data, [*settings, *sizes], options)
    if settings:
        raise ConfigError("settings apply to a published checkpoint. Set its method with --method.")
    if len(paths) != 1:
        raise ConfigError("One ONNX file at a time. For the files of a checkpoint, set its method with --method.")
    from edgead.export.imports.onnx_model import import_onnx

    return import_onnx(paths[0], "onnx" if source is None else source, chosen, threshold_data, options)
