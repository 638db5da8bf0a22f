"""DRAEM: a discriminatively trained reconstruction embedding (Zavrtanik, Kristan, Skočaj, ICCV 2021).

Two networks learn together on good images with synthetic anomalies. The reconstructive one has no skip connections
and learns to give back the good image; the discriminative one sees image and reconstruction side by side and marks
the pixels that differ for a reason. Module and parameter names are the published code's, so its weights load.

Images are BGR in [0, 1] without any further normalisation, as in the published code.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgead.errors import ConfigError
from edgead.images import Frame, Mask
from edgead.train.losses import focal_loss, ssim_loss
from edgead.train.maps import box_mean
from edgead.train.method import (
    Arrays,
    Batch,
    Card,
    Method,
    MethodConfig,
    Official,
    Reconstruction,
    Stage,
    TrainingData,
    decayed,
)
from edgead.train.synthetic import Floats, blend, draw_texture, perlin_mask, rotate

SCORE_WINDOW = 21
"""Side of the mean filter whose maximum is the image score, pixels."""


@dataclass(frozen=True)
class DraemConfig(MethodConfig):
    """Configuration of DRAEM; the defaults are the published training."""

    reconstructive_width: int = 128
    """Channels of the first stage of the reconstructive network; the deepest has eight times as many."""
    discriminative_width: int = 64
    """Channels of the first stage of the discriminative network."""
    decay_at: tuple[float, ...] = (0.8, 0.9)
    """Shares of the training after which the learning rate is multiplied by `decay`. The paper's text says
    (0.571, 0.857) with 0.1; its code, which made the published weights, says this."""
    decay: float = 0.2
    """Factor on the learning rate at each of those points."""
    anomaly_share: float = 0.5
    """Share of the examples that get a synthetic anomaly."""
    rotate_share: float = 0.3
    """Share of the examples that are rotated first. Set to 0 where a turned part is itself a defect."""
    rotate_degrees: float = 90.0
    """Largest rotation either way, degrees."""
    lowest_opacity: float = 0.2
    """Opacity of the texture is drawn from [this, 1]. The published code has 0.2, the paper 0.1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(side % 32 for side in self.size):
            raise ConfigError(f"DRAEM's input sides must be multiples of 32, not {self.size[0]}x{self.size[1]}.")
        for name in ("reconstructive_width", "discriminative_width", "decay", "rotate_degrees"):
            if getattr(self, name) < (0 if name == "rotate_degrees" else 1e-12):
                raise ConfigError(f"{name} must be positive, not {getattr(self, name)}.")
        for name in ("anomaly_share", "rotate_share", "lowest_opacity"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie between 0 and 1, not {getattr(self, name)}.")

    def learning_rate_factor(self, step: int, steps: int) -> float:
        """Factor on the learning rate at a step, counted from 0."""
        return decayed(step, steps, self.decay_at, self.decay)


def _unit(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _block(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_unit(inputs, middle), *_unit(middle, outputs))


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), *_unit(inputs, outputs))


class _Encoder(nn.Module):
    """Stages of two units with 2×2 pooling between them; the deepest two have the same width."""

    def __init__(self, inputs: int, width: int, stages: int) -> None:
        super().__init__()
        widths = [inputs] + [width * min(2**stage, 8) for stage in range(stages)]
        for stage in range(stages):
            setattr(self, f"block{stage + 1}", _block(widths[stage], widths[stage + 1], widths[stage + 1]))
        self.stages = stages

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in range(self.stages):
            x = self.get_submodule(f"block{stage + 1}")(F.max_pool2d(x, 2) if stage else x)
            features.append(x)
        return features


class _ReconstructiveDecoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.up1, self.db1 = _up(8 * w, 8 * w), _block(8 * w, 8 * w, 4 * w)
        self.up2, self.db2 = _up(4 * w, 4 * w), _block(4 * w, 4 * w, 2 * w)
        self.up3, self.db3 = _up(2 * w, 2 * w), _block(2 * w, 2 * w, w)
        self.up4, self.db4 = _up(w, w), _block(w, w, w)
        self.fin_out = nn.Sequential(nn.Conv2d(w, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        for up, db in ((self.up1, self.db1), (self.up2, self.db2), (self.up3, self.db3), (self.up4, self.db4)):
            x = db(up(x))
        out: Tensor = self.fin_out(x)
        return out


class ReconstructiveNetwork(nn.Module):
    """Image ``[N, 3, H, W]`` in [0, 1] to its anomaly-free reconstruction, same shape, not bounded."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = _Encoder(3, width, 5)
        self.decoder = _ReconstructiveDecoder(width)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.encoder(image)[-1])
        return out


class _DiscriminativeDecoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.up_b, self.db_b = _up(8 * w, 8 * w), _block(16 * w, 8 * w, 8 * w)
        self.up1, self.db1 = _up(8 * w, 4 * w), _block(12 * w, 4 * w, 4 * w)
        self.up2, self.db2 = _up(4 * w, 2 * w), _block(6 * w, 2 * w, 2 * w)
        self.up3, self.db3 = _up(2 * w, w), _block(3 * w, w, w)
        self.up4, self.db4 = _up(w, w), _block(2 * w, w, w)
        self.fin_out = nn.Sequential(nn.Conv2d(w, 2, 3, padding=1))

    def forward(self, features: list[Tensor]) -> Tensor:
        x = features[-1]
        steps = (
            (self.up_b, self.db_b),
            (self.up1, self.db1),
            (self.up2, self.db2),
            (self.up3, self.db3),
            (self.up4, self.db4),
        )
        for (up, db), skip in zip(steps, reversed(features[:-1])):
            x = db(torch.cat([up(x), skip], dim=1))
        out: Tensor = self.fin_out(x)
        return out


class DiscriminativeNetwork(nn.Module):
    """Reconstruction and image ``[N, 6, H, W]`` to class logits ``[N, 2, H, W]`` (normal, anomalous)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder_segment = _Encoder(6, width, 6)
        self.decoder_segment = _DiscriminativeDecoder(width)

    def forward(self, pair: Tensor) -> Tensor:
        out: Tensor = self.decoder_segment(self.encoder_segment(pair))
        return out


def _initialise(module: nn.Module) -> None:
    """The published initialisation: N(0, 0.02) convolutions, N(1, 0.02) batch-norm scales."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class DraemNetwork(nn.Module):
    """Both networks, and the loss that trains them together."""

    def __init__(self, config: DraemConfig) -> None:
        super().__init__()
        self.reconstructive = ReconstructiveNetwork(config.reconstructive_width)
        self.discriminative = DiscriminativeNetwork(config.discriminative_width)
        self.apply(_initialise)

    def logits(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image ``[N, 3, H, W]`` in [0, 1] to reconstruction ``[N, 3, H, W]`` and logits ``[N, 2, H, W]``."""
        reconstruction = self.reconstructive(image)
        return reconstruction, self.discriminative(torch.cat([reconstruction, image], dim=1))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses on ``image``, ``augmented`` ``[B, 3, H, W]`` in [0, 1] and ``mask`` ``[B, 1, H, W]`` (paper, eq. 7).

        The focal loss reaches the reconstructive network too: the reconstruction is not detached.
        """
        reconstruction, logits = self.logits(batch["augmented"])
        with torch.autocast(logits.device.type, enabled=False):  # sums over windows and logarithms want float32
            reconstruction, logits = reconstruction.float(), logits.float()
            return {
                "l2": F.mse_loss(reconstruction, batch["image"]),
                "ssim": ssim_loss(reconstruction, batch["image"]),
                "focal": focal_loss(logits, batch["mask"]),
            }


def _planar(frames: Tensor) -> Tensor:
    """``[N, H, W, 3] uint8`` to ``[N, 3, H, W] float32`` in [0, 1]."""
    # Cast first: TensorRT's parser takes bytes into no other operator.
    return frames.float().permute(0, 3, 1, 2) / 255


class ReferenceModel(nn.Module):
    """The published inference: softmax, no smoothing of the map; score = maximum of its 21×21 mean."""

    def __init__(self, network: DraemNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        _, logits = self.network.logits(_planar(frames))
        maps = logits.softmax(dim=1)[:, 1:]
        pooled = F.avg_pool2d(maps, SCORE_WINDOW, stride=1, padding=SCORE_WINDOW // 2, count_include_pad=True)
        return pooled.amax(dim=(1, 2, 3)), maps[:, 0]


class ExportModel(nn.Module):
    """The same function in fewer operations.

    The softmax over two classes is the sigmoid of the difference of their logits, so the last convolution gives that
    difference. The 21×21 mean with zero padding is a product with a banded matrix on either side.
    """

    def __init__(self, network: DraemNetwork, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        last = self.network.discriminative.decoder_segment.fin_out[0]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        difference = nn.Conv2d(last.in_channels, 1, 3, padding=1)
        difference.weight = nn.Parameter((last.weight[1:] - last.weight[:1]).detach())
        difference.bias = nn.Parameter((last.bias[1:] - last.bias[:1]).detach())
        self.network.discriminative.decoder_segment.fin_out[0] = difference
        self.scoring = _Scoring(size)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        scores, maps = self.scoring(self.network.logits(_planar(frames))[1])
        return scores, maps


class _Scoring(nn.Module):
    """Logits ``[N, 1, H, W]`` to scores ``[N]`` and maps ``[N, H, W]``."""

    rows: Tensor
    columns: Tensor

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("rows", box_mean(size[0], SCORE_WINDOW))
        self.register_buffer("columns", box_mean(size[1], SCORE_WINDOW))

    def forward(self, logit: Tensor) -> tuple[Tensor, Tensor]:
        maps = logit.sigmoid().squeeze(1)
        pooled = self.rows @ maps @ self.columns
        return pooled.amax(dim=(1, 2)), maps


def _official_settings(weights: Mapping[str, Tensor]) -> list[str]:
    widths = {"reconstructive_width": "encoder.block1.0.weight", "discriminative_width": _SEGMENT}
    return [f"{name}={weights[key].shape[0]}" for name, key in widths.items() if key in weights]


def _official_name(name: str) -> str:
    part = "discriminative" if name.partition(".")[0].endswith("_segment") else "reconstructive"
    return f"{part}.{name}"


_SEGMENT = "encoder_segment.block1.0.weight"


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
        needs="good images; texture pictures help (--textures)",
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
