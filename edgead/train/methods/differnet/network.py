"""The feature extractor, the flow, and the loss that trains it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgead.train.backbones import LEVELS, Backbone, normalise
from edgead.train.method import Batch
from edgead.train.methods.differnet.config import DiffernetConfig

BOUND = 1e6
"""The published code cuts the output of a coupling off here; a flow that comes near is broken anyway."""


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

    unit: Tensor
    reference: Tensor
    seen: Tensor

    def __init__(self, config: DiffernetConfig) -> None:
        super().__init__()
        self.scales = config.scales
        self.feature_extractor = Backbone(config.backbone, [config.layer or LEVELS[config.backbone][-1]])
        [(self.width, _, _)] = self.feature_extractor.shapes(config.size)
        dimensions = self.width * config.scales
        self.nf = Flow(dimensions, config.blocks, config.hidden, config.clamp)
        # The features are divided by it before the flow. It is 1 as published; reasons: docs/adr/0070.
        self.register_buffer("unit", torch.ones(()))
        # Mean features of the training images: what the pixel map compares with.
        self.register_buffer("reference", torch.zeros(dimensions))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def features(self, image: Tensor) -> list[Tensor]:
        """Normalised ``[N, 3, H, W]`` to one feature map ``[N, C, h, w]`` for each scale.

        Every second pixel of the image is what nearest-neighbour resizing to half takes.
        """
        return [self.feature_extractor(image[:, :, :: 2**s, :: 2**s])[0] for s in range(self.scales)]

    def pooled(self, image: Tensor) -> Tensor:
        """Normalised ``[N, 3, H, W]`` to mean features ``[N, D]``."""
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
        z, volume = self.nf(y / self.unit)
        return {"likelihood": (0.5 * z.square().sum(dim=1) - volume).mean() / z.shape[1]}
