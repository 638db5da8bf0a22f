"""A run's configuration, `config.json` in its folder: everything that decides its result."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from edgead import schema
from edgead.bundle.manifest import ImageSizes
from edgead.depth import DepthRange
from edgead.errors import CheckpointError, ConfigError
from edgead.files import write_json
from edgead.geometry import STRETCH, Geometry
from edgead.geometry.tiling import Tiling
from edgead.images import PixelFormat
from edgead.schema import FilePath, FolderName, SchemaError, Share, Within, left_out, stored_as
from edgead.train.configuration import read_config
from edgead.train.method_config import MethodConfig, steps_in_epoch
from edgead.train.methods import get_method

CONFIG = "config.json"
Seed = Annotated[int, Within(0, 2**63 - 1)]
BitDepth = Annotated[int, Within(9, 16)]
"""Significant bits of 16-bit images."""


@dataclass(frozen=True)
class DonorConfig:
    """Another product that a run learns from.

    Attributes:
        name: of the product; its folder below ``RUN/sources``.
        path: folder of its images, or the file with what another run has learned from it.
        root: folder of its images.
        normals, anomalies: file names relative to `root`; empty where another run's transferred defects are used.
        fingerprint: SHA-256 over good and over defective images.
    """

    name: FolderName
    path: FilePath
    root: FilePath
    normals: tuple[FilePath, ...] = ()
    anomalies: tuple[FilePath, ...] = ()
    fingerprint: str = ""


@dataclass(frozen=True)
class MarkedConfig:
    """Good parts that people have marked as false rejects, see `edgead.train.marked`.

    Attributes:
        folder: of the marks.
        names: pictures that are trained on, relative to `folder`.
        left_out: marked ones that show held-out or labelled images.
    """

    folder: FilePath
    names: tuple[FilePath, ...]
    left_out: int = 0

    @property
    def paths(self) -> list[Path]:
        """The pictures."""
        return [Path(self.folder, name) for name in self.names]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What `config.json` holds: everything that decides the result of a run.

    Attributes:
        method, preset, config: the method's name, the preset it came from, all configuration values.
        category: name of the product.
        data: the data set's folder.
        normals, held_out: file names of the good images trained on and of those kept for the threshold, relative
            to `data`.
        fingerprint, held_out_fingerprint: SHA-256 over the training images and over those held out.
        textures: folder of texture pictures, or None.
        textures_fingerprint: SHA-256 over them; empty where there are none, and in older runs.
        bit_depth: significant bits of 16-bit images.
        seed, mixed_precision: of the training.
        created: UTC, ISO 8601.
        versions: of the packages that matter.
        weights: file of a backbone's weights, or None for its publisher's download.
        donors: other products whose real defects are learned from.
        masks_fingerprint, held_out_masks_fingerprint: SHA-256 over the foreground masks of the training images and of
            those held out; empty where there are none, the second in older runs too.
        depth_range: of the training images' depth, see `edgead.depth`; None where none is learned from.
        epoch_images: good images that an epoch of the schedule counts: all of them, as published, those held out too.
            0 in older runs, which counted the images trained on alone.
        devices: what it was trained on, in order.
        departures: how the training differs from the published one, in words, as it was started.
        choice: why this preset was chosen, where none was named.
        stage_precisions: stage's name ↦ ``"no"`` or ``"bf16"``, as chosen at the start for the precision ``"auto"``.
        budget: time that the training was given, as ``30m``; None where its schedule was not scaled to any.
        published_steps: optimiser steps of the schedule that was scaled to the budget, once that was done.
        changes: settings that were changed when a stopped run was resumed, as ``NAME BEFORE -> AFTER``; which step had
            which learning rate stands in metrics.jsonl.
        weights_sha256: of the finished run's weights; None in older runs.
        image_sizes: of the training images; None in older runs.
        copies: good images that show, pixel for pixel, what another one shows: they are on its side of the split.
        near_copies: held-out images that look almost like one that is trained on. Both are None in older runs.
        holdout: share of the good images that was asked for to be held out; None in older runs.
        marked: good parts that are trained on besides `normals`; None where there are none.
        stored_geometry: how pictures are brought to the network; None where they are stretched to its input.
        unstored: settings of the method that `config.json` lacks, because it is older than they are. They have their
            defaults, and stay out of what is written.
    """

    method: str
    preset: str
    config: MethodConfig
    category: str
    data: FilePath
    normals: tuple[FilePath, ...]
    held_out: tuple[FilePath, ...]
    fingerprint: str
    held_out_fingerprint: str
    textures: FilePath | None
    bit_depth: BitDepth
    seed: Seed
    mixed_precision: str = stored_as("precision")
    created: str
    versions: dict[str, str]
    weights: FilePath | None = None
    donors: tuple[DonorConfig, ...] = stored_as("sources", ())
    masks_fingerprint: str = stored_as("parts_fingerprint", "")
    depth_range: DepthRange | None = None
    changes: tuple[str, ...] = ()
    textures_fingerprint: str = ""
    held_out_masks_fingerprint: str = stored_as("held_out_parts_fingerprint", "")
    weights_sha256: str | None = left_out()
    image_sizes: ImageSizes | None = left_out()
    epoch_images: int = 0
    devices: tuple[str, ...] = ()
    departures: tuple[str, ...] = ()
    choice: str = ""
    stage_precisions: dict[str, str] | None = left_out()
    budget: str | None = left_out()
    published_steps: int | None = left_out()
    copies: int | None = left_out()
    near_copies: int | None = left_out()
    holdout: Share | None = left_out()
    marked: MarkedConfig | None = left_out()
    stored_geometry: Geometry | None = left_out("geometry")
    unstored: tuple[str, ...] = ()

    @property
    def geometry(self) -> Geometry:
        """How pictures are brought to the network."""
        return self.stored_geometry or STRETCH

    @property
    def tiling(self) -> Tiling:
        """How canvases are cut."""
        return Tiling(self.geometry, self.config.size)

    @property
    def trained_on(self) -> int:
        """Number of good images trained on."""
        return len(self.normals) + (len(self.marked.names) if self.marked else 0)

    def training_images(self, root: Path) -> list[Path]:
        """Return the good images trained on, with the data set in `root`."""
        return [root / name for name in self.normals] + (self.marked.paths if self.marked else [])

    @property
    def steps_in_epoch(self) -> Fraction:
        """Optimiser steps in an epoch; not a whole number in an older run, without `epoch_images`."""
        if self.epoch_images:
            return steps_in_epoch(self.epoch_images, self.config.batch_size)
        return Fraction(self.trained_on, self.config.batch_size)

    @property
    def stored_config(self) -> dict[str, Any]:  # Any: settings differ in type; the method's dataclass has read them
        """The method's configuration as JSON, with the settings that the run's file has and those that were changed."""
        fields = {field.name: field.default for field in dataclasses.fields(self.config)}
        written: dict[str, Any] = schema.write(self.config)
        kept = (name for name in written if name not in self.unstored or getattr(self.config, name) != fields[name])
        return {name: written[name] for name in kept}

    @property
    def shipped_config(self) -> dict[str, Any]:  # Any: as above
        """`stored_config` with the names of files and folders in place of their paths on this machine."""
        shipped = self.stored_config
        for name in shipped.keys() & set(self.config.paths):
            shipped[name] = Path(shipped[name]).name
        return shipped

    @property
    def precisions(self) -> str | dict[str, str]:
        """What `edgead.train.fit.fit` takes; ``"auto"`` where it has not been chosen yet."""
        return self.mixed_precision if self.stage_precisions is None else self.stage_precisions

    @property
    def trained_precision(self) -> str:
        """The precision that the stages trained in, ``"no"`` for float32; several are joined by commas."""
        taken = self.precisions
        return taken if isinstance(taken, str) else ",".join(sorted(set(taken.values())))

    @property
    def pixels(self) -> PixelFormat:
        """How images become frames."""
        return PixelFormat(self.bit_depth, self.depth_range)

    def fits_held_out_masks(self, fingerprint: str) -> bool:
        """Tell whether the foreground masks of the images held out are those that the run was started with."""
        return self.held_out_masks_fingerprint in ("", fingerprint)


def save_run_config(folder: Path, run: RunConfig) -> None:
    """Write `config.json`."""
    values = schema.write(run)
    del values["unstored"]
    write_json(folder / CONFIG, {**values, "config": run.stored_config})


def load_run_config(folder: Path) -> RunConfig:
    """Read `config.json`.

    Raises:
        CheckpointError: it is missing, damaged or lacks a field.
    """
    path = folder / CONFIG
    try:
        return _read_run_config(schema.load_json(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"{folder} is not a training run: it has no {CONFIG}.") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except SchemaError as error:
        raise CheckpointError(f"{path} is damaged: {error}. Train again, or choose another run.") from error


def _read_run_config(values: Any) -> RunConfig:
    """Read everything but the method's configuration, which the method's dataclass reads."""
    if not isinstance(values, dict) or not isinstance(values.get("config"), dict):
        raise SchemaError("it has no table 'config'")
    run = schema.read(RunConfig, {**values, "config": {}, "unstored": []})
    try:
        config = read_config(get_method(run.method), values["config"])
    except (SchemaError, ConfigError) as error:
        raise CheckpointError(f"The run's configuration does not fit {run.method:.100}: {error}") from error
    absent = tuple(field.name for field in dataclasses.fields(config) if field.name not in values["config"])
    run = dataclasses.replace(run, config=config, unstored=absent)
    run.geometry.check(config.size)
    return run
