"""PatchCore as a method of this package: its closed form and presets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgead.console import Track
from edgead.train.method import Arrays, Card, Method, Stage, TrainingData
from edgead.train.methods.patchcore.config import PatchcoreConfig
from edgead.train.methods.patchcore.export_model import ExportModel
from edgead.train.methods.patchcore.network import PatchcoreNetwork
from edgead.train.methods.patchcore.reference_model import ReferenceModel
from edgead.train.synthetic import make_anomaly


class Patchcore(Method):
    """PatchCore as a method of this package."""

    name = "patchcore"
    card = Card(
        title="PatchCore (baseline)",
        paper="Roth et al.: Towards Total Recall in Industrial Anomaly Detection, CVPR 2022",
        parameters=24.9,
        macs=11.7,
        published="MVTec AD 99.1 (paper)",
        localises="distance to the nearest stored features, about 1/8 of the input's resolution",
        needs="ten or more good images, and ImageNet weights (--weights)",
    )
    Config = PatchcoreConfig
    presets = {  # noqa: RUF012
        "paper": {},
        "edge": {"backbone": "resnet18", "memory": 1024, "cosine": True},
        "nano": {"size": (320, 320), "backbone": "squeezenet1_1", "levels": (2,), "memory": 1024, "cosine": True},
    }
    takes_textures = learns_anomalies = False
    resume_settings = ()
    sensitive = ("network.places", "scoring")

    def __init__(self, config: PatchcoreConfig) -> None:
        self.config: PatchcoreConfig = config
        self.network: PatchcoreNetwork = PatchcoreNetwork(config)

    def load_pretrained(self, weights: Path | None) -> None:
        self.network.backbone.load_pretrained(weights)

    def departures(self) -> list[str]:
        return [
            f"the memory has {self.config.memory:,} features (published: 1 % to 25 % of all)",
            "features are means of their neighbourhood (published: also averaged over channels, to 1,024)",
            "images are resized to the input size (published: to 256x256, of which the middle 224x224 is used)",
        ]

    def stages(self, data: TrainingData) -> list[Stage]:
        frames = data.normals

        def prepare(device: torch.device, track: Track) -> None:
            size = self.config.batch_size
            batches: Iterable[NDArray[np.uint8]] = (
                frames[start : start + size] for start in track(range(0, len(frames), size))
            )
            self.network.memorise(batches, len(frames))

        return [
            Stage(
                name="memorise",
                module=self.network,
                steps=0,
                batch_size=self.config.batch_size,
                prepare=prepare,
            )
        ]

    def example(self, data: TrainingData, rng: np.random.Generator) -> Arrays:
        image, mask = make_anomaly(rng, data.normals[rng.integers(len(data.normals))], data.textures)
        return {"frame": np.round(image * 255).astype(np.uint8), "mask": mask}

    def reference_model(self) -> nn.Module:
        return ReferenceModel(self.network, self.config).eval()

    def export_model(self) -> nn.Module:
        return ExportModel(self.network, self.config).eval()
