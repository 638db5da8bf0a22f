"""The reconstructive and the discriminative network, and the loss that trains them together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgead.train.losses import focal_loss, ssim_loss
from edgead.train.method import Batch
from edgead.train.methods.draem.config import DraemConfig


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
