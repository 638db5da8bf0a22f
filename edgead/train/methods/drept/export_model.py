"""The same in fewer and faster operations, as exported."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgead.train.methods.drept.network import Block, UNet
from edgead.train.methods.drept.reference_model import Head


class ExportModel(nn.Module):
    """The same function in fewer operations.

    * Batch norms are part of the convolutions before them, transposed ones too.
    * Transposed convolutions without stride are plain ones with mirrored kernels on a padded input.
    * Colour order and scale are part of the first convolution. The offset is not: at the border the zeros that it pads
      with would be another grey.
    """

    def __init__(self, network: UNet, window: int) -> None:
        super().__init__()
        self.network, self.head = fold(network.model), Head(window)
        first = self.network[0]
        assert isinstance(first, nn.Conv2d)
        first.weight = nn.Parameter(first.weight.detach().flip(1) / 127.5)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        scores, maps = self.head(self.network((frames.float() - 127.5).permute(0, 3, 1, 2)))
        return scores, maps


class _Skip(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.inner(x)], dim=1)


def fold(block: Block) -> nn.Sequential:
    """Return a block without its batch norms, as new modules; a skip stays outside of it."""
    layers: list[nn.Module] = []
    for layer in block.model:
        if isinstance(layer, Block):
            layers.append(_Skip(fold(layer)))
        elif isinstance(layer, nn.BatchNorm2d):
            convolution = layers[-1].eval()
            assert isinstance(convolution, (nn.Conv2d, nn.ConvTranspose2d))
            transposed = isinstance(convolution, nn.ConvTranspose2d)
            layers[-1] = fuse_conv_bn_eval(convolution, copy.deepcopy(layer).eval(), transposed)
        elif isinstance(layer, nn.ConvTranspose2d):
            layers.append(_mirrored(layer) if layer.stride == (1, 1) else _copy(layer))
        elif isinstance(layer, nn.Conv2d):
            layers.append(_copy(layer))
        else:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _copy(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Conv2d | nn.ConvTranspose2d:
    kernel, stride, padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
    copied = type(layer)(layer.in_channels, layer.out_channels, kernel, stride, padding, bias=False)
    copied.weight = nn.Parameter(layer.weight.detach().clone())
    return copied


def _mirrored(layer: nn.ConvTranspose2d) -> nn.Conv2d:
    kernel = layer.kernel_size[0]
    plain = nn.Conv2d(layer.in_channels, layer.out_channels, kernel, padding=kernel - 1, bias=False)
    plain.weight = nn.Parameter(layer.weight.detach().transpose(0, 1).flip(2, 3).contiguous())
    return plain
