"""Where on a frame the part is, so that synthetic anomalies are put on it and not beside it."""

from __future__ import annotations

import numpy as np

from edgead.images import Frame, Mask, cv2

FOREGROUNDS = ("auto", "all", "bright", "dark", "disc")
SEPARABLE = 0.75
"""Otsu's measure of two-classness from which `auto` believes in a background; a normal distribution has 0.64."""


def foreground_mask(frame: Frame, how: str = "auto") -> Mask:
    """Return where on a frame ``[H, W, 3] uint8`` the part is, ``[H, W] bool``. `how` is one of `FOREGROUNDS`."""
    height, width = frame.shape[:2]
    everything = np.ones((height, width), np.bool_)
    if how == "all":
        return everything
    if how == "disc":
        y, x = np.mgrid[:height, :width]
        return np.asarray(np.hypot(y - (height - 1) / 2, x - (width - 1) / 2) <= 0.45 * height)
    grey = cv2().cvtColor(np.ascontiguousarray(frame), cv2().COLOR_BGR2GRAY)
    grey = cv2().GaussianBlur(grey, (0, 0), min(height, width) / 128)
    threshold, _ = cv2().threshold(grey, 0, 255, cv2().THRESH_BINARY + cv2().THRESH_OTSU)
    bright = grey > threshold
    if how in ("bright", "dark"):
        found = bright == (how == "bright")
        return np.asarray(found) if found.any() else everything  # of one colour: nowhere would be left for anomalies
    share = bright.mean()
    spread = float(grey.astype(np.float64).var())
    if not 0.02 < share < 0.98 or spread == 0:
        return everything
    separation = share * (1 - share) * float(grey[bright].mean() - grey[~bright].mean()) ** 2 / spread
    border = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]]).mean()
    if separation < SEPARABLE or 0.1 < border < 0.9:
        return everything
    return np.asarray(bright if border < 0.5 else ~bright)
