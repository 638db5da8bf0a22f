"""TransFusion's process: an anomaly that becomes transparent, without any noise.

With the good image N, the anomaly's appearance A and its mask M, ε = M·A, and opacity β_t = t / 19:

    x_t = (1 − M)·N + (1 − β_t)·M·N + β_t·ε

A depth channel is displaced instead of blended: x_t = N + β_t·ε. Arrays are ``[B, C, H, W]``; RGB is in [−1, 1].
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from edgead.train.losses import sigmoid_focal_loss, ssim_loss

LAST = 19
"""The time at which an anomaly is opaque."""
FIRST = 18
"""The time at which the published inference begins, and the number of its steps."""
COLOURS = 3


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
    blended = (1 - mask) * normal + (1 - opacity) * mask * normal + opacity * mask * anomaly
    if normal.shape[1] == COLOURS:
        return blended
    depth = normal[:, COLOURS:] + opacity * mask * anomaly[:, COLOURS:]
    return torch.cat([blended[:, :COLOURS], depth], dim=1)


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
    step = less * normal - (less / opacity) * scaled
    if x.shape[1] != COLOURS:
        step = torch.cat([step[:, :COLOURS], -(less / opacity) * scaled[:, COLOURS:]], dim=1)
    return x + mask * step


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
    colour, depth = slice(0, COLOURS), slice(COLOURS, None)
    result = {
        "anomaly": F.mse_loss(scaled[:, colour], target[:, colour]),
        "mask": 5 * sigmoid_focal_loss(logits, mask) + F.smooth_l1_loss(logits.sigmoid(), mask),
        "normal": ssim_loss(found[:, colour], normal[:, colour], data_range=2.0)
        + F.l1_loss(found[:, colour], normal[:, colour]),
    }
    if x.shape[1] != COLOURS:
        result["anomaly_depth"] = F.mse_loss(scaled[:, depth], target[:, depth]) + ssim_loss(
            scaled[:, depth], target[:, depth]
        )
        # The published code guesses the range from the values: 2 where they fall below −0.5, as depth in [−1, 0] does.
        result["normal_depth"] = ssim_loss(found[:, depth], normal[:, depth], data_range=2.0) + F.l1_loss(
            found[:, depth], normal[:, depth]
        )
    less = 1 / LAST
    right = advance(x, target, normal, mask, opacity, less)
    # The mask is cut at one half, so this loss teaches the two appearances and not the mask.
    result["image"] = F.mse_loss(advance(x, scaled, found, (logits.sigmoid() > 0.5).float(), opacity, less), right)
    return result
