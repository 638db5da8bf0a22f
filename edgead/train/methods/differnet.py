"""DifferNet: a normalising flow over multi-scale image features (Rudolph, Wandt, Rosenhahn, WACV 2021).

A pretrained network, never trained further, sees the image at several sizes; the means of its feature maps are one
vector. A flow of affine couplings learns to map the vectors of good images to a standard normal distribution. An
image is rotated to fixed angles, and the published score is s, the mean square of what the flow makes of them. Module
and parameter names are the published code's, so its weights load.

The graph gives log(1 + s). s grows by powers of ten with each coupling that an anomaly goes through, up to 10¹², and
its last digits are rounding there; its logarithm has the same order, so the same verdicts, and a usable scale.

The paper localises by the gradient of the score with respect to the pixels, which takes a backward pass through
everything. Here the score is expanded to second order around the mean features of good images, and each place of a
feature map is worth its share of it: one matrix product, no backward pass, and a graph that any engine runs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgead.console import Track
from edgead.errors import ConfigError
from edgead.train.backbones import LEVELS, Backbone, fold_normalisation, normalise
from edgead.train.maps import upsampling
from edgead.train.method import (
    WITH_REPLACEMENT,
    Arrays,
    Batch,
    Card,
    Method,
    MethodConfig,
    Official,
    Stage,
    TrainingData,
)
from edgead.train.synthetic import synthesise

BOUND = 1e6
"""The published code cuts the output of a coupling off here; a flow that comes near is broken anyway."""
REFERENCE_VIEWS = 8
"""Rotations of each good image whose mean features stand for it where a published checkpoint is taken over."""
TINY = 1e-12
"""Smallest number that is divided by."""
GOLDEN = 0.6180339887498949
"""Turns the cached angles of one image against those of the next, so that together they fill the circle."""


@dataclass(frozen=True)
class DiffernetConfig(MethodConfig):
    """Configuration of DifferNet; the defaults are the published training."""

    size: tuple[int, int] = (448, 448)
    """Input height and width, pixels."""
    batch_size: int = 24
    """Images in one optimiser step; each is seen `train_views` times."""
    epochs: int = 192
    """Passes over the training images (24 × 8 in the published code)."""
    learning_rate: float = 2e-4
    """Adam's step size, constant."""
    backbone: str = "alexnet"
    """A classification network of torchvision, or resnet50v2."""
    layer: str = ""
    """The layer whose features are pooled; where empty, the last that is listed for the backbone."""
    scales: int = 3
    """The image is seen at its size, at half of it, at a quarter, …"""
    blocks: int = 8
    """Couplings of the flow."""
    hidden: int = 2048
    """Width of the three hidden layers of each coupling's networks."""
    clamp: float = 3.0
    """α: bounds the logarithm of a coupling's scale to about ±α."""
    weight_decay: float = 1e-5
    """Adam's, on the flow."""
    rotate_degrees: float = 180.0
    """Largest rotation either way, when training and when scoring. Set to 0 (and views to 1) where a turned part is
    itself a defect."""
    train_views: int = 4
    """Random rotations of each image in one step."""
    views: int = 64
    """Fixed rotations that are scored; latency is proportional to them."""
    cached_views: int = 0
    """Rotations of each training image whose features are computed once and then drawn from, which makes the flow
    train in minutes. 0 draws new angles, and computes the features, in every step, as published."""
    map_sigma: float = 8.0
    """Gaussian on the pixel map, pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("scales", "blocks", "hidden", "clamp", "train_views", "views"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be positive, not {getattr(self, name)}.")
        for name in ("weight_decay", "cached_views", "map_sigma"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} cannot be negative: {getattr(self, name)}.")
        if not 0 <= self.rotate_degrees <= 180:
            raise ConfigError(f"rotate_degrees must lie between 0 and 180, not {self.rotate_degrees}.")
        if self.rotate_degrees == 0 and self.views > 1:
            raise ConfigError(f"Without rotation all {self.views} views are the same: --set views=1.")
        step = 2 ** (self.scales - 1)
        if any(side % step for side in self.size):
            raise ConfigError(f"With {self.scales} scales both sides must be multiples of {step}, not {self.size}.")
        if not self.layer and self.backbone not in LEVELS:
            raise ConfigError(f"Say which layer of {self.backbone} is pooled: --set layer=NAME.")
        if 0 < self.cached_views < self.train_views:
            raise ConfigError(f"cached_views must be at least train_views ({self.train_views}), or 0.")

    def angles(self) -> NDArray[np.float64]:
        """The rotations that are scored, degrees."""
        if self.rotate_degrees == 180:
            return np.arange(self.views, dtype=np.float64) * (360 / self.views)
        middle = (np.arange(self.views) + 0.5) / self.views * 2 - 1
        return np.asarray(middle * self.rotate_degrees)


def rotation_index(size: tuple[int, int], degrees: float) -> NDArray[np.int64]:
    """Return for each pixel of a rotated image the flat index of its source, nearest neighbour; H·W means outside.

    Counter-clockwise about the centre, same size: the pixels that Pillow's ``rotate`` takes, by its arithmetic of 16
    binary places. A table instead of a sampling grid, because every engine then takes the same ones. Shape
    ``[H * W] int64``.
    """
    height, width = size
    turn = -np.deg2rad(degrees % 360)
    cos, sin = round(float(np.cos(turn)), 15), round(float(np.sin(turn)), 15)
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")

    def source(across: float, down: float, middle: float) -> NDArray[np.int64]:
        start = middle + across * (0.5 - width / 2) + down * (0.5 - height / 2)
        first, by_x, by_y = (int(np.floor(value * 65536 + 0.5)) for value in (start, across, down))
        return np.asarray((first + by_x * x + by_y * y) >> 16, np.int64)

    columns, rows = source(cos, sin, width / 2), source(-sin, cos, height / 2)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return np.where(inside, rows * width + columns, height * width).ravel()


def rotate_frame(frame: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Rotate ``[H, W, 3]`` with `rotation_index`; what comes in from outside is black."""
    pixels = np.concatenate([frame.reshape(-1, 3), np.zeros((1, 3), np.uint8)])
    return pixels[rotation_index((frame.shape[0], frame.shape[1]), degrees)].reshape(frame.shape)


class Subnetwork(nn.Module):
    """Four linear layers with ReLU between them: the s and t of a coupling."""

    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)
        self.fc2b, self.fc3 = nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)
        self.bn = nn.BatchNorm1d(inputs).requires_grad_(False)  # in the published weights, but never used

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc2(F.relu(self.fc1(x))))
        out: Tensor = self.fc3(F.relu(self.fc2b(x)))
        return out


class Permutation(nn.Module):
    """Fixed permutation number `seed` of the published code (NumPy's legacy generator)."""

    order: Tensor
    inverse: Tensor

    def __init__(self, dimensions: int, seed: int) -> None:
        super().__init__()
        order = torch.from_numpy(np.random.RandomState(seed).permutation(dimensions))
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("inverse", order.argsort(), persistent=False)


class Coupling(nn.Module):
    """Affine coupling of both halves (paper, eq. 2 and 3; its soft clamp is eq. 4)."""

    def __init__(self, dimensions: int, hidden: int, clamp: float) -> None:
        super().__init__()
        self.first, self.second, self.clamp = dimensions // 2, dimensions - dimensions // 2, clamp
        self.s1 = Subnetwork(self.first, 2 * self.second, hidden)
        self.s2 = Subnetwork(self.second, 2 * self.first, hidden)

    def log_scale(self, s: Tensor) -> Tensor:
        """α · 0.636 · atan(s / α): odd, bounded, slope 0.636 at 0 (0.636 stands for 2/π)."""
        return self.clamp * 0.636 * torch.atan(s / self.clamp)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, D]`` to ``[B, D]`` and the logarithm of the Jacobian's determinant ``[B]``."""
        x1, x2 = torch.split(x, [self.first, self.second], dim=1)
        s2, t2 = torch.split(self.s2(x2), self.first, dim=1)
        y1 = self.log_scale(s2).exp() * x1 + t2
        s1, t1 = torch.split(self.s1(y1), self.second, dim=1)
        y2 = self.log_scale(s1).exp() * x2 + t1
        volume = self.log_scale(s1).sum(dim=1) + self.log_scale(s2).sum(dim=1)
        return torch.cat([y1, y2], dim=1).clamp(-BOUND, BOUND), volume

    def inverse(self, y: Tensor) -> Tensor:
        y1, y2 = torch.split(y, [self.first, self.second], dim=1)
        s1, t1 = torch.split(self.s1(y1), self.second, dim=1)
        x2 = (y2 - t1) / self.log_scale(s1).exp()
        s2, t2 = torch.split(self.s2(x2), self.first, dim=1)
        return torch.cat([(y1 - t2) / self.log_scale(s2).exp(), x2], dim=1)


class Flow(nn.Module):
    """Permutations and couplings in turn, in float32 whatever the rest runs in: scales multiply up to 20⁸."""

    def __init__(self, dimensions: int, blocks: int, hidden: int, clamp: float) -> None:
        super().__init__()
        modules: list[nn.Module] = [nn.Identity()]  # the published graph has its input node here
        for block in range(blocks):
            modules += [Permutation(dimensions, block), Coupling(dimensions, hidden, clamp)]
        self.module_list = nn.ModuleList(modules)

    def steps(self) -> list[tuple[Permutation, Coupling]]:
        pairs = list(self.module_list)[1:]
        return list(zip(pairs[::2], pairs[1::2]))  # type: ignore[arg-type]

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[B, D]`` to z ``[B, D]`` and log|det ∂z/∂y| ``[B]``."""
        with torch.autocast(y.device.type, enabled=False):
            y = y.float() if y.dtype in (torch.float16, torch.bfloat16) else y
            volume = y.new_zeros(len(y))
            for permutation, coupling in self.steps():
                y, added = coupling(y.index_select(1, permutation.order))
                volume = volume + added
            return y, volume

    def inverse(self, z: Tensor) -> Tensor:
        """z ``[B, D]`` back to features ``[B, D]``."""
        for permutation, coupling in reversed(self.steps()):
            z = coupling.inverse(z).index_select(1, permutation.inverse)
        return z

    def curvature(self, y: Tensor) -> Tensor:
        """Features ``[D]`` to the ``[D, D]`` matrix (2 / D) Jᵀ J with J = ∂z/∂y.

        With it, mean z² grows like ½ dᵀ M d at a distance d from a place where z is near zero.
        """
        rows = y.detach().expand(len(y), -1).clone().requires_grad_()
        with torch.enable_grad():
            (jacobian,) = torch.autograd.grad(self(rows)[0].diagonal().sum(), rows)
        return jacobian.T @ jacobian * (2 / len(y))


class DiffernetNetwork(nn.Module):
    """The frozen feature extractor, the flow, and the loss that trains it."""

    reference: Tensor
    seen: Tensor

    def __init__(self, config: DiffernetConfig) -> None:
        super().__init__()
        self.scales = config.scales
        self.feature_extractor = Backbone(config.backbone, [config.layer or LEVELS[config.backbone][-1]])
        [(self.width, _, _)] = self.feature_extractor.shapes(config.size)
        dimensions = self.width * config.scales
        self.nf = Flow(dimensions, config.blocks, config.hidden, config.clamp)
        # Mean features of the training images: what the pixel map compares with.
        self.register_buffer("reference", torch.zeros(dimensions))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def features(self, image: Tensor) -> list[Tensor]:
        """Normalised ``[N, 3, H, W]`` to one feature map ``[N, C, h, w]`` for each scale.

        Every second pixel of the image is what nearest-neighbour resizing to half takes.
        """
        return [self.feature_extractor(image[:, :, :: 2**s, :: 2**s])[0] for s in range(self.scales)]

    def pooled(self, image: Tensor) -> Tensor:
        """Normalised ``[N, 3, H, W]`` to the flow's input ``[N, D]``."""
        return torch.cat([found.float().mean(dim=(2, 3)) for found in self.features(image)], dim=1)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Negative log-likelihood per dimension, without constants (paper, eq. 5).

        Of ``features [B, T, D] float32``, or of ``views [B, T, H, W, 3] uint8 BGR`` where none are cached.
        """
        with torch.no_grad():
            y = batch["features"] if "features" in batch else self.pooled(normalise(batch["views"].flatten(0, 1)))
            y = y.reshape(-1, len(self.reference)).float()
            if self.training:
                self.seen += len(y)
                self.reference += (y.mean(dim=0) - self.reference) * (len(y) / self.seen)
        z, volume = self.nf(y)
        return {"likelihood": (0.5 * z.square().sum(dim=1) - volume).mean() / z.shape[1]}


class Detector(nn.Module):
    """The published scoring at fixed angles, all of them in one batch, and the pixel map."""

    sources: Tensor

    def __init__(self, network: DiffernetNetwork, config: DiffernetConfig) -> None:
        super().__init__()
        self.network, self.size = network, config.size
        self.planes: Callable[[Tensor], Tensor] = normalise
        self.scoring = Scoring(network, config)
        index = np.concatenate([rotation_index(config.size, angle) for angle in config.angles()])
        self.register_buffer("sources", torch.from_numpy(index.astype(np.int32)), persistent=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        pixels = frames.float().reshape(-1, self.size[0] * self.size[1], 3)  # cast first, as TensorRT's parser wants
        pixels = F.pad(pixels, (0, 0, 0, 1))  # the last one is black: what lies outside
        found = self.network.features(self.planes(pixels.index_select(1, self.sources).reshape(-1, *self.size, 3)))
        scores, maps = self.scoring(found)
        return scores, maps


class Scoring(nn.Module):
    """Feature maps of all views, one ``[N · views, C, h, w]`` for each scale, to scores ``[N]`` and maps ``[N, H, W]``.

    Map: with ȳ the mean features of the training images and M the flow's `curvature` there, the score grows like ½
    (y − ȳ)ᵀ M (y − ȳ). y is the mean of a feature map f over its places, so the place p is worth (f(p) − ȳ)ᵀ M (y −
    ȳ), brought to the score's logarithmic scale. The worth of all scales is added up, turned back by each view's
    angle, averaged over the views that saw the place, and brought to the input's size with a Gaussian. The gradient
    at y itself localises no better, and for anomalies, where the flow was never trained, float32 does not carry it.
    """

    back: Tensor
    weight: Tensor
    metric: Tensor

    def __init__(self, network: DiffernetNetwork, config: DiffernetConfig) -> None:
        super().__init__()
        self.nf, self.reference, self.width, self.views = network.nf, network.reference, network.width, config.views
        self.register_buffer("metric", network.nf.curvature(network.reference), persistent=False)
        self.cells = []
        for s in range(config.scales):
            [(_, height, width)] = network.feature_extractor.shapes((config.size[0] // 2**s, config.size[1] // 2**s))
            self.cells.append((height, width))
        cells = self.cells[0]
        for axis, name in enumerate(("rows", "columns")):
            for s, sides in enumerate(self.cells):
                matrix = upsampling(cells[axis], sides[axis], corners=False)
                self.register_buffer(f"{name}{s}", matrix if axis == 0 else matrix.T.contiguous(), persistent=False)
            last = upsampling(config.size[axis], cells[axis], corners=False, sigma=config.map_sigma)
            self.register_buffer(f"{name}_out", last if axis == 0 else last.T.contiguous(), persistent=False)
        back = torch.stack([_turned_back(cells, config.size, angle) for angle in config.angles()])
        covered = F.grid_sample(torch.ones(config.views, 1, *cells), back, align_corners=False).sum(dim=0)
        self.register_buffer("back", back, persistent=False)
        self.register_buffer("weight", 1 / covered.clamp(min=1e-3), persistent=False)

    def forward(self, found: list[Tensor]) -> tuple[Tensor, Tensor]:
        pooled = torch.cat([f.mean(dim=(2, 3)) for f in found], dim=1)
        squares = self.nf(pooled)[0].square().mean(dim=1)
        scores = squares.reshape(-1, self.views).mean(dim=1).log1p()
        away = pooled - self.reference
        slope = away @ self.metric
        rise = 0.5 * (away * slope).sum(dim=1, keepdim=True)
        return scores, self._maps(found, slope * (rise.log1p() / rise.clamp(min=TINY)))

    def _maps(self, found: list[Tensor], slope: Tensor) -> Tensor:
        width, worth = self.width, torch.zeros(1)
        for s, (f, (height, length)) in enumerate(zip(found, self.cells)):
            span = slice(s * width, (s + 1) * width)
            away = f.reshape(-1, width, height * length) - self.reference[span, None]
            places = (slope[:, None, span] @ away).reshape(-1, height, length)
            worth = worth + self.get_buffer(f"rows{s}") @ places @ self.get_buffer(f"columns{s}")
        # Views first: the grid is then the same for every image of the batch.
        by_view = worth.reshape(-1, self.views, *self.cells[0]).transpose(0, 1)
        turned = F.grid_sample(by_view, self.back, align_corners=False).sum(dim=0) * self.weight
        return self.get_buffer("rows_out") @ turned @ self.get_buffer("columns_out")


def _turned_back(cells: tuple[int, int], size: tuple[int, int], degrees: float) -> Tensor:
    """Where each cell of the upright map lies in the map of the rotated image: ``[h, w, 2]`` for `grid_sample`."""
    turn = np.deg2rad(degrees)
    y, x = np.meshgrid(
        *(((np.arange(count) + 0.5) / count - 0.5) * side for count, side in zip(cells, size)), indexing="ij"
    )
    columns = np.cos(turn) * x + np.sin(turn) * y
    rows = np.cos(turn) * y - np.sin(turn) * x
    return torch.from_numpy(np.stack([columns * 2 / size[1], rows * 2 / size[0]], axis=-1).astype(np.float32))


def _official_settings(weights: Mapping[str, Tensor]) -> list[str]:
    """AlexNet is the published extractor, its 256 channels once for each scale."""
    blocks = [name for name in weights if name.startswith("nf.") and name.endswith(".s1.fc1.weight")]
    if not blocks:
        return []
    first = weights[blocks[0]]
    dimensions = first.shape[1] + weights[blocks[0].replace(".s1.", ".s2.")].shape[1]
    return [f"blocks={len(blocks)}", f"hidden={first.shape[0]}", f"scales={dimensions // 256}"]


class Differnet(Method):
    """DifferNet as a method of this package."""

    name = "differnet"
    card = Card(
        title="DifferNet",
        paper="Rudolph, Wandt, Rosenhahn: Same Same But DifferNet, WACV 2021",
        parameters=174.5,
        macs=239.8,
        published="MVTec AD 94.9, Magnetic Tile Defects 97.7 (paper)",
        localises="second-order share of the score, about 1/16 of the input's resolution",
        needs="good images and ImageNet weights (--weights)",
    )
    Config = DiffernetConfig
    presets = {  # noqa: RUF012
        "paper": {},
        "edge": {"views": 8, "hidden": 512, "cached_views": 16},
        "nano": {
            "size": (224, 224),
            "backbone": "squeezenet1_1",
            "scales": 2,
            "hidden": 128,
            "views": 4,
            "cached_views": 8,
            "learning_rate": 1e-3,
            "steps": 400,
        },
    }
    sensitive = ("scoring",)
    official = Official(
        marks=("nf.module_list.2.s1.fc1.weight",),
        settings=_official_settings,
        rename=lambda name: None if name.startswith("feature_extractor.classifier.") else name,
        computed=("reference", "seen"),
        resize="pillow bilinear",
        inference="RGB, ImageNet's mean and deviation; score: log(1 + mean z²) over fixed rotations, the same order as "
        "the published mean z²; map: not the published gradient",
    )

    def __init__(self, config: DiffernetConfig) -> None:
        self.config: DiffernetConfig = config
        self.network: DiffernetNetwork = DiffernetNetwork(config)

    def load_pretrained(self, weights: Path | None) -> None:
        self.network.feature_extractor.load_pretrained(weights)

    @torch.no_grad()
    def calibrate(self, normals: NDArray[np.uint8]) -> None:
        """Compute the mean features of good images, which the pixel map is measured from, over a few rotations."""
        angles = self.config.angles()
        angles = angles[:: -(-len(angles) // REFERENCE_VIEWS)]
        found = [
            self.network.pooled(normalise(torch.from_numpy(rotate_frame(frame, angle)[None])))
            for frame in normals
            for angle in angles
        ]
        self.network.reference.copy_(torch.cat(found).mean(dim=0))
        self.network.seen.fill_(len(found))

    def departures(self) -> list[str]:
        return [WITH_REPLACEMENT]

    def stages(self, data: TrainingData) -> list[Stage]:
        config, normals = self.config, data.normals
        cache: list[NDArray[np.float32]] = []

        def prepare(device: torch.device, track: Track) -> None:
            if config.cached_views:
                cache[:] = [self._cached(normals[number], number, device) for number in track(range(len(normals)))]

        def sample(rng: np.random.Generator) -> Arrays:
            number = rng.integers(len(normals))
            if config.cached_views:
                return {"features": cache[number][rng.choice(config.cached_views, config.train_views, replace=False)]}
            angles = rng.uniform(-config.rotate_degrees, config.rotate_degrees, config.train_views)
            return {"views": np.stack([rotate_frame(normals[number], angle) for angle in angles])}

        def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
            return torch.optim.Adam(
                parameters, lr=config.learning_rate, betas=(0.8, 0.8), eps=1e-4, weight_decay=config.weight_decay
            )

        return [
            Stage(
                name="train",
                module=self.network,
                sample=sample,
                steps=config.total_steps(data.steps_in_epoch(config)),
                batch_size=config.batch_size,
                optimizer=optimizer,
                schedule=lambda step: 1.0,
                prepare=prepare,
            )
        ]

    @torch.no_grad()
    def _cached(self, frame: NDArray[np.uint8], number: int, device: torch.device) -> NDArray[np.float32]:
        """Pooled features ``[cached_views, D]`` of one image, at angles that no generator is needed for."""
        shares = (np.arange(self.config.cached_views) + number * GOLDEN % 1) / self.config.cached_views
        angles = (2 * shares - 1) * self.config.rotate_degrees
        views = torch.from_numpy(np.stack([rotate_frame(frame, angle) for angle in angles])).to(device)
        return np.asarray(self.network.pooled(normalise(views)).cpu().numpy())

    def example(self, data: TrainingData, rng: np.random.Generator) -> Arrays:
        image, mask = synthesise(rng, data.normals[rng.integers(len(data.normals))], data.textures)
        return {"frame": np.round(image * 255).astype(np.uint8), "mask": mask}

    def detector(self) -> nn.Module:
        return Detector(self.network, self.config).eval()

    def deployable(self) -> nn.Module:
        detector = Detector(copy.deepcopy(self.network), self.config)
        detector.planes = fold_normalisation(detector.network.feature_extractor)
        return detector.eval()
