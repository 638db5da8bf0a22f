"""What a run reads beside its good images, what could not be read, and what anomalies look like."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgead.console import Console
from edgead.datasets import Frames, load_frames
from edgead.datasets.category import some
from edgead.datasets.copies import find_copies
from edgead.errors import DataError
from edgead.folders import list_images
from edgead.images import Frame, PixelFormat
from edgead.text import percent
from edgead.train.method import Method, TrainingData
from edgead.train.run_config import RunConfig

MOST_TEXTURES = 2000
"""Texture pictures kept in memory: 393 MB at 256×256."""
DARK = 16
"""Grey level below which all of an almost black image lies."""
FEWEST_VISIBLE, FEW_VISIBLE = 0.05, 0.25
"""Share of the drawn anomalies that can be seen: below the first nothing can be learned, below the second little."""


def load_textures(run: RunConfig, console: Console) -> Frames:
    """Read the pictures that fill a run's synthetic anomalies; none where it has none."""
    size = run.config.size
    if run.textures is None:
        return load_frames([], size)
    folder = Path(run.textures)
    paths = list_images(folder, recursive=True) if folder.is_dir() else []
    if not paths:
        raise DataError(f"--textures {folder} holds no images.")
    if len(paths) > MOST_TEXTURES:
        console.say(f"{MOST_TEXTURES} of {len(paths)} texture images are used: more would take too much memory")
        chosen = np.random.default_rng((run.seed, 0x7E)).permutation(len(paths))[:MOST_TEXTURES]
        paths = [paths[index] for index in sorted(chosen)]
    frames = load_frames(paths, size, PixelFormat(run.bit_depth), console.track("reading textures"))
    report_skipped(frames, "texture", console)
    return frames


def refuse_seen(unseen: Sequence[Path], textures: str | Path | None) -> None:
    """Refuse texture pictures that training must not see: they would be in its anomalies.

    Args:
        unseen: held-out and labelled images.
        textures: folder of pictures, or None.

    Raises:
        DataError: one of those pictures is one of those images, or a copy of its file.
    """
    pictures = list_images(Path(textures), recursive=True) if textures and Path(textures).is_dir() else []
    if seen := find_copies(pictures, unseen):
        raise DataError(
            f"--textures {textures} holds {len(seen)} held-out or labelled images of --data, for instance {seen[0]}.\n"
            "Training must not see them. Pass images of something else, for instance those of the DTD."
        )


def report_skipped(frames: Frames, what: str, console: Console) -> None:
    if frames.skipped:
        number = len(frames.skipped)
        total = number + len(frames.paths)
        console.say(f"Warning: {number} of {total} {what}s skipped:")
        for line in frames.skipped[:10]:
            console.say(f"  {line}")
        if len(frames.skipped) > 10:
            console.say(f"  … and {len(frames.skipped) - 10} more")


def report_dark(frames: Frames, what: str, bit_depth: int, console: Console) -> None:
    """Warn of images that are almost black: with 10 or 12 bits in 16, or with a closed lens.

    Args:
        frames: good images.
        what: they are, for the message.
        bit_depth: as which those of 16 bits were read.
        console: shows the warning.
    """
    dark = [number for number, frame in enumerate(frames.frames) if frame[..., :3].max() < DARK]
    more_bits = " If they hold 10 or 12 bits in 16, add --bit-depth 10 (or 12)." if bit_depth == 16 else ""
    if dark and len(dark) == len(frames.frames):
        if more_bits:
            console.say(f"Warning: the {what}s are almost black.{more_bits}")
    elif dark:
        console.say(
            f"Warning: {len(dark)} of {len(frames.frames)} {what}s are almost black, the others are not: "
            f"{some([frames.paths[number] for number in dark])}. Remove them, or convert all to the same bits."
        )


def check_visible(method: Method, data: TrainingData, run: RunConfig, folder: Path, console: Console) -> None:
    """Check that the anomalies that training will draw are visible, those of each donor by themselves.

    Raises:
        DataError: hardly any of them can.
    """
    given = {
        f"the defects in {folder / 'sources' / config.name}": dataclasses.replace(data, donors=(learned,))
        for config, learned in zip(run.donors, data.donors)
    }
    for what, alone in (given or {"the synthetic anomalies": data}).items():
        share = method.visible(alone, np.random.default_rng((run.seed, 0x5EE)))
        said = f"{percent(share, 0)}% of {what} can be seen on these good images"
        if share < FEWEST_VISIBLE:
            raise DataError(f"Only {said}: there is nothing to learn.\n{method.card.visibility_hint}")
        if share < FEW_VISIBLE:
            console.say(
                f"Warning: only {said}; training uses the others as good images.\n{method.card.visibility_hint}"
            )


def draw_some(method: Method, data: TrainingData, seed: int) -> list[tuple[Frame, NDArray[np.bool_]]]:
    rng = np.random.default_rng((seed, 0xE6))
    made = [method.example(data, rng) for _ in range(8)]
    return [(example["frame"], example["mask"]) for example in made]
