"""DRAEM as a method of this package: its stage, presets and published checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from edgead.images import Frame, Mask
from edgead.train.method import Arrays, Card, Method, Official, Reconstruction, Stage, TrainingData
from edgead.train.methods.draem.config import DraemConfig
from edgead.train.methods.draem.export_model import ExportModel
from edgead.train.methods.draem.network import DraemNetwork
from edgead.train.methods.draem.reference_model import ReferenceModel
from edgead.train.synthetic import Floats, blend, draw_texture, perlin_mask, rotate

_SEGMENT = "encoder_segment.block1.0.weight"


def _official_settings(weights: Mapping[str, Tensor]) -> list[str]:
    widths = {"reconstructive_width": "encoder.block1.0.weight", "discriminative_width": _SEGMENT}
    return [f"{name}={weights[key].shape[0]}" for name, key in widths.items() if key in weights]


def _official_name(name: str) -> str:
    part = "discriminative" if name.partition(".")[0].endswith("_segment") else "reconstructive"
    return f"{part}.{name}"


class Draem(Method):
    """DRAEM as a method of this package."""

    name = "draem"
    card = Card(
        title="DRAEM",
        paper="Zavrtanik, Kristan, Skočaj: DRAEM, ICCV 2021",
        parameters=97.4,
        macs=197.9,
        published="MVTec AD 98.0 (paper), 98.1 (released weights)",
        localises="segmentation network, at input resolution",
        needs="good images; texture images help (--textures)",
    )
    Config = DraemConfig
    presets = {  # noqa: RUF012
        "paper": {},
        "edge": {"reconstructive_width": 64, "discriminative_width": 32},
        "nano": {
            "size": (128, 128),
            "reconstructive_width": 8,
            "discriminative_width": 8,
            "learning_rate": 2e-3,
            "steps": 450,
        },
    }
    sensitive = ("scoring",)
    official = Official(
        marks=("encoder.block1.0.weight", _SEGMENT),
        settings=_official_settings,
        rename=_official_name,
        partners=((r"_seg(\.\w+)$", r"\1"), (r"(?<!_seg)(\.\w+)$", r"_seg\1")),
        resize="opencv linear",
        inference="BGR in [0, 1]; map: softmax, not smoothed; score: maximum of its 21×21 mean",
    )

    def __init__(self, config: DraemConfig) -> None:
        self.config: DraemConfig = config
        self.network: DraemNetwork = DraemNetwork(config)

    def reconstruction(self) -> Reconstruction:
        return Reconstruction("network.reconstructive", 0.0, 1.0)

    def departures(self) -> list[str]:
        return ["the SSIM loss takes 1 for the range of values (published: guessed from each batch)"]

    def stages(self, data: TrainingData) -> list[Stage]:
        config = self.config

        def sample(rng: np.random.Generator) -> Arrays:
            image, augmented, mask = self._draw(rng, data, config.anomaly_share)
            return {
                "image": image.transpose(2, 0, 1),
                "augmented": augmented.transpose(2, 0, 1),
                "mask": mask[None].astype(np.float32),
            }

        def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
            return torch.optim.Adam(parameters, lr=config.learning_rate)

        steps = config.total_steps(data.steps_in_epoch(config))
        return [
            Stage(
                name="train",
                module=self.network,
                sample=sample,
                steps=steps,
                batch_size=config.batch_size,
                optimizer=optimizer,
                schedule=lambda step: config.learning_rate_factor(step, steps),
            )
        ]

    def _draw(self, rng: np.random.Generator, data: TrainingData, anomaly_share: float) -> tuple[Floats, Floats, Mask]:
        """Draw a good image, the same with or without an anomaly, ``[H, W, 3]`` in [0, 1], and the mask."""
        config = self.config
        frame: Frame = data.normals[rng.integers(len(data.normals))]
        if rng.random() < config.rotate_share:
            frame = np.asarray(rotate(frame, rng.uniform(-config.rotate_degrees, config.rotate_degrees)), np.uint8)
        image: Floats = frame.astype(np.float32) / np.float32(255)
        if rng.random() >= anomaly_share:
            return image, image, np.zeros(config.size, np.bool_)
        mask = perlin_mask(rng, config.size)
        texture = draw_texture(rng, frame, data.textures)
        return image, blend(image, texture, mask, rng.uniform(config.lowest_opacity, 1.0)), mask

    def example(self, data: TrainingData, rng: np.random.Generator) -> Arrays:
        mask = np.zeros(self.config.size, np.bool_)
        while not mask.any():
            _, augmented, mask = self._draw(rng, data, 1.0)
        return {"frame": np.round(augmented * 255).astype(np.uint8), "mask": mask}

    def reference_model(self) -> nn.Module:
        return ReferenceModel(self.network).eval()

    def export_model(self) -> nn.Module:
        return ExportModel(self.network, self.config.size).eval()
