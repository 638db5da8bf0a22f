"""Where on a frame the part is, so that synthetic anomalies are put on it and not beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgead.errors import ConfigError, DataError
from edgead.folders import list_images
from edgead.geometry import STRETCH, Geometry
from edgead.geometry.alignment import locate
from edgead.images import Frame, Mask, PixelFormat, cv2, read_frame
from edgead.masks import place_mask, read_mask
from edgead.train.method import TrainingData

FOREGROUNDS = ("auto", "all", "bright", "dark", "disc")
SEPARABLE = 0.75
"""Otsu's measure of two-classness from which `auto` believes in a background; a normal distribution has 0.64."""


def check_foreground(how: str) -> None:
    """Refuse what is neither one of `FOREGROUNDS` nor a folder of masks. A finished run's folder may be gone.

    Raises:
        ConfigError: with what there is.
    """
    if how not in FOREGROUNDS and not Path(how).is_absolute() and not Path(how).is_dir():
        raise ConfigError(
            f"foreground is one of {', '.join(FOREGROUNDS)}, or a folder of masks; the folder '{how}' does not exist."
        )


def is_masks_folder(how: str) -> bool:
    """Tell whether a configuration's foreground is a folder of masks."""
    return how not in ("", *FOREGROUNDS)


def count_without_part(frames: NDArray[np.uint8], how: str) -> int:
    """Return on how many frames ``[N, H, W, C] uint8`` ``auto`` finds no part by its brightness; 0 for another way."""
    return sum(bool(foreground_mask(frame[..., :3]).all()) for frame in frames) if how == "auto" else 0


def load_foreground_masks(
    how: str, images: Sequence[Path], size: tuple[int, int], geometry: Geometry = STRETCH, bit_depth: int = 16
) -> NDArray[np.bool_] | None:
    """Read where the part is on images from a folder of masks, for instance of a segmentation network.

    The mask of ``NAME.png`` is ``NAME.png`` or ``NAME_mask.png`` in that folder (any picture format), of the image's
    size; every value above zero is the part (above 127 in JPEG). Masks of other images may lie there too. Of several
    in subfolders it is the one with most of its subfolders' names in the image's path, of these the least deep.

    Args:
        how: the folder; one of `FOREGROUNDS` or ``""`` needs none.
        images: files that the masks belong to.
        size: (height, width) of the canvas that the images are fitted to.
        geometry: that fits them.
        bit_depth: significant bits of 16-bit images, by which an aligning geometry finds the part.

    Returns:
        ``[N, H, W] bool``, in the order of the images; None where there is no folder.

    Raises:
        DataError: no such folder; an image without a mask, or with two; a mask of another size, empty, or of two
            images.
    """
    if not is_masks_folder(how):
        return None
    folder = Path(how)
    if not folder.is_dir():
        raise DataError(
            f"The folder of foreground masks {folder} does not exist.\n"
            "To resume a run, restore its masks there. "
            f"For a new run, name another folder, or --set foreground={'|'.join(FOREGROUNDS)}."
        )
    files: dict[str, list[Path]] = {}
    for path in list_images(folder, recursive=True):
        files.setdefault(path.stem, []).append(path)
    masks = np.empty((len(images), *size), np.bool_)
    owners: dict[Path, Path] = {}
    for number, image in enumerate(images):
        file = _find_mask(files.get(f"{image.stem}_mask", files.get(image.stem, [])), folder, image)
        if owners.setdefault(file, image) != image:
            raise DataError(
                f"{file} would be the foreground mask of both {owners[file]} and {image}.\n"
                f"Put a mask for each into subfolders with the same names: {folder / image.parent.name / image.name}"
            )
        mask, frame = read_mask(file), read_frame(image, PixelFormat(bit_depth))
        height, width = frame.shape[:2]
        if mask.shape != (height, width):
            raise DataError(
                f"The foreground mask {file} is {mask.shape[1]}×{mask.shape[0]} pixels, its image {image} is "
                f"{width}×{height}.\nIf the mask belongs to this image, resize it."
            )
        masks[number] = place_mask(mask, size, locate(frame, geometry))
        if not masks[number].any():
            raise DataError(
                f"The foreground mask {file} is empty at {size[0]}×{size[1]}: there is no place for synthetic "
                "anomalies."
            )
    return masks


def _find_mask(candidates: list[Path], folder: Path, image: Path) -> Path:
    """Return the one of the masks of an image's name that is this image's."""
    if not candidates:
        raise DataError(
            f"{image} has no foreground mask.\n"
            f"Put {image.stem}.png or {image.stem}_mask.png into {folder}, or leave foreground out."
        )
    inside = [path.relative_to(folder).parent.parts for path in candidates]
    fits = [(len({*parts} & {*image.parts}), -len(parts)) for parts in inside]
    (best, mask), *others = sorted(zip(fits, candidates), reverse=True)
    if mask.samefile(image):
        raise DataError(f"{folder} is not a folder of foreground masks: {image} would be its own mask.")
    if others and others[0][0] == best:
        raise DataError(f"{mask} and {others[0][1]} could both be the foreground mask of {image}. Remove one of them.")
    return mask


def masks_fingerprint(masks: NDArray[np.bool_] | None) -> str:
    """Return the SHA-256 of fitted masks; nothing where there are none."""
    return "" if masks is None else hashlib.sha256(masks.tobytes()).hexdigest()


def part_of(data: TrainingData, number: int, how: str) -> Mask:
    """Return where on a good image the part is, ``[H, W] bool``: by its mask, or else as `how` says."""
    return (
        foreground_mask(data.normals[number], how) if data.foreground_masks is None else data.foreground_masks[number]
    )


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
