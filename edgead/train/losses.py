"""Losses that more than one method uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_matrix(side: int, taps: int, sigma: float) -> Tensor:
    """Return the symmetric ``[side, side]`` matrix whose product is a Gaussian blur with zeros outside.

    Args:
        side: pixels along the blurred axis.
        taps: length of the window, odd; its weights sum to one.
        sigma: standard deviation, pixels.
    """
    index = torch.arange(side, dtype=torch.float32)
    offsets = index[:, None] - index[None, :]
    weights = torch.exp(-(offsets**2) / (2 * sigma**2)) * (offsets.abs() <= taps // 2)
    window = torch.exp(-((torch.arange(taps, dtype=torch.float32) - taps // 2) ** 2) / (2 * sigma**2))
    return weights / window.sum()


def ssim_loss(prediction: Tensor, target: Tensor, data_range: float = 1.0) -> Tensor:
    """One minus the mean structural similarity (Wang et al. 2004, equation 13).

    11×11 Gaussian window with σ = 1.5, zero padding, as in DRAEM's training code; there the data range is guessed
    from each batch and can jump between 1 and 2 while training, here it is fixed.

    Args:
        prediction: ``[B, C, H, W]`` float32.
        target: same shape.
        data_range: L of the paper, the span of the values.

    Returns:
        Scalar in [0, 2]; 0 for equal images.
    """
    batch, _, height, width = prediction.shape
    stacked = torch.cat([prediction, target, prediction**2, target**2, prediction * target])
    # The window is separable, and as a product with banded matrices it is several times faster on a CPU than as a
    # depthwise convolution.
    rows, columns = gaussian_matrix(height, 11, 1.5), gaussian_matrix(width, 11, 1.5)
    blurred = rows.to(prediction) @ stacked.contiguous() @ columns.to(prediction)
    mean_p, mean_t, square_p, square_t, product = torch.split(blurred, batch)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1)
    variances = (square_p - mean_p**2) + (square_t - mean_t**2)
    contrast = (2 * (product - mean_p * mean_t) + c2) / (variances + c2)
    return 1 - (luminance * contrast).mean()


def focal_loss(logits: Tensor, mask: Tensor, gamma: float = 2.0, smooth: float = 1e-5) -> Tensor:
    """Focal loss over two classes (Lin et al. 2017, equation 4) with α = 1 for both, as in DRAEM's training code.

    Args:
        logits: ``[B, 2, H, W]`` float32; channel 1 is "anomalous".
        mask: ``[B, 1, H, W]`` float32, 0 or 1.
        gamma: focusing exponent.
        smooth: the one-hot target is clamped to [smooth, 1 − smooth] and p_t lifted by it.

    Returns:
        Scalar, the mean over pixels.
    """
    probabilities = logits.softmax(dim=1)
    one_hot = torch.cat([1 - mask, mask], dim=1).clamp(smooth, 1 - smooth)
    p_t = (one_hot * probabilities).sum(dim=1) + smooth
    return (-((1 - p_t) ** gamma) * p_t.log()).mean()


def sigmoid_focal_loss(logits: Tensor, mask: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Binary focal loss (Lin et al. 2017, equation 5), the mean over pixels.

    Args:
        logits: any shape, float32.
        mask: same shape, 0 or 1.
        alpha: weight of the ones; the zeros have 1 − α.
        gamma: focusing exponent.
    """
    probability = logits.sigmoid()
    wrong = probability * (1 - mask) + (1 - probability) * mask
    weight = alpha * mask + (1 - alpha) * (1 - mask)
    return (weight * wrong**gamma * F.binary_cross_entropy_with_logits(logits, mask, reduction="none")).mean()
