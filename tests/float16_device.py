"""A GPU whose float16 kernels sum in float16, emulated product by product, and engines that are wrong.

`onnx.reference` runs the graph; layers are computed here: the running sum is rounded after every 16 products, as a
tensor core with float16 accumulators does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch import Tensor
from torch.nn import functional as F

from edgead.bundle import Outputs
from edgead.export.quantization.accumulation import EXACT, STEP

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
DOMAIN = "float16"


def run_in_half(model: onnx.ModelProto, frames: NDArray[np.uint8]) -> Outputs:
    """Run frames ``[N, H, W, C] uint8`` through an emulated float16 graph whose layers sum in float16.

    Args:
        model: from `to_float16` with `emulate`: it rounds results, and its sums are exact.
        frames: run one by one.
    """
    device = onnx.ModelProto()
    device.CopyFrom(model)
    device.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    for node in device.graph.node:
        if node.op_type in LAYERS and node.output[0].endswith(EXACT):  # the others stay in float32
            node.domain = DOMAIN
    evaluator = ReferenceEvaluator(device, new_ops=[Conv, ConvTranspose, Gemm, MatMul, GridSample])
    outputs = [evaluator.run(["scores", "maps"], {"frames": frame[None]}) for frame in frames]
    scores, maps = (np.concatenate(parts) for parts in zip(*outputs))
    return scores, maps


def wrong_graphs(model: onnx.ModelProto, layers: int) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield graphs with one fault in one layer, and the fault's name, for so many layers from first to last."""
    weights = {tensor.name for tensor in model.graph.initializer}
    found = [node for node in model.graph.node if node.op_type in LAYERS and node.input[1] in weights]
    for index in np.linspace(0, len(found) - 1, layers).round().astype(int):
        for kind, place in (("transposed weights", 1), ("no bias", 2), ("wrong scale", 1)):
            if place < len(found[index].input):
                wrong = onnx.ModelProto()
                wrong.CopyFrom(model)
                [tensor] = [each for each in wrong.graph.initializer if each.name == found[index].input[place]]
                values = _spoil(kind, numpy_helper.to_array(tensor))
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
                yield kind, wrong


def with_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which no layer's biases are all 0, as those of an untrained backbone are."""
    copy, rng = onnx.ModelProto(), np.random.default_rng(0)
    copy.CopyFrom(model)
    biases = {node.input[2] for node in copy.graph.node if node.op_type in LAYERS and len(node.input) > 2}
    for tensor in copy.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name in biases and not values.any():
            noise = rng.normal(0, 0.2, values.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(noise, tensor.name))
    return copy


def _spoil(kind: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    if kind == "no bias":
        return np.zeros_like(values)
    if kind == "wrong scale":
        return values / 2
    if values.ndim == 4 and values.shape[2] == values.shape[3] > 1:
        return np.ascontiguousarray(values.swapaxes(2, 3))  # height and width of the kernel
    return np.ascontiguousarray(values.swapaxes(0, 1)).reshape(values.shape)  # input and output channels


def _half(values: Tensor) -> Tensor:
    return values.half().float()


def _product(rows: Tensor, weights: Tensor) -> Tensor:
    """Multiply matrices ``[…, M, K]`` and ``[…, K, N]``."""
    total = _half(rows[..., :STEP] @ weights[..., :STEP, :])
    for start in range(STEP, rows.shape[-1], STEP):
        part = slice(start, start + STEP)
        total = _half(total + rows[..., part] @ weights[..., part, :])
    return total


def _convolve(images: Tensor, weights: Tensor, strides: Any, pads: Any, dilations: Any, group: int) -> Tensor:
    top, left, bottom, right = pads
    padded, parts = F.pad(images, (left, right, top, bottom)), []
    for inputs, kernels in zip(padded.chunk(group, 1), weights.chunk(group, 0)):
        columns = F.unfold(inputs, kernels.shape[2:], dilation=dilations, stride=strides).transpose(1, 2)
        parts.append(_product(columns, kernels.reshape(len(kernels), -1).T))
    height = (padded.shape[2] - dilations[0] * (weights.shape[2] - 1) - 1) // strides[0] + 1
    return torch.cat(parts, 2).transpose(1, 2).reshape(len(images), len(weights), height, -1)


def _tensors(*arrays: Any) -> list[Any]:
    return [None if each is None else torch.tensor(each) for each in arrays]


def _with_bias(values: Tensor, bias: Tensor | None) -> tuple[NDArray[np.float32]]:
    return ((values if bias is None else values + bias[:, None, None]).numpy(),)


class Conv(OpRun):
    op_domain = DOMAIN

    def _run(self, images, weights, bias=None, dilations=(1, 1), group=1, pads=(0,) * 4, strides=(1, 1), **_):  # type: ignore[no-untyped-def]
        images, weights, bias = _tensors(images, weights, bias)
        return _with_bias(_convolve(images, weights, strides, pads, dilations, group), bias)


class ConvTranspose(OpRun):
    op_domain = DOMAIN

    def _run(self, images, weights, bias=None, group=1, output_padding=None, pads=(0,) * 4, strides=(1, 1), **_):  # type: ignore[no-untyped-def]
        images, weights, bias = _tensors(images, weights, bias)
        output_padding = output_padding or (0, 0)
        count, channels, *size = images.shape
        spread = torch.zeros(count, channels, *((side - 1) * step + 1 for side, step in zip(size, strides)))
        spread[:, :, :: strides[0], :: strides[1]] = images
        height, width = weights.shape[2:]
        top, left, bottom, right = pads
        around = (height - 1 - top, width - 1 - left)
        around += (height - 1 - bottom + output_padding[0], width - 1 - right + output_padding[1])
        parts = []
        for inputs, kernels in zip(spread.chunk(group, 1), weights.chunk(group, 0)):
            turned = kernels.flip(2, 3).transpose(0, 1)
            parts.append(_convolve(inputs, turned, (1, 1), around, (1, 1), 1))
        return _with_bias(torch.cat(parts, 1), bias)


class MatMul(OpRun):
    op_domain = DOMAIN

    def _run(self, first, second):  # type: ignore[no-untyped-def]
        return (_product(*_tensors(first, second)).numpy(),)


class Gemm(OpRun):
    op_domain = DOMAIN

    def _run(self, first, second, added=None, alpha=1.0, beta=1.0, transA=0, transB=0):  # type: ignore[no-untyped-def]  # noqa: N803
        first, second, added = _tensors(first, second, added)
        product = alpha * _product(first.T if transA else first, second.T if transB else second)
        return ((product if added is None else product + beta * added).numpy(),)


class GridSample(OpRun):
    """Which `onnx.reference` does not compute under the name of operator set 16."""

    op_domain = ""

    def _run(self, images, grid, align_corners=0, mode="bilinear", padding_mode="zeros"):  # type: ignore[no-untyped-def]
        images, grid = _tensors(images, grid)
        return (F.grid_sample(images, grid, mode, padding_mode, bool(align_corners)).numpy(),)
