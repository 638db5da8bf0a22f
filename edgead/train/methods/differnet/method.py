"""DifferNet as a method of this package: its stage, presets and published checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgead.console import Track
from edgead.train.backbones import normalise
from edgead.train.feature_cache import FeatureCache, fingerprint
from edgead.train.method import WITH_REPLACEMENT, Arrays, Card, Method, Official, Stage, TrainingData
from edgead.train.methods.differnet.config import DiffernetConfig
from edgead.train.methods.differnet.export_model import ExportModel
from edgead.train.methods.differnet.network import DiffernetNetwork
from edgead.train.methods.differnet.reference_model import ReferenceModel
from edgead.train.methods.differnet.rotation import rotate_frame
from edgead.train.synthetic import make_anomaly

REFERENCE_VIEWS = 8
"""Rotations of each good image whose mean features stand for it where a published checkpoint is taken over."""

UNIT_IMAGES = 64
"""Good images, at most, that the unit of the features is found from."""
PUBLISHED_BACKBONE = "alexnet"
"""Its features go into the flow as they are."""
GOLDEN = 0.6180339887498949
"""Turns the cached angles of one image against those of the next, so that together they fill the circle."""


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
    learns_anomalies = False
    sensitive = ("scoring",)
    official = Official(
        marks=("nf.module_list.2.s1.fc1.weight",),
        settings=_official_settings,
        rename=lambda name: None if name.startswith("feature_extractor.classifier.") else name,
        computed=("reference", "seen", "unit"),
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
        if self.config.backbone == PUBLISHED_BACKBONE:
            return [WITH_REPLACEMENT]
        return [WITH_REPLACEMENT, "features are divided by their mean standard deviation over the good images"]

    def stages(self, data: TrainingData) -> list[Stage]:
        config, normals = self.config, data.normals
        cache = FeatureCache(data.cache)

        def prepare(device: torch.device, track: Track) -> None:
            if config.backbone != PUBLISHED_BACKBONE and self.network.seen == 0:
                self._set_unit(normals, device, track)
            if config.cached_views:
                settings = {"method": "differnet", "device": device.type, **dataclasses.asdict(config)}
                key = fingerprint(normals, self.network.feature_extractor, settings)
                cache.fill(
                    len(normals),
                    key,
                    lambda number: {"features": self._cached(normals[number], number, device)},
                    track,
                )

        def sample(rng: np.random.Generator) -> Arrays:
            number = int(rng.integers(len(normals)))
            if config.cached_views:
                views = rng.choice(config.cached_views, config.train_views, replace=False)
                return {"features": cache.row(number)["features"][views]}
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
    def _set_unit(self, normals: NDArray[np.uint8], device: torch.device, track: Track) -> None:
        """Find the unit of the features from a view of each of some good images."""
        some = range(0, len(normals), -(-len(normals) // UNIT_IMAGES))
        found = torch.cat([self._pooled(normals[number], self._angles(number, 1), device) for number in track(some)])
        deviation = found.std(dim=0, correction=0).mean()
        if deviation > 0:  # of one image, or of equal ones, it is not known
            self.network.unit.copy_(deviation)

    def _angles(self, number: int, count: int) -> NDArray[np.float64]:
        """Angles for one image, spread over the allowed ones, that no generator is needed for."""
        shares = (np.arange(count) + number * GOLDEN % 1) / count
        return np.asarray((2 * shares - 1) * self.config.rotate_degrees)

    def _pooled(self, frame: NDArray[np.uint8], angles: NDArray[np.float64], device: torch.device) -> Tensor:
        views = torch.from_numpy(np.stack([rotate_frame(frame, angle) for angle in angles])).to(device)
        return self.network.pooled(normalise(views))

    @torch.no_grad()
    def _cached(self, frame: NDArray[np.uint8], number: int, device: torch.device) -> NDArray[np.float32]:
        """Pooled features ``[cached_views, D]`` of one image."""
        found = self._pooled(frame, self._angles(number, self.config.cached_views), device)
        return np.asarray(found.cpu().numpy())

    def example(self, data: TrainingData, rng: np.random.Generator) -> Arrays:
        image, mask = make_anomaly(rng, data.normals[rng.integers(len(data.normals))], data.textures)
        return {"frame": np.round(image * 255).astype(np.uint8), "mask": mask}

    def reference_model(self) -> nn.Module:
        return ReferenceModel(self.network, self.config).eval()

    def export_model(self) -> nn.Module:
        return ExportModel(self.network, self.config).eval()
