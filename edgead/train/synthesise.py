"""`edgead synthesise`: what a run is trained on, as picture files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgead.console import Console
from edgead.datasets import load_frames
from edgead.errors import DataError
from edgead.files import atomic_file
from edgead.images import encode_png
from edgead.train import checkpoint
from edgead.train.foreground import load_parts
from edgead.train.method import TrainingData
from edgead.train.sources import load_learned
from edgead.train.train import load_textures

MOST_FRAMES = 200
"""Good images that anomalies are put on; reading more would only take time."""


def synthesise(
    run_folder: str | Path,
    out: str | Path,
    *,
    count: int = 20,
    data: str | Path | None = None,
    seed: int = 0,
    console: Console | None = None,
) -> list[Path]:
    """Write synthetic anomalies of a run's method and settings as ``NUMBER.png`` and ``NUMBER_mask.png``.

    Where frames have depth, its codes go into ``NUMBER_depth.png``.

    Args:
        run_folder: a run, finished or not.
        out: folder for the pictures; it must not hold any yet.
        count: how many.
        data: where the category's folder is now, if it has moved.
        seed: of what is drawn.
        console: shows progress.

    Returns:
        The pictures, without the masks.

    Raises:
        DataError: none of the run's images can be read, `out` holds pictures already, or no anomaly can be seen.
        CheckpointError: not a run, or one that has not learned from its sources yet.
    """
    run_folder, out, console = Path(run_folder), Path(out), console or Console()
    run = checkpoint.load_run_config(run_folder)
    method = checkpoint.build_method(run)
    learned = load_learned(run_folder, run)
    if out.is_dir() and any(out.glob("*.png")):
        raise DataError(f"{out} holds pictures already; choose another --out.")
    root, rng = Path(data or run.data), np.random.default_rng((seed, 0x5E))
    if (root / run.category).is_dir() and not (root / run.normals[0]).exists():
        root = root / run.category  # --data names the folder of several categories
    chosen = sorted(rng.permutation(len(run.normals))[:MOST_FRAMES])
    frames = load_frames([root / run.normals[index] for index in chosen], method.config.size, run.pixels)
    if not len(frames.frames):
        raise DataError(f"None of this run's images in {root} can be read:\n{frames.skipped[0]}")
    parts = load_parts(run.config.get("foreground", ""), frames.paths, method.config.size)
    material = TrainingData(frames.frames, load_textures(run, console).frames, learned, parts)
    paths = []
    for number in console.track("drawing anomalies")(range(count)):
        example = method.example(material, rng)
        paths.append(out / f"{number:04}.png")
        pictures = {"": example["frame"][:, :, :3], "_mask": example["mask"].astype(np.uint8) * 255}
        if example["frame"].shape[2] == 4:
            pictures["_depth"] = example["frame"][:, :, 3]
        for suffix, picture in pictures.items():
            with atomic_file(out / f"{number:04}{suffix}.png") as stream:
                stream.write(encode_png(np.ascontiguousarray(picture)))
    return paths
