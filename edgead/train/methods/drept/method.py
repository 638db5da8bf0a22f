"""DRepT as a method of this package; stage 3, the segmentation network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgead.errors import ConfigError, DataError
from edgead.train.method import Arrays, Batch, Card, Donor, Method, Official, Pretraining, Stage, TrainingData
from edgead.train.methods.drept.config import DreptConfig
from edgead.train.methods.drept.export_model import ExportModel
from edgead.train.methods.drept.mixture import (
    Mixtures,
    composite,
    drop_unseen,
    opacities,
    pick,
    pool,
    random_mixture,
    to_tensors,
    vary,
)
from edgead.train.methods.drept.network import SMALLEST, UNet, initialise, preprocess
from edgead.train.methods.drept.pretraining import BETAS, make_pretraining, to_frames
from edgead.train.methods.drept.reference_model import ReferenceModel

LOOKED_AT = 100
"""Draws that tell how many defects can be seen."""
MOST_DRAWS = 200
"""Tries to get an example that shows a defect: enough where training finds one in twenty of them visible."""


def transfer(images: Tensor, mixtures: Mixtures, config: DreptConfig) -> tuple[Tensor, Tensor]:
    """Put defects on good images.

    Args:
        images: ``[N, 3, H, W]`` RGB in [−1, 1].
        mixtures: one for each image.
        config: says what counts as seen.

    Returns:
        The images with defects, and their masks ``[N, 1, H, W] bool``: empty where a defect was shifted out of the
        image or changes too little.
    """
    alpha = opacities(mixtures, (images.shape[2], images.shape[3]))
    alpha = drop_unseen(images, alpha, mixtures.colour, config.seen_change)
    return composite(images, alpha, mixtures.colour), alpha.sum(dim=1, keepdim=True) > config.seen_opacity


class Segmentation(nn.Module):
    """Stage 3: the network learns to mark defects that were put on good images.

    Batch: ``frame [B, H, W, 3] uint8 BGR`` and the fields of `Mixtures`, ``[B, K, …]``. ``empty`` is the share of
    images on which no defect can be seen, which are the good ones of this training.
    """

    def __init__(self, network: UNet, config: DreptConfig) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad(), torch.autocast(batch["frame"].device.type, enabled=False):
            mixtures = Mixtures(*(batch[name] for name in Mixtures._fields))
            images, mask = transfer(preprocess(batch["frame"]), mixtures, self.config)
        logits = self.network(images).float()
        return {
            "segmentation": F.binary_cross_entropy_with_logits(logits, mask.float()),
            "empty": 1 - mask.flatten(1).any(dim=1).float().mean(),
        }


def _official_settings(weights: Mapping[str, Tensor]) -> list[str]:
    """The published network is square, and each doubling of its side is one level more."""
    first = weights.get("model.model.0.weight")
    if first is None:
        return []
    levels = max(name.count("model.") for name in weights) - FEWEST_LEVELS
    side = SMALLEST * 2**levels
    return [f"width={first.shape[0]}", f"size={side}x{side}"]


FEWEST_LEVELS = 9
"""Nested modules of the network for 64×64 pixels, in the published names."""


class Drept(Method):
    """DRepT. Without donors the defects are random mixtures, and it learns from good images alone."""

    name = "drept"
    takes_textures = False
    takes_donors = True
    card = Card(
        title="DRepT",
        paper="Defect-representation transfer, IJCNN 2023 (IEEE 10191690)",
        parameters=44.4,
        macs=6.1,
        published="no figure could be read",
        localises="segmentation network, at input resolution",
        needs="good images, and real defects of other products (--donor); without those, random ones are drawn",
        reporting_note="Learns from the test anomalies of other categories (donors). Its figures are cross-category "
        "transfer: not to be compared with methods that see good images alone.",
        without_donors="Without --donor the defects are random mixtures of Gaussians: one-class training.",
        visibility_hint="Count fainter changes as defects (--set seen_change=…, seen_opacity=…). Of a donor, look at "
        "the learned.png of the run that learned from it; learn longer (removal_steps, defect_steps) or leave it out.",
    )
    Config = DreptConfig
    resume_settings = ("learning_rate", "defect_learning_rate")
    sensitive: ClassVar[tuple[str, ...]] = ("head",)  # half precision rounds a sigmoid above 0.9998 to 1
    presets = {  # noqa: RUF012
        "paper": {},
        "edge": {"width": 32, "random_extent": 0.05},
        "nano": {
            "size": (96, 96),
            "width": 8,
            "source_width": 8,
            "components": 12,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "removal_steps": 600,
            "identity_weight": 10.0,  # in so few steps the published 40 only teaches it to copy
            "defect_steps": 300,
            "defect_learning_rate": 5e-2,
            "random_extent": 0.05,
            "steps": 500,
        },
    }
    official = Official(
        marks=("model.model.2.model.0.weight",),
        settings=_official_settings,
        rename=lambda name: name,
        resize="pillow bilinear",
        inference="RGB in [−1, 1]; map: sigmoid, not smoothed; score: its maximum",
    )

    def __init__(self, config: DreptConfig) -> None:
        self.config: DreptConfig = config
        self.network: UNet = UNet(1, config.width, config.size)
        self.network.apply(initialise)

    def pretraining(self, donor: Donor) -> Pretraining:
        return make_pretraining(self.config, donor)

    def stages(self, data: TrainingData) -> list[Stage]:
        config = self.config
        defects = pool(data.donors) if data.donors else None

        def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
            return torch.optim.Adam(parameters, lr=config.learning_rate, betas=BETAS)

        return [
            Stage(
                name="segment",
                module=Segmentation(self.network, config),
                sample=lambda rng: self._draw(rng, data, defects),
                steps=config.total_steps(data.steps_in_epoch(config)),
                batch_size=config.batch_size,
                optimizer=optimizer,
                schedule=lambda step: 1.0,
            )
        ]

    def _draw(self, rng: np.random.Generator, data: TrainingData, defects: Arrays | None) -> Arrays:
        """Draw a good image and a defect: any of all donors' with the same probability, varied; or a random one."""
        frame = data.normals[rng.integers(len(data.normals))]
        if defects is None:
            return {"frame": frame, **random_mixture(rng, self.config.components, self.config.random_extent)}
        defect = pick(defects, int(rng.integers(len(defects["opacity"]))))
        return {"frame": frame, **vary(rng, defect, self.config.hue_degrees, self.config.shift)}

    def example(self, data: TrainingData, rng: np.random.Generator) -> Arrays:
        for made in self._made(data, rng, MOST_DRAWS):
            if made["mask"].any():
                return made
        raise DataError(f"None of {MOST_DRAWS} defects can be seen on these good images.\n{self.card.visibility_hint}")

    def render(self, frame: NDArray[np.uint8], learned: Arrays, number: int) -> Arrays:
        defects = pool([learned])
        if not 0 <= number < len(defects["opacity"]):
            raise ConfigError(f"This donor's defects are numbered 0 to {len(defects['opacity']) - 1}, not {number}.")
        return self._put(frame, pick(defects, number))

    def visible(self, data: TrainingData, rng: np.random.Generator) -> float:
        return float(np.mean([made["mask"].any() for made in self._made(data, rng, LOOKED_AT)]))

    def _made(self, data: TrainingData, rng: np.random.Generator, count: int) -> Iterator[Arrays]:
        """Yield what training makes of its draws: ``frame`` and ``mask``, empty where no defect can be seen."""
        defects = pool(data.donors) if data.donors else None
        for _ in range(count):
            drawn = self._draw(rng, data, defects)
            yield self._put(drawn["frame"], drawn)

    def _put(self, frame: NDArray[np.uint8], mixture: Arrays) -> Arrays:
        """Put a mixture on a good image ``[H, W, 3] uint8 BGR``."""
        one = to_tensors({name: mixture[name][None] for name in Mixtures._fields})
        image, mask = transfer(preprocess(torch.from_numpy(frame[None])), one, self.config)
        return {"frame": to_frames(image)[0], "mask": mask[0, 0].numpy()}

    def reference_model(self) -> nn.Module:
        return ReferenceModel(self.network, self.config.score_window).eval()

    def export_model(self) -> nn.Module:
        return ExportModel(self.network, self.config.score_window).eval()
