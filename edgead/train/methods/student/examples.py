"""Images that a teacher is asked about: good ones, jittered and joined, and synthetic anomalies of every kind.

Every function takes its random generator and depends on nothing else that is random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgead.images import Frame, Mask, cv2
from edgead.train.method import TrainingData
from edgead.train.methods.drept.mixture import composite, opacities, random_mixture, to_tensors
from edgead.train.methods.student.config import StudentConfig
from edgead.train.synthetic import FEWEST_PIXELS, Rng, make_anomaly, perlin_mask, perlin_noise

SEEN = 6
"""Change of a channel, of 255, from which a pixel counts as anomalous."""
MOST_ANOMALIES = 3
"""Anomalies on one image."""
COMPONENTS = 3
"""Gaussians of a mixture."""
SMALLEST = 0.05
"""Extent of the smallest mixture, of the image's."""
TRIES = 8
"""Draws until an anomaly can be seen."""
JOINED = 0.5
"""Share of the good images that are joined from two."""
FINEST_JOIN = 3
"""Two images are joined along noise of up to 2^3 cells an axis: their pieces are parts of the product, no texture."""
FADED = 0.5
"""Share of the anomalous images whose anomalies are faded, which gives scores on both sides of a threshold."""
FAINTEST = 0.05
"""Least opacity of faded anomalies."""


def jitter(rng: Rng, frame: Frame, config: StudentConfig) -> Frame:
    """Turn, shift, scale and light a frame ``[H, W, 3] uint8`` a little; the border is mirrored."""
    height, width = frame.shape[:2]
    matrix = cv2().getRotationMatrix2D(
        (width / 2, height / 2), rng.uniform(-config.turn, config.turn), 1 + rng.uniform(-config.shift, config.shift)
    )
    matrix[:, 2] += rng.uniform(-config.shift, config.shift, 2) * (width, height)
    moved = cv2().warpAffine(frame, matrix, (width, height), borderMode=cv2().BORDER_REFLECT_101)
    gain = 1 + rng.uniform(-config.light, config.light) + rng.uniform(-config.light, config.light, 3) / 3
    return to_bytes(moved * gain)


def draw_good(rng: Rng, data: TrainingData, config: StudentConfig) -> Frame:
    """Draw a good image, jittered; half the time joined from two, which shows what a part not yet seen looks like."""
    frame = draw_jittered(rng, data, config)
    return join(rng, frame, draw_jittered(rng, data, config)) if rng.random() < JOINED else frame


def draw_jittered(rng: Rng, data: TrainingData, config: StudentConfig) -> Frame:
    """Draw a good image, jittered."""
    return jitter(rng, data.normals[rng.integers(len(data.normals))], config)


def join(rng: Rng, frame: Frame, other: Frame) -> Frame:
    """Join two good images ``[H, W, 3] uint8`` along noise, with soft or sharp borders."""
    cells = 2 ** int(rng.integers(0, FINEST_JOIN + 1))
    noise = perlin_noise(rng, (frame.shape[0], frame.shape[1]), (cells, cells))
    opacity = 1 / (1 + np.exp(-noise * np.float32(rng.uniform(3, 30))))
    return to_bytes(frame + opacity[:, :, None] * (other.astype(np.float32) - frame))


def draw_anomalous(rng: Rng, data: TrainingData, config: StudentConfig) -> tuple[Frame, Mask]:
    """Draw a good image with one to three anomalies of any kind, and their mask, which has pixels."""
    good = draw_jittered(rng, data, config)
    for _ in range(TRIES):
        frame = good
        for _ in range(int(rng.integers(1, MOST_ANOMALIES + 1))):
            frame = KINDS[rng.integers(len(KINDS))](rng, frame, data)
        if rng.random() < FADED:
            frame = fade(rng, good, frame)
        mask = _changed(good, frame)
        if mask.sum() >= FEWEST_PIXELS:
            return frame, mask
    height, width = good.shape[:2]  # on these images nothing can be seen: a black or white corner can
    frame = good.copy()
    frame[: height // 4, : width // 4] = 255 * (good[: height // 4, : width // 4].mean() < 128)
    return frame, _changed(good, frame)


def fade(rng: Rng, good: Frame, anomalous: Frame) -> Frame:
    """Blend an anomalous image ``[H, W, 3] uint8`` with the good one that it was made of."""
    return to_bytes(good + rng.uniform(FAINTEST, 1) * (anomalous.astype(np.float32) - good))


def vary(rng: Rng, frame: Frame, data: TrainingData, config: StudentConfig) -> Frame:
    """Return a variant of a hard image: jittered again, half the time with another anomaly."""
    frame = jitter(rng, frame, config)
    return KINDS[rng.integers(len(KINDS))](rng, frame, data) if rng.random() < 0.5 else frame


def _changed(before: Frame, after: Frame) -> Mask:
    return np.asarray(np.abs(after.astype(np.int16) - before).max(axis=2) >= SEEN)


def to_bytes(image: NDArray[Any]) -> Frame:
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def _texture(rng: Rng, frame: Frame, data: TrainingData) -> Frame:
    """Perlin-shaped, filled with a texture or the frame's own shuffled patches (DRAEM)."""
    image, _ = make_anomaly(rng, frame, data.textures)
    return to_bytes(image * 255)


def _patch(rng: Rng, frame: Frame, data: TrainingData) -> Frame:
    """A rectangle of a good image, pasted at another place with another rotation and brightness (CutPaste)."""
    return _paste(rng, frame, data, rng.uniform(0.04, 0.3), rng.uniform(0.04, 0.3))


def _scar(rng: Rng, frame: Frame, data: TrainingData) -> Frame:
    """A long thin piece of a good image (CutPaste's scar)."""
    return _paste(rng, frame, data, rng.uniform(0.01, 0.04), rng.uniform(0.08, 0.35))


def _paste(rng: Rng, frame: Frame, data: TrainingData, height: float, width: float) -> Frame:
    rows, columns = frame.shape[:2]
    source = data.normals[rng.integers(len(data.normals))][:, :, :3]
    turned = cv2().getRotationMatrix2D((columns / 2, rows / 2), rng.uniform(0, 360), rng.uniform(0.7, 1.4))
    turned[:, 2] += rng.uniform(-0.3, 0.3, 2) * (columns, rows)
    lit = cv2().warpAffine(source, turned, (columns, rows), borderMode=cv2().BORDER_REFLECT_101)
    lit = to_bytes(lit * rng.uniform(0.6, 1.4) + rng.uniform(-20, 20, 3))
    centre = (rng.uniform(0, columns), rng.uniform(0, rows))
    box = cv2().boxPoints((centre, (width * columns, height * rows), rng.uniform(0, 180)))
    return _through(rng, frame, lit, _filled(frame, box))


def _filled(frame: Frame, corners: NDArray[np.float32]) -> Mask:
    mask = np.zeros(frame.shape[:2], np.uint8)
    cv2().fillPoly(mask, [np.round(corners).astype(np.int32)], 1)
    return mask > 0


def _mixture(rng: Rng, frame: Frame, data: TrainingData) -> Frame:
    """Soft spots: a mixture of coloured Gaussians (DRepT)."""
    drawn = random_mixture(rng, COMPONENTS, SMALLEST)
    mixture = to_tensors({name: value[None] for name, value in drawn.items()})
    image = torch.from_numpy(frame[:, :, ::-1].astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    mixed = composite(image, opacities(mixture, (frame.shape[0], frame.shape[1])), mixture.colour)
    return to_bytes((mixed[0].permute(1, 2, 0).numpy()[:, :, ::-1] + 1) * 127.5)


def _blur(rng: Rng, frame: Frame, data: TrainingData) -> Frame:
    """Perlin-shaped loss of detail."""
    blurred = cv2().GaussianBlur(frame, (0, 0), rng.uniform(1.5, 6))
    return _through(rng, frame, blurred, perlin_mask(rng, (frame.shape[0], frame.shape[1]), 0.3))


def _warp(rng: Rng, frame: Frame, data: TrainingData) -> Frame:
    """A dent: the image is pulled towards a point, or turned about it."""
    rows, columns = frame.shape[:2]
    side = min(rows, columns)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    cy, cx, radius = rng.uniform(0, rows), rng.uniform(0, columns), rng.uniform(0.06, 0.25) * side
    fade = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * (radius / 2) ** 2)).astype(np.float32)
    pull, turn = rng.uniform(-0.6, 0.6), rng.uniform(-1.2, 1.2)
    dy, dx = y - np.float32(cy), x - np.float32(cx)
    moved_y = y + fade * np.float32(pull) * dy + fade * np.float32(turn) * dx
    moved_x = x + fade * np.float32(pull) * dx - fade * np.float32(turn) * dy
    warped = cv2().remap(frame, moved_x, moved_y, cv2().INTER_LINEAR, borderMode=cv2().BORDER_REFLECT_101)
    return np.asarray(warped, np.uint8)


def _scratch(rng: Rng, frame: Frame, data: TrainingData) -> Frame:
    """A thin, bent line, darker or lighter than what is under it."""
    rows, columns = frame.shape[:2]
    points = [rng.uniform(0, 1, 2) * (columns, rows)]
    for _ in range(int(rng.integers(2, 6))):
        points.append(points[-1] + rng.normal(0, 0.08, 2) * (columns, rows))
    line = np.zeros((rows, columns), np.uint8)
    thick = int(rng.integers(1, max(2, min(rows, columns) // 60 + 1)))
    cv2().polylines(line, [np.round(points).astype(np.int32)], False, 255, thick, cv2().LINE_AA)
    opacity = rng.uniform(0.2, 1) * line[:, :, None] / 255
    colour = rng.uniform(0, 255, 3)
    return to_bytes(frame * (1 - opacity) + colour * opacity)


def _spot(rng: Rng, frame: Frame, data: TrainingData) -> Frame:
    """An ellipse of one tone: a hole, a stain, a foreign body."""
    rows, columns = frame.shape[:2]
    axes = np.round(rng.uniform(0.01, 0.09, 2) * min(rows, columns)).astype(int) + 1
    centre = (int(rng.integers(columns)), int(rng.integers(rows)))
    mask = np.zeros((rows, columns), np.uint8)
    cv2().ellipse(mask, centre, tuple(map(int, axes)), rng.uniform(0, 180), 0, 360, 1, -1)
    tone = rng.uniform(0, 255) + rng.normal(0, 20, 3)
    if rng.random() < 0.5:  # a colour of the part itself
        tone = frame[rng.integers(rows), rng.integers(columns)].astype(np.float64)
    noise = rng.normal(0, rng.uniform(0, 12), frame.shape)
    return _through(rng, frame, to_bytes(tone + noise), mask > 0)


def _through(rng: Rng, frame: Frame, other: Frame, mask: Mask) -> Frame:
    """Blend another image in where the mask is, with soft or sharp edges, more or less opaque."""
    opacity = mask.astype(np.float32) * np.float32(rng.uniform(0.25, 1))
    if rng.random() < 0.5:
        opacity = cv2().GaussianBlur(opacity, (0, 0), rng.uniform(0.5, 2.5))
    return to_bytes(frame + opacity[:, :, None] * (other.astype(np.float32) - frame))


KINDS: tuple[Callable[[Rng, Frame, TrainingData], Frame], ...] = (
    _texture,
    _patch,
    _scar,
    _mixture,
    _blur,
    _warp,
    _scratch,
    _spot,
)
"""A good frame ``[H, W, 3] uint8`` to one with an anomaly."""
