"""`edgead synthesise`: what a run is trained on, as picture files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgead.console import Console
from edgead.datasets import Frames, cut_tiles, load_frames
from edgead.errors import ConfigError, DataError
from edgead.files import atomic_file
from edgead.folders import is_litter
from edgead.images import encode_png
from edgead.train import checkpoint, run_config
from edgead.train.canvas import tile_masks
from edgead.train.donors import load_transferred
from edgead.train.foreground import load_foreground_masks
from edgead.train.materials import load_textures
from edgead.train.method import Arrays, TrainingData
from edgead.train.run_config import RunConfig

MOST_FRAMES = 200
"""Good images that anomalies are put on; reading more would only take time."""


def synthesise(
    run_folder: str | Path,
    out: str | Path,
    *,
    count: int = 20,
    image: str | Path | None = None,
    defect: int | None = None,
    donor: str | None = None,
    data: str | Path | None = None,
    seed: int = 0,
    console: Console | None = None,
) -> list[Path]:
    """Write synthetic anomalies of a run's method and settings as ``NUMBER.png`` and ``NUMBER_mask.png``.

    Where frames have depth, its codes go into ``NUMBER_depth.png``.

    Args:
        run_folder: a run, finished or not.
        out: folder for the pictures, new or empty.
        count: how many.
        image: a good image that they are put on, instead of those that the run is trained on.
        defect: number, from 0, of one defect that the run has learned from a donor; it is put on as it was learned,
            once on each of `count` good images, or on `image`.
        donor: the defect's, by its name in ``RUN/sources``; may be left out where there is one.
        data: where the category's folder is now, if it has moved.
        seed: of what is drawn.
        console: shows progress.

    Returns:
        The pictures, without the masks.

    Raises:
        DataError: none of the run's images can be read, `out` is not empty, or no anomaly can be seen.
        ConfigError: no such donor or defect.
        CheckpointError: not a run, or one that has not learned from its donors yet.
    """
    run_folder, out, console = Path(run_folder), Path(out), console or Console()
    run = run_config.load_run_config(run_folder)
    method = checkpoint.build_method(run)
    transferred = load_transferred(run_folder, run)
    if out.is_dir() and not all(is_litter(entry.name) for entry in out.iterdir()):
        raise DataError(f"{out} already holds files; choose another --out.")
    rng = np.random.default_rng((seed, 0x5E))
    frames = _load([Path(image)] if image else _choose(run, Path(data or run.data), rng), run)
    examples: Iterable[Arrays]
    if defect is not None:
        chosen = transferred[_number(donor, run)]
        examples = [method.render(frame, chosen, defect) for frame in cut_tiles(frames.frames, run.tiling)[:count]]
        if not all(example["mask"].any() for example in examples):
            console.say(f"Defect {defect} is not visible on every image; there its mask is empty.")
    elif donor is not None:
        raise ConfigError("--donor chooses the donor of a --defect; pass both.")
    else:
        how, tiling = run.config.foreground, run.tiling
        masks = load_foreground_masks(how, frames.paths, tiling.canvas, run.geometry, run.bit_depth)
        masks = tile_masks(frames.frames, masks, how, tiling)
        tiles = cut_tiles(frames.frames, tiling)
        material = TrainingData(tiles, load_textures(run, console).frames, transferred, masks)
        examples = (method.example(material, rng) for _ in console.track("drawing anomalies")(range(count)))
    paths = []
    for number, example in enumerate(examples):
        paths.append(out / f"{number:04}.png")
        pictures = {"": example["frame"][:, :, :3], "_mask": example["mask"].astype(np.uint8) * 255}
        if method.config.reads_depth:
            pictures["_depth"] = example["frame"][:, :, 3]
        for suffix, picture in pictures.items():
            with atomic_file(out / f"{number:04}{suffix}.png") as stream:
                stream.write(encode_png(np.ascontiguousarray(picture)))
    return paths


def _choose(run: RunConfig, root: Path, rng: np.random.Generator) -> list[Path]:
    """Draw good images that the run is trained on."""
    if (root / run.category).is_dir() and not (root / run.normals[0]).exists():
        root = root / run.category  # --data names the folder of several categories
    return [root / run.normals[index] for index in sorted(rng.permutation(len(run.normals))[:MOST_FRAMES])]


def _load(paths: list[Path], run: RunConfig) -> Frames:
    frames = load_frames(paths, run.tiling.canvas, run.pixels, geometry=run.geometry)
    if not len(frames.frames):
        raise DataError(f"None of the images in {paths[0].parent} can be read:\n{frames.skipped[0]}")
    return frames


def _number(donor: str | None, run: RunConfig) -> int:
    """Return the number of the donor that a defect was learned from."""
    names = [config.name for config in run.donors]
    if not names:
        raise ConfigError("This run has learned from no donor; leave out --defect.")
    if donor is None and len(names) == 1:
        return 0
    if donor not in names:
        raise ConfigError(f"The donors of this run: {', '.join(names)}. Name one with --donor.")
    return names.index(donor)
