"""A module to an ONNX graph with the one signature that every bundle has."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from edgead.export.opset import OPSET


def write_onnx(module: nn.Module, size: tuple[int, int], path: Path) -> None:
    """Trace a module to ONNX and check the result.

    ``frames [N, H, W, 3] uint8 -> scores [N] float32, maps [N, H, W] float32``; N is free, H and W are not.
    Batch norms are folded into the convolutions before them. Why torch's tracing exporter: docs/adr/0003.

    Args:
        module: in evaluation mode; ``forward(frames) -> (scores, maps)``.
        size: (height, width) in pixels.
        path: the file to write.
    """
    example = torch.zeros((1, *size, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter announces its successor, which cannot write this operator set
        torch.onnx.export(
            module,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["frames"],
            output_names=["scores", "maps"],
            dynamic_axes={"frames": {0: "N"}, "scores": {0: "N"}, "maps": {0: "N"}},
        )
    onnx.checker.check_model(str(path), full_check=True)
