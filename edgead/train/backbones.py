"""Pretrained networks as frozen feature extractors: any network of torchvision by its name, and `resnet50v2`."""

from __future__ import annotations

import copy
import importlib
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgead.errors import CheckpointError, ConfigError, require, unknown
from edgead.train.weights import read_weights, refuse_differences

LEVELS: dict[str, tuple[str, str, str]] = {
    "alexnet": ("features.2", "features.5", "features.12"),
    "squeezenet1_1": ("features.4", "features.7", "features.12"),
    "resnet18": ("layer1", "layer2", "layer3"),
    "resnet34": ("layer1", "layer2", "layer3"),
    "resnet50": ("layer1", "layer2", "layer3"),
    "wide_resnet50_2": ("layer1", "layer2", "layer3"),
    "resnet50v2": ("stage2.0.relu", "stage3.0.relu", "stage3.5.relu"),
}
"""Backbone ↦ three layers, each with half the resolution of the one before. Others are named layer by layer.

All end with a ReLU. The blocks of resnet50v2 return sums without one, so its levels are what the next block makes of
them. Reasons: docs/adr/0069.
"""

SILENT = 20.0
"""Seconds without an answer after which a download has failed."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, RGB in [0, 1]: what all these networks were trained with."""


def torchvision() -> Any:
    """Return torchvision, imported at first use.

    Its PyPI wheel is linked to CUDA. Beside a CPU-only torch its operators cannot be loaded, and the import stops at
    the first one whose schema is asked for. None of them is used here, so the missing schemas are declared.
    """
    try:
        return require("torchvision", "train")
    except RuntimeError as error:
        if "does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    for operator in ("nms", "qnms"):
        schema = f"{operator}(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define(f"torchvision::{operator}", schema.removeprefix(operator))
    return importlib.import_module("torchvision")


class _PreActivation(nn.Module):
    """Pre-activation bottleneck (He et al. 2016); the projection of the first block sees the activated input."""

    def __init__(self, inputs: int, outputs: int, stride: int, project: bool) -> None:
        super().__init__()
        width = outputs // 4
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, width, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn3, self.conv3 = nn.BatchNorm2d(width), nn.Conv2d(width, outputs, 1, bias=False)
        self.down = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if project else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        shortcut = x if self.down is None else self.down(active)
        y = self.conv2(F.relu(self.bn2(self.conv1(active))))
        out: Tensor = shortcut + self.conv3(F.relu(self.bn3(y)))
        return out


class ResNet50V2(nn.Module):
    """The stem and the first three stages of the pre-activation ResNet-50 of the ONNX model zoo.

    Feature widths 256, 512 and 1024 are those of ResNet-50 and Wide ResNet-50-2. Each block begins with a batch norm
    and a ReLU, and returns a sum that has gone through neither.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(3)
        self.conv0 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for stage, (blocks, outputs) in enumerate(((3, 256), (4, 512), (6, 1024)), start=1):
            first = _PreActivation(inputs, outputs, 1 if stage == 1 else 2, True)
            rest = (_PreActivation(outputs, outputs, 1, False) for _ in range(blocks - 1))
            setattr(self, f"stage{stage}", nn.Sequential(first, *rest))
            inputs = outputs

    def forward(self, image: Tensor) -> Tensor:
        x = self.pool(F.relu(self.bn1(self.conv0(self.bn0(image)))))
        for stage in (1, 2, 3):
            x = self.get_submodule(f"stage{stage}")(x)
        out: Tensor = x
        return out


class Backbone(nn.Module):
    """A network up to the last of the named layers, in evaluation mode for ever.

    Its children are the network's, under the network's names, so that published weights fit as they are.

    Args:
        name: ``"resnet50v2"`` or a classification network of torchvision.
        layers: whose outputs are wanted, in torchvision's names (`torchvision.models.feature_extraction`).

    Raises:
        ConfigError: no such network or layer.
    """

    def __init__(self, name: str, layers: Sequence[str]) -> None:
        super().__init__()
        network = _build(name)
        extraction = importlib.import_module(f"{torchvision().__name__}.models.feature_extraction")
        try:
            graph = extraction.create_feature_extractor(network.eval(), list(layers)).eval()
        except ValueError as error:
            _, names = extraction.get_graph_node_names(network)
            raise ConfigError(f"{name} has no layer {', '.join(layers)}. It has: {', '.join(names)}.") from error
        self.name, self.layers = name, tuple(layers)
        self._every_key = frozenset(network.state_dict())
        for child, module in graph.named_children():
            self.add_module(child, module)
        self._run = type(graph).forward  # generated for `graph`, and right for anything that has its children
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: statistics of a frozen network do not move."""
        super().train(mode)
        for name in dict(self.named_children()).keys() & _roots(self._every_key):
            self.get_submodule(name).eval()
        return self

    def forward(self, image: Tensor) -> list[Tensor]:
        """Normalised RGB ``[N, 3, H, W]`` (see `normalise`) to one ``[N, C, h, w]`` for each layer."""
        found = self._run(self, image)
        return [found[layer] for layer in self.layers]

    @torch.no_grad()
    def shapes(self, size: tuple[int, int]) -> list[tuple[int, int, int]]:
        """(channels, height, width) of each layer's output for an input of that height and width."""
        return [(f.shape[1], f.shape[2], f.shape[3]) for f in Backbone.forward(self, torch.zeros(1, 3, *size))]

    def load_pretrained(self, weights: Path | None) -> None:
        """Read published weights: a file, or torchvision's own download where `weights` is None.

        Raises:
            CheckpointError: they are not there, damaged, or another network's; with the names that differ.
        """
        values = read_weights(weights) if weights else _download(self.name)
        own = {key: value for key, value in self.state_dict().items() if key in self._every_key}
        fits = {key: value for key, value in values.items() if key in own and value.shape == own[key].shape}
        counters = {key for key in own if key.endswith("num_batches_tracked")}
        refuse_differences(
            f"{weights or 'The download'} does not hold the weights of {self.name}",
            missing=own.keys() - values.keys() - counters,
            unknown=values.keys() - self._every_key,
            reshaped={key for key in own.keys() & values.keys() if key not in fits},
        )
        self.load_state_dict(fits, strict=False)


def why_no_weights(name: str, weights: Path | None) -> str:
    """Read a network's published weights once, before any work. A download stays on this machine.

    Args:
        name: a network in `LEVELS`.
        weights: their file; their publisher's download where None.

    Returns:
        Why the download failed, and which file to fetch; empty if it did not fail.

    Raises:
        CheckpointError: the file is not there, damaged, or another network's.
    """
    try:
        Backbone(name, LEVELS[name]).load_pretrained(weights)
    except CheckpointError as error:
        if weights is not None:
            raise
        return str(error)
    return ""


def holds_weights_of(name: str, weights: str | Path) -> bool:
    """Tell whether a file holds the published weights of a network in `LEVELS`."""
    try:
        Backbone(name, LEVELS[name]).load_pretrained(Path(weights))
    except CheckpointError:
        return False
    return True


def normalise(frames: Tensor) -> Tensor:
    """``[N, H, W, 3]`` BGR in 0 to 255 to ``[N, 3, H, W] float32`` RGB with ImageNet's mean and deviation removed."""
    # Cast first: TensorRT's parser takes bytes into no other operator.
    rgb = frames.float().flip(-1).permute(0, 3, 1, 2) / 255
    mean, std = rgb.new_tensor(MEAN)[:, None, None], rgb.new_tensor(STD)[:, None, None]
    return (rgb - mean) / std


def fold_normalisation(backbone: Backbone) -> Callable[[Tensor], Tensor]:
    """Move ImageNet's deviation and the colour order into a backbone's first convolution, in place.

    The mean stays outside, because the zeros around the image stand for it.

    Returns:
        What now turns frames into the backbone's input: `centre`, or `normalise` where the network does not begin
        with a convolution and nothing was changed.
    """
    name, first = next((name, module) for name, module in backbone.named_modules() if not list(module.children()))
    if not isinstance(first, nn.Conv2d):
        return normalise
    scale = 1 / (255 * first.weight.new_tensor(STD)[:, None, None])
    folded = copy.deepcopy(first)
    folded.weight = nn.Parameter((first.weight.detach() * scale).flip(1), requires_grad=False)
    parent, _, child = name.rpartition(".")
    setattr(backbone.get_submodule(parent), child, folded)
    return centre


def centre(frames: Tensor) -> Tensor:
    """``[N, H, W, 3]`` BGR in 0 to 255 to ``[N, 3, H, W] float32`` BGR in grey values, without ImageNet's mean."""
    planes = frames.float().permute(0, 3, 1, 2)  # cast first, as above
    return planes - 255 * planes.new_tensor(MEAN[::-1])[:, None, None]


def _roots(keys: frozenset[str]) -> set[str]:
    return {key.partition(".")[0] for key in keys}


def _build(name: str) -> nn.Module:
    if name == "resnet50v2":
        return ResNet50V2()
    models = torchvision().models
    if name not in models.list_models(module=models):
        raise ConfigError(unknown("backbone", name, [*LEVELS, "other networks of torchvision"]))
    network: nn.Module = models.get_model(name, weights=None)
    return network


def _download(name: str) -> Mapping[str, Tensor]:
    if name == "resnet50v2":
        raise CheckpointError(
            "The weights of resnet50v2 cannot be downloaded. Pass a file with --weights FILE.\n"
            "It must hold the weights of resnet50-v2-7.onnx from the ONNX model zoo, with edgead's parameter names."
        )
    # The first version: what the papers used. Later ones were trained otherwise.
    weights = torchvision().models.get_model_weights(name).IMAGENET1K_V1
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENT)  # torch's download has no limit of its own
    try:
        values: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        place, _, file = weights.url.rpartition("/")
        raise CheckpointError(
            f"The ImageNet weights of {name} are not on this machine and cannot be downloaded ({error}).\n"
            f"Fetch {file} from {place}/\n"  # apart: a long name in an address would be taken for a secret
            f"and put it into {Path(torch.hub.get_dir(), 'checkpoints')}, or pass it with --weights FILE."
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    return values
