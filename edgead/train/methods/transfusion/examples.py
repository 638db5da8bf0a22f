"""TransFusion's training examples: Perlin-shaped anomalies of foreign texture or of the image's own patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edgead.depth import FARTHEST, NEAREST
from edgead.images import Frame, Mask, cv2
from edgead.train.method import Arrays
from edgead.train.methods.transfusion.config import TransfusionConfig
from edgead.train.methods.transfusion.diffusion import COLOURS, LAST
from edgead.train.methods.transfusion.preprocessing import to_depth
from edgead.train.synthetic import Floats, Rng, anomaly_noise, augment_texture, foreign_picture, shuffled_patches

THRESHOLD = 0.5
"""The noise is an anomaly where its magnitude is above."""
WIDENED = 5
"""Side of the square that the foreground is dilated with, pixels."""


@dataclass(frozen=True)
class Example:
    """What one training example is made of; see `edgead.train.methods.transfusion.diffusion`.

    Attributes:
        normal: N, ``[H, W, C] float32``: RGB in [−1, 1], and depth in [−1, 0], 0 where there is none.
        anomaly: ε, same shape, zero outside the mask.
        mask: M, ``[H, W] bool``.
        previous: the mask that the step before might have found, ``[H, W] bool``.
        time: 1 to 19.
    """

    normal: Floats
    anomaly: Floats
    mask: Mask
    previous: Mask
    time: int

    def arrays(self) -> Arrays:
        """Return them as the network takes them, channels first."""
        return {
            "normal": self.normal.transpose(2, 0, 1),
            "anomaly": self.anomaly.transpose(2, 0, 1),
            "mask": self.mask[None].astype(np.float32),
            "previous": self.previous[None].astype(np.float32),
            "time": np.array(self.time),
        }


def widened(part: Mask) -> Mask:
    """Return where anomalies may be: on the part ``[H, W]`` and a little beside it."""
    return np.asarray(cv2().dilate(part.astype(np.uint8), np.ones((WIDENED, WIDENED), np.uint8)), np.bool_)


def measured(image: Floats) -> Mask:
    """Return where an image of `to_image` has depth: everywhere if it has no such channel."""
    return np.asarray((image[:, :, COLOURS:] != 0).all(axis=2))


def draw_example(rng: Rng, frame: Frame, part: Mask, textures: NDArray[np.uint8], config: TransfusionConfig) -> Example:
    """Draw one example with an anomaly; now and then its mask is empty.

    Args:
        rng: all that is random.
        frame: ``[H, W, C] uint8``.
        part: where the anomaly may be, ``[H, W] bool``.
        textures: ``[T, H, W, 3] uint8``.
        config: of the method.
    """
    size = (frame.shape[0], frame.shape[1])
    time = int(rng.integers(1, LAST + 1))
    signed = anomaly_noise(rng, size)
    noise, normal = np.abs(signed), to_image(frame)
    part = part & measured(normal)  # a surface that was not measured cannot be displaced
    mask = (noise > THRESHOLD) & part
    previous = (noise > _found_threshold(rng, float(noise.max()))) & part & (time < LAST)
    if rng.random() < config.structural_share:
        appearance = shuffled_patches(rng, augment_texture(rng, frame[:, :, :COLOURS]))
    else:
        appearance = augment_texture(rng, foreign_picture(rng, size, textures))
    anomaly = to_rgb(appearance)
    if config.depth:
        anomaly = np.dstack([anomaly, displacement(signed) * np.float32(config.depth_shift)])
    example = Example(normal, anomaly * mask[:, :, None], mask, previous, time)
    if rng.random() >= config.rotate_share:
        return example
    turn = _Turn(size, rng.uniform(-config.rotate_degrees, config.rotate_degrees))
    return Example(turn(normal), turn(example.anomaly), turn(mask), turn(previous), time)


def displacement(noise: Floats) -> Floats:
    """Turn the noise beyond the threshold into hills up to 1 and hollows down to −1, ``[H, W]`` both."""
    beyond = np.sign(noise) * np.maximum(np.abs(noise) - np.float32(THRESHOLD), 0)
    highest, lowest = max(float(beyond.max()), 1e-12), max(float(-beyond.min()), 1e-12)
    return np.asarray(np.where(beyond > 0, beyond / highest, beyond / lowest), np.float32)


def to_image(frame: Frame) -> Floats:
    """``[H, W, C] uint8`` to float32: RGB in [−1, 1], and depth in [−1, 0] where there is one."""
    colour = to_rgb(frame[:, :, :COLOURS])
    if frame.shape[2] == COLOURS:
        return colour
    codes = torch.from_numpy(frame[None, None, :, :, COLOURS].astype(np.float32))
    return np.dstack([colour, to_depth(codes)[0, 0].numpy()])


def to_rgb(frame: Frame) -> Floats:
    """``[H, W, 3] uint8 BGR`` to float32 RGB in [−1, 1]."""
    return np.asarray(frame[:, :, ::-1].astype(np.float32) * np.float32(2 / 255) - np.float32(1))


def to_frame(image: Floats) -> Frame:
    """Undo `to_image`, with rounding; no depth has the code of what was not measured."""
    colour = np.clip(np.round((image[:, :, COLOURS - 1 :: -1] + 1) * 127.5), 0, 255)
    depth = image[:, :, COLOURS:]
    codes = np.clip(np.round(FARTHEST + depth * (FARTHEST - NEAREST)), NEAREST, FARTHEST) * (depth != 0)
    return np.concatenate([colour, codes], axis=2).astype(np.uint8)


def _found_threshold(rng: Rng, highest: float) -> float:
    """Draw the threshold of the mask that the step before might have found: nothing, too little, right, too much.

    For "nothing" the published code takes the largest value with its sign, beyond which there may be negative ones.
    """
    kind = rng.integers(4)
    return (highest, rng.uniform(THRESHOLD, 1.0), THRESHOLD, rng.uniform(0.0, THRESHOLD))[kind]


class _Turn:
    """Rotates about the centre, nearest neighbour; what comes in from outside is 0, the middle grey."""

    def __init__(self, size: tuple[int, int], degrees: float) -> None:
        self.size = size
        self.matrix = cv2().getRotationMatrix2D(((size[1] - 1) / 2, (size[0] - 1) / 2), degrees, 1.0)

    def __call__(self, image: NDArray) -> NDArray:  # type: ignore[type-arg]
        source = np.ascontiguousarray(image, np.float32)
        turned = cv2().warpAffine(source, self.matrix, self.size[::-1], flags=cv2().INTER_NEAREST)
        return np.asarray(turned, image.dtype)
