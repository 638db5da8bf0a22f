"""The images of a run: read, compared with those that it was started with, and cut for training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgead.bundle.manifest import sizes_of
from edgead.console import Console
from edgead.datasets import Frames, cut_tiles, find_depth_range, load_frames
from edgead.errors import CheckpointError, DataError
from edgead.train.canvas import tile_masks
from edgead.train.donors import open_donor
from edgead.train.foreground import count_without_part, load_foreground_masks, masks_fingerprint
from edgead.train.materials import load_textures, report_dark, report_skipped
from edgead.train.method import Arrays, Donor, Method, TrainingData
from edgead.train.recipe import departures
from edgead.train.report import HeldOut
from edgead.train.run_config import DonorConfig, MarkedConfig, RunConfig
from edgead.train.split import FEW_IMAGES


@dataclass(frozen=True, eq=False)
class RunImages:
    """What a run reads.

    Attributes:
        normals, held_out: good images to train on, and for the threshold.
        textures: pictures that fill synthetic anomalies.
        donors: each with its images, or with what was learned from it.
        masks, held_out_masks: ``[N, H, W] bool``, where the part is on `normals` and `held_out`; None without a folder
            of masks.
    """

    normals: Frames
    held_out: Frames
    textures: Frames
    donors: Sequence[tuple[DonorConfig, Donor | Arrays]]
    masks: NDArray[np.bool_] | None
    held_out_masks: NDArray[np.bool_] | None

    def cut(self, run: RunConfig) -> tuple[TrainingData, HeldOut]:
        """Return what is trained on and what is held out, cut to the network's input."""
        tiling, how = run.tiling, run.config.foreground
        data = TrainingData(
            cut_tiles(self.normals.frames, tiling),
            self.textures.frames,
            foreground_masks=tile_masks(self.normals.frames, self.masks, how, tiling),
            epoch=run.steps_in_epoch,
        )
        unseen = dataclasses.replace(
            data,
            normals=cut_tiles(self.held_out.frames, tiling),
            foreground_masks=tile_masks(self.held_out.frames, self.held_out_masks, how, tiling),
        )
        names = relative_names(self.held_out.paths, Path(run.data))
        return data, HeldOut(names, unseen, self.held_out.frames, tiling)


def read_images(run: RunConfig, folder: Path, console: Console) -> RunImages:
    """Read the images of a run in `folder`, and say what could not be read.

    Raises:
        DataError: no image to train on or none for the threshold can be read.
    """
    canvas, geometry = run.tiling.canvas, run.geometry
    paths = run.training_images(Path(run.data))
    normals = load_frames(paths, canvas, run.pixels, console.track("reading images"), geometry)
    report_skipped(normals, "image", console)
    if not len(normals.frames):
        raise DataError(
            f"None of the {run.trained_on} good images in {run.data} can be read; the first error:\n"
            f"{normals.skipped[0]}\nIf the data has moved, name its folder with --data DIR."
        )
    if len(normals.frames) < FEW_IMAGES:
        console.say(f"Warning: only {len(normals.frames)} good images to train on; {FEW_IMAGES} or more are advisable.")
    report_dark(normals, "image", run.bit_depth, console)
    if shapes := normals.describe_odd_shapes():
        console.say(shapes)
    textures = load_textures(run, console)
    donors = [open_donor(donor, folder, run, console) for donor in run.donors]
    held_out = load_frames([Path(run.data, name) for name in run.held_out], canvas, run.pixels, geometry=geometry)
    report_skipped(held_out, "held-out image", console)
    report_dark(held_out, "held-out image", run.bit_depth, console)
    if shapes := held_out.describe_untrained_shapes(normals):
        console.say(shapes)
    if not len(held_out.frames):
        raise DataError(
            f"None of the {len(run.held_out)} images held out for the threshold can be read:\n{held_out.skipped[0]}"
        )
    masks = load_foreground_masks(
        run.config.foreground, [*normals.paths, *held_out.paths], canvas, geometry, run.bit_depth
    )
    count = len(normals.paths)
    parts = (None, None) if masks is None else (masks[:count], masks[count:])
    return RunImages(normals, held_out, textures, donors, *parts)


def with_depth_range(run: RunConfig, console: Console) -> RunConfig:
    """Return a run with the range of its training images' depth."""
    paths = run.training_images(Path(run.data))
    (low, high), odd = find_depth_range(paths, console.track("measuring depth"))
    console.say(f"depth from {low:g} to {high:g}, in the files' unit")
    for path, (near, far) in odd.items():
        console.say(
            f"Warning: the depth of {path} is {near:g} to {far:g}, far from that of the others, and makes the "
            "range wider. Is it in the same unit? If not, remove it and start a new run."
        )
    return dataclasses.replace(run, depth_range=(low, high))


def with_fingerprints(run: RunConfig, method: Method, images: RunImages) -> RunConfig:
    """Return a new run with what was read: the images that could be, their fingerprints, and what departs from it."""
    normals, held_out, textures = images.normals, images.held_out, images.textures
    root = Path(run.data)
    also_held_out = run.epoch_images > run.trained_on  # not where the data set has images for validation
    marked = set(run.marked.paths if run.marked else ())
    run = dataclasses.replace(
        run,
        normals=tuple(relative_names([path for path in normals.paths if path not in marked], root)),
        marked=_only(run.marked, normals.paths),
        held_out=tuple(relative_names(held_out.paths, root)),
        fingerprint=normals.fingerprint,
        image_sizes=sizes_of(normals.size_ranges()),
        held_out_fingerprint=held_out.fingerprint,
        donors=tuple(config for config, _ in images.donors),
        masks_fingerprint=masks_fingerprint(images.masks),
        held_out_masks_fingerprint=masks_fingerprint(images.held_out_masks),  # for the export
        textures_fingerprint=textures.fingerprint if textures.paths else "",
        epoch_images=len(normals.paths) + also_held_out * len(held_out.paths),
    )
    unfound = count_without_part(normals.frames, run.config.foreground)
    return dataclasses.replace(run, departures=tuple(departures(run, method, len(textures.paths), unfound)))


def check_unchanged(run: RunConfig, images: RunImages, folder: Path) -> None:
    """Check that a resumed run has the images that it was started with.

    Raises:
        CheckpointError: the training images, those held out, the masks or the textures differ.
    """
    if run.fingerprint != images.normals.fingerprint:
        also = f", or the marked ones in {run.marked.folder}," if run.marked else ""
        raise CheckpointError(
            f"The training images in {run.data}{also} differ from those that {folder} was started with."
        )
    if run.held_out_fingerprint != images.held_out.fingerprint:  # the export, after the training, would refuse them
        raise CheckpointError(
            f"The images in {run.data} that are held out for the threshold differ from those that {folder} was started "
            "with.\nRestore the original ones, or start a new run."
        )
    others = {
        f"masks in {run.config.foreground}": run.masks_fingerprint == masks_fingerprint(images.masks)
        and run.fits_held_out_masks(masks_fingerprint(images.held_out_masks)),
        f"textures in {run.textures}": run.textures_fingerprint in ("", images.textures.fingerprint),
    }
    for what, same in others.items():
        if not same:
            raise CheckpointError(
                f"The {what} differ from those that {folder} was started with.\n"
                "Restore the right ones, or start a new run."
            )


def relative_names(paths: Sequence[Path], root: Path) -> list[str]:
    """Return the names of files below a folder, with ``/`` between its parts."""
    return [path.relative_to(root).as_posix() for path in paths]


def _only(marked: MarkedConfig | None, paths: Sequence[Path]) -> MarkedConfig | None:
    """Return what is left of marked pictures when only some images could be read."""
    if marked is None:
        return None
    names = tuple(name for name, path in zip(marked.names, marked.paths) if path in paths)
    return dataclasses.replace(marked, names=names)
