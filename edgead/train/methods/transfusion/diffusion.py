"""TransFusion's process: an anomaly that becomes transparent, without any noise.

With the good image N, the anomaly's appearance A and its mask M, ε = M·A, and opacity β_t = t / 19:

    x_t = (1 − M)·N + (1 − β_t)·M·N + β_t·ε

Arrays are ``[B, 3, H, W]``, RGB in [−1, 1].
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor

from edgead.train.losses import sigmoid_focal_loss, ssim_loss

LAST = 19
"""The time at which an anomaly is opaque."""
FIRST = 18
"""The time at which the published inference begins, and the number of its steps."""


def schedule(reverse_steps: int) -> list[tuple[int, int]]:
    """Return from which time to which each reverse step goes: 18 → … → 0 in jumps as equal as whole numbers allow.

    Every such schedule is legitimate: with right predictions each leads to N, because the jumps are interpolations.
    """
    times = [round(FIRST * (reverse_steps - step) / reverse_steps) for step in range(reverse_steps + 1)]
    return list(pairwise(times))


def blend(normal: Tensor, anomaly: Tensor, mask: Tensor, opacity: Tensor | float) -> Tensor:
    """Return x_t.

    Args:
        normal: N.
        anomaly: ε, zero outside the mask.
        mask: M, ``[B, 1, H, W]``, 0 or 1.
        opacity: β_t, a number or ``[B, 1, 1, 1]``.
    """
    return (1 - mask) * normal + (1 - opacity) * mask * normal + opacity * mask * anomaly


def advance(
    x: Tensor, scaled: Tensor, normal: Tensor, mask: Tensor, opacity: Tensor | float, less: Tensor | float
) -> Tensor:
    """Make the anomaly more transparent: x − (Δ/β)·M·(β·ε) + Δ·M·N.

    Args:
        x: the blend at opacity β.
        scaled: β·ε, as the network predicts it.
        normal: N.
        mask: M, ``[B, 1, H, W]``, 0 or 1.
        opacity: β, a number or ``[B, 1, 1, 1]``.
        less: Δ, by how much the opacity falls.
    """
    return x + mask * (less * normal - (less / opacity) * scaled)


def losses(
    predicted: tuple[Tensor, Tensor, Tensor],
    x: Tensor,
    normal: Tensor,
    anomaly: Tensor,
    mask: Tensor,
    opacity: Tensor,
) -> dict[str, Tensor]:
    """Return the four losses of the published code, each with weight 1.

    Args:
        predicted: the network's β·ε, N and logits of M.
        x: x_t.
        normal, anomaly, mask, opacity: see `blend`; one step of opacity is 1 / 19.
    """
    scaled, found, logits = predicted
    target = opacity * anomaly
    result = {
        "anomaly": F.mse_loss(scaled, target),
        "mask": 5 * sigmoid_focal_loss(logits, mask) + F.smooth_l1_loss(logits.sigmoid(), mask),
        "normal": ssim_loss(found, normal, data_range=2.0) + F.l1_loss(found, normal),
    }
    less = 1 / LAST
    right = advance(x, target, normal, mask, opacity, less)
    # The mask is cut at one half, so this loss teaches the two appearances and not the mask.
    result["image"] = F.mse_loss(advance(x, scaled, found, (logits.sigmoid() > 0.5).float(), opacity, less), right)
    return result
