"""Defects as mixtures of coloured Gaussians: how they are fitted, drawn, varied and put on an image.

Coordinates run from −1 (centre of the first pixel) to 1 (centre of the last) along either side, colours are RGB in
[−1, 1], so a mixture fits any image of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgead.errors import CheckpointError
from edgead.train.method import Arrays

Rng = np.random.Generator

TINY = 1e-12
"""Smallest number that is divided by: the peak of a mixture that was shifted out of the image may be 0."""
SMALLEST_SIGMA = 0.01
LARGEST_CORRELATION = 0.99


class Mixtures(NamedTuple):
    """N mixtures of K components each."""

    colour: Tensor
    """``[N, K, 3]`` RGB in [−1, 1]."""
    mean: Tensor
    """``[N, K, 2]`` x and y."""
    sigma: Tensor
    """``[N, K, 2]`` along x and y, positive."""
    correlation: Tensor
    """``[N, K]`` between −1 and 1."""
    weight: Tensor
    """``[N, K]``, not negative; only their ratios count."""
    opacity: Tensor
    """``[N]`` in [0, 1]: the largest opacity of the whole mixture on the image."""


class MixtureParameters(nn.Module):
    """N mixtures with free parameters that any optimiser may move, drawn from N(0, 1)."""

    def __init__(self, count: int, components: int) -> None:
        super().__init__()
        self.colour = nn.Parameter(torch.randn(count, components, 3))
        self.mean = nn.Parameter(torch.randn(count, components, 2))
        self.sigma = nn.Parameter(torch.randn(count, components, 2))
        self.correlation = nn.Parameter(torch.randn(count, components))
        self.weight = nn.Parameter(torch.randn(count, components))
        self.opacity = nn.Parameter(torch.randn(count))

    def forward(self) -> Mixtures:
        return Mixtures(
            self.colour.tanh(),
            self.mean.tanh(),
            F.softplus(self.sigma) + SMALLEST_SIGMA,
            self.correlation.tanh() * LARGEST_CORRELATION,
            self.weight.softmax(dim=1),
            self.opacity.sigmoid(),
        )


def opacities(mixtures: Mixtures, size: tuple[int, int]) -> Tensor:
    """Render the opacity of each component, ``[N, K, H, W]``; their sum's largest value is the mixture's `opacity`."""
    x = torch.linspace(-1, 1, size[1], device=mixtures.mean.device)
    y = torch.linspace(-1, 1, size[0], device=mixtures.mean.device)
    mean, sigma = mixtures.mean[..., None], mixtures.sigma[..., None]
    zx = ((x - mean[:, :, 0]) / sigma[:, :, 0])[:, :, None, :]
    zy = ((y - mean[:, :, 1]) / sigma[:, :, 1])[:, :, :, None]
    rho = mixtures.correlation[:, :, None, None]
    # (zx² − 2ρ zx zy + zy²) / (1 − ρ²) as a sum of squares, which rounding cannot make negative.
    exponent = (zx - rho * zy).square() * (-0.5 / (1 - rho.square())) - 0.5 * zy.square()
    weighted = exponent.exp() * mixtures.weight[:, :, None, None]
    peak = weighted.sum(dim=1).amax(dim=(1, 2)).clamp(min=TINY)
    return weighted * (mixtures.opacity / peak)[:, None, None, None]


def composite(images: Tensor, alpha: Tensor, colour: Tensor) -> Tensor:
    """Put mixtures on images: I · (1 − Σα) + Σ α c, where 1 − Σα is the transmittance.

    Args:
        images: ``[N, 3, H, W]`` in [−1, 1].
        alpha: ``[N, K, H, W]`` from `opacities`.
        colour: ``[N, K, 3]``.

    Returns:
        ``[N, 3, H, W]`` in [−1, 1].
    """
    return images * (1 - alpha.sum(dim=1, keepdim=True)) + torch.einsum("nkhw,nkc->nchw", alpha, colour)


def drop_unseen(images: Tensor, alpha: Tensor, colour: Tensor, threshold: float) -> Tensor:
    """Return `alpha` without the components that, alone, change no channel of any pixel by more than `threshold`.

    The others keep their opacity. The threshold is in units of the image, whose range is 2.
    """
    changes = [
        (alpha * (colour[:, :, channel, None, None] - images[:, None, channel]).abs()).amax(dim=(2, 3))
        for channel in range(3)
    ]
    seen = torch.stack(changes).amax(dim=0) > threshold
    return alpha * seen[:, :, None, None]


def rotate_hue(colour: NDArray[np.float32], degrees: float) -> NDArray[np.float32]:
    """Turn the hue of RGB colours ``[…, 3]`` in [−1, 1]; saturation and value (of HSV) stay."""
    rgb = (colour + 1) / 2
    value, low = rgb.max(axis=-1), rgb.min(axis=-1)
    chroma = value - low
    red, green, blue = np.moveaxis(rgb, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        sector = np.select(
            [chroma == 0, value == red, value == green],
            [0.0, (green - blue) / chroma, 2 + (blue - red) / chroma],
            4 + (red - green) / chroma,
        )
    turned = np.stack([(n + sector + degrees / 60) % 6 for n in (5, 3, 1)], axis=-1)
    fall = np.clip(np.minimum(turned, 4 - turned), 0, 1)
    return np.asarray(2 * (value[..., None] - chroma[..., None] * fall) - 1, np.float32)


def vary(rng: Rng, mixture: Arrays, hue_degrees: float, shift: float) -> Arrays:
    """Draw a variant of one mixture: other hue, mirrored, shifted by up to `shift` (half the image at 1)."""
    mean, correlation = mixture["mean"].copy(), mixture["correlation"].copy()
    for axis in (0, 1):
        if rng.random() < 0.5:
            mean[:, axis] *= -1
            correlation *= -1
    mean += rng.uniform(-shift, shift, 2).astype(np.float32)
    colour = rotate_hue(mixture["colour"], rng.uniform(0, hue_degrees))
    return {**mixture, "colour": colour, "mean": mean, "correlation": correlation}


def random_mixture(rng: Rng, components: int, extent: float = 1.0) -> Arrays:
    """Draw a mixture that no real defect stands behind.

    With an `extent` of 1 it is the published code's ablation. Below that it is shrunk as a whole, by a factor between
    `extent` and 1 whose logarithm is uniform, about a random point of the image.
    """

    def softplus(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.logaddexp(0, values))

    weight = np.exp(rng.normal(size=components))
    shrink, centre = extent ** rng.random(), rng.uniform(-1, 1, 2)
    values = {
        "colour": rng.uniform(-1, 1, (components, 3)),
        "mean": centre + shrink * (rng.uniform(-1, 1, (components, 2)) - centre),
        "sigma": shrink * softplus(rng.normal(size=(components, 2))) + SMALLEST_SIGMA,
        "correlation": rng.uniform(-1, 1, components) * LARGEST_CORRELATION,
        "weight": weight / weight.sum(),
        "opacity": np.asarray(rng.uniform(0, 1)),
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


def pool(learned: Sequence[Arrays]) -> Arrays:
    """Put the mixtures of several donors ``[A, K, …]`` together; missing components get the weight 0.

    Raises:
        CheckpointError: a donor's arrays are not mixtures.
    """
    for each in learned:
        if set(each) != set(Mixtures._fields):
            raise CheckpointError(f"Transferred defects must hold {', '.join(Mixtures._fields)}.")
        count = each["opacity"].size
        alike = (count, each["weight"].size // max(1, count))
        shapes: dict[str, tuple[int, ...]] = {"opacity": (count,), "correlation": alike, "weight": alike}
        shapes |= {"colour": (*alike, 3), "mean": (*alike, 2), "sigma": (*alike, 2)}
        for name, shape in shapes.items():
            if not count or each[name].shape != shape or each[name].dtype != np.float32:
                found = f"{each[name].dtype} {list(each[name].shape)}"
                raise CheckpointError(f"Transferred defects must hold mixtures; its '{name}' is {found}.")
        usable = {name: np.isfinite(values) for name, values in each.items()}
        usable["sigma"] &= each["sigma"] > 0
        usable["correlation"] &= np.abs(each["correlation"]) < 1
        if damaged := [name for name, values in usable.items() if not values.all()]:
            raise CheckpointError(f"Transferred defects are damaged: values of '{damaged[0]}' describe no mixture.")
    most = max(each["weight"].shape[1] for each in learned)

    def padded(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if name == "opacity":
            return values
        room = [(0, 0), (0, most - values.shape[1]), *[(0, 0)] * (values.ndim - 2)]
        return np.pad(values, room, constant_values=1.0 if name == "sigma" else 0.0)

    return {name: np.concatenate([padded(name, each[name]) for each in learned]) for name in Mixtures._fields}


def pick(mixtures: Arrays, index: int) -> Arrays:
    """Return one mixture of several, without the leading axis."""
    return {name: mixtures[name][index] for name in Mixtures._fields}


def to_tensors(values: Arrays) -> Mixtures:
    """Return mixtures ``[N, K, …]`` as tensors."""
    return Mixtures(*(torch.from_numpy(np.ascontiguousarray(values[name])) for name in Mixtures._fields))


def to_arrays(mixtures: Mixtures) -> Arrays:
    """Return mixtures as plain arrays without a gradient."""
    return {name: value.detach().cpu().numpy() for name, value in mixtures._asdict().items()}
