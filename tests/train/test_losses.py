"""Losses against values computed with DRAEM's published code."""

from __future__ import annotations

import pytest
import torch

from edgead.train.losses import focal_loss, ssim_loss

A = torch.linspace(0, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
B = 2 * A - 1


@pytest.mark.parametrize(
    ("prediction", "target", "data_range", "expected"),
    [
        (A, A, 1.0, 0.0),
        (A, 1 - A, 1.0, 0.71621799),
        (A, A**2, 1.0, 0.35216320),
        (B, B**3, 2.0, 0.54359496),
        (B, B**3, 1.0, 0.57918906),
    ],
)
def test_ssim(prediction: torch.Tensor, target: torch.Tensor, data_range: float, expected: float) -> None:
    assert float(ssim_loss(prediction, target, data_range)) == pytest.approx(expected, abs=2e-6)


def test_ssim_of_a_batch_is_the_mean_over_images() -> None:
    pair = ssim_loss(torch.cat([A, A**2]), torch.cat([1 - A, A]))
    assert float(pair) == pytest.approx((0.71621799 + 0.35216320) / 2, abs=2e-6)


@pytest.mark.parametrize(
    ("probabilities", "mask", "expected"),
    [
        ((0.5, 0.5), 0, 0.173274860),
        ((0.5, 0.5), 1, 0.173274860),
        ((0.9, 0.1), 0, 1.05354e-3),
        ((0.9, 0.1), 1, 1.86487365),
    ],
)
def test_focal(probabilities: tuple[float, float], mask: int, expected: float) -> None:
    logits = torch.tensor(probabilities).log().view(1, 2, 1, 1).expand(2, 2, 5, 4)
    loss = focal_loss(logits, torch.full((2, 1, 5, 4), float(mask)))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
