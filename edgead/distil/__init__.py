"""`edgead distil`: make a small bundle that decides like a given one, within a given time.

    from edgead.distil import distil

    distilled = distil("bottle.edgead", "photos/", target_ms=10)

The student is measured, trained, exported in INT8 and compared with its teacher. Reasons: docs/adr/0048.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import edgead.train  # noqa: F401  first: it reports what to install if PyTorch is missing
from edgead.bundle import read_bundle
from edgead.console import Console
from edgead.errors import CheckpointError, ConfigError, DeviceError, GateError
from edgead.files import refuse_unwritable
from edgead.text import typed

if TYPE_CHECKING:
    from edgead.bundle import Bundle

METHOD = "student"
ENGINE = "onnxruntime"
FIXED = ("teacher", "teacher_digest", "size")
"""Settings that the teacher decides."""
SHAPE = ("backbone", "stem", "widths", "blocks")
"""Settings that are chosen by the time they take."""


@dataclass(frozen=True)
class Distilled:
    """What was made.

    Attributes:
        run: folder of the student's training.
        bundle: the student.
        report: page of the comparison with the teacher.
    """

    run: Path
    bundle: Bundle
    report: Path


def distil(
    bundle: str | Path,
    data: str | Path,
    *,
    target_ms: float,
    engine: str = ENGINE,
    budget: str | None = None,
    category: str | None = None,
    settings: tuple[str, ...] = (),
    textures: str | Path | None = None,
    weights: str | Path | None = None,
    out: str | Path | None = None,
    bundle_out: str | Path | None = None,
    precision: str = "int8",
    false_reject: float = 0.01,
    seed: int = 0,
    device: str = "auto",
    mixed_precision: str = "auto",
    workers: int | None = None,
    holdout: float = 0.2,
    track: Sequence[str] = (),
    console: Console | None = None,
) -> Distilled:
    """Train a small network, the student, that decides like a bundle, and export it.

    Labelled images in the data are scored once, at the end. Nothing is chosen by them.

    Args:
        bundle: the teacher, trained here or imported. It must read colour images.
        data: the good images, as for `edgead.train.train`.
        target_ms: largest time of one inference, in milliseconds. The largest network that meets it is trained.
        engine: engine on which the networks are measured, in `precision`.
        budget: time for the training, the teacher's inferences included, as ``20m``.
        settings: ``"name=value"`` overrides of the student's configuration. With one of `SHAPE` nothing is measured.
        out: folder of the run.
        bundle_out: folder of the bundle; by default below ``runs/export``.
        weights: file of the ImageNet weights of squeezenet1_1, which encodes the images. None: they are downloaded.
            If they cannot be, the student learns its encoder, and decides less like its teacher.
        precision: precision of the student: ``"int8"``, ``"fp32"``, ``"fp16"`` or ``"auto"``.
        category, textures, seed, device, mixed_precision, workers, holdout, track: as for `edgead.train.train`.
        false_reject: as for `edgead.export.export`.
        console: shows progress.

    Raises:
        ConfigError: a setting that the teacher decides, or no network of the family meets the target.
        DeviceError: the engine does not run the student correctly in its precision; run and bundle are kept.
        GateError: the student fails the gate of its precision; the run is kept.
        EdgeadError: see `edgead.errors`.
    """
    from edgead.distil.architecture import LEARNED, PRETRAINED, choose
    from edgead.train import train
    from edgead.train.configuration import configure
    from edgead.train.methods import get_method
    from edgead.train.new_run import refuse_run
    from edgead.train.teacher import Teacher

    console = console or Console()
    finish = _Finish(target_ms, engine, bundle_out, precision, false_reject, console)
    if category == "all":
        raise ConfigError("A teacher covers one product: distil one category at a time, with --category NAME.")
    path = Path(bundle).resolve()
    teacher = Teacher(path)
    named = {setting.partition("=")[0] for setting in settings}
    if taken := sorted(named & {*FIXED}):
        raise ConfigError(f"The teacher decides {taken[0]}; leave out --set {taken[0]}=….")
    height, width = teacher.size
    fixed = (f"teacher={path}", f"teacher_digest={teacher.digest}", f"size={height}x{width}")
    configure(get_method(METHOD), "paper", (*fixed, *settings))  # errors are reported before any work
    if bundle_out and Path(bundle_out).exists():
        raise ConfigError(f"{bundle_out} exists already and was kept. Choose another --bundle-out.")
    if out:
        refuse_run(Path(out))
    chosen: tuple[str, ...] = ()
    if not named & {*SHAPE}:
        family = LEARNED + PRETRAINED if _have_weights(weights, console) else LEARNED
        size = choose(read_bundle(path), family, target_ms, engine, precision, console)
        chosen = size.settings
        weights = weights if size.backbone else None
    [run] = train(
        METHOD,
        data,
        category=category,
        preset="paper",
        settings=(*fixed, *chosen, *settings),
        out=out,
        seed=seed,
        device=device,
        mixed_precision=mixed_precision,
        budget=budget,
        workers=workers,
        holdout=holdout,
        textures=textures,
        weights=weights,
        track=track,
        console=console,
    )
    return finish(path, run)


def _have_weights(weights: str | Path | None, console: Console) -> bool:
    from edgead.distil.architecture import BACKBONE
    from edgead.train.backbones import why_no_weights

    if why := why_no_weights(BACKBONE, Path(weights) if weights else None):
        console.say(f"{why}\nWithout them the student learns its encoder, and decides less like its teacher.")
    return not why


def resume(
    bundle: str | Path,
    *,
    target_ms: float,
    data: str | Path | None = None,
    engine: str = ENGINE,
    settings: tuple[str, ...] = (),
    out: str | Path | None = None,
    bundle_out: str | Path | None = None,
    precision: str = "int8",
    false_reject: float = 0.01,
    device: str = "auto",
    workers: int | None = None,
    track: Sequence[str] = (),
    console: Console | None = None,
) -> Distilled:
    """Finish a distillation that was stopped: the rest of the training, the export and the comparison.

    Args:
        bundle: the teacher of the run.
        target_ms, engine, bundle_out, precision, false_reject: as for `distil`; the run does not hold them.
        data, settings, device, workers, track: as for `edgead.train.resume`.
        out: folder of the run. None: the newest unfinished run of a student below ``runs/train``.
        console: shows progress.

    Raises:
        CheckpointError: no run of a student, or one of another teacher.
        ConfigError: new data for a training that is finished.
        EdgeadError: see `distil` and `edgead.train.resume`.
    """
    from edgead.train import checkpoint, run_config
    from edgead.train import resume as resume_training
    from edgead.train.methods.student.config import StudentConfig
    from edgead.train.training import find_unfinished

    console = console or Console()
    finish = _Finish(target_ms, engine, bundle_out, precision, false_reject, console)
    path, folder = Path(bundle).resolve(), find_unfinished(METHOD) if out is None else Path(out)
    run = run_config.load_run_config(folder)
    config = run.config
    if not isinstance(config, StudentConfig):
        raise CheckpointError(f"{folder} is not a run of a student. Resume it with  edgead train --resume")
    if config.teacher_digest != read_bundle(path).manifest.digest:
        raise CheckpointError(f"The run in {folder} does not learn from {path}, but from {config.teacher}.")
    finished = checkpoint.is_finished(folder)
    if finished and data is not None:
        raise ConfigError(f"{folder} is trained already. Leave out --data; its images must still be where they were.")
    if settings or not finished:
        if config.teacher != str(path):  # it was moved, or this is a copy
            run_config.save_run_config(folder, dataclasses.replace(run, config=config.replaced(teacher=str(path))))
        resume_training(
            folder, data=data, settings=settings, device=device, workers=workers, track=track, console=console
        )
    return finish(path, folder)


@dataclass(frozen=True)
class _Finish:
    """What follows the training of a student: export and comparison. Wrong arguments are refused before any work."""

    target_ms: float
    engine: str
    bundle_out: str | Path | None
    precision: str
    false_reject: float
    console: Console

    def __post_init__(self) -> None:
        from edgead.export.options import BuildOptions, to_precision_options
        from edgead.runtime.engines.opening import find_spec

        if not self.target_ms > 0:
            raise ConfigError(f"--target takes milliseconds above 0, not {self.target_ms:g}.")
        if find_spec(self.engine.partition(":")[0]).chooses:
            raise ConfigError(
                f"The target is for one engine: name it with --engine, not {self.engine}. See:  edgead doctor"
            )
        BuildOptions(self.bundle_out, self.false_reject, to_precision_options(self.precision))
        if self.bundle_out:
            refuse_unwritable(Path(self.bundle_out).parent)

    def __call__(self, teacher: Path, run: Path) -> Distilled:
        """Export a finished run, and compare the student with its teacher."""
        from edgead.distil.comparison import compare
        from edgead.export import export

        try:
            student = export(
                run,
                out=self.bundle_out,
                precision=self.precision,
                false_reject=self.false_reject,
                console=self.console,
            )
        except GateError as error:
            first = str(error).splitlines()[0]
            raise GateError(
                f"{first}\nThe student is kept: export it with  edgead export --checkpoint {typed(run)} --precision "
                "auto\nor distil again with a longer --budget, or with more good images (--holdout)."
            ) from error
        name = self.engine.partition(":")[0]
        if why := student.manifest.failed_engines.get(name):
            raise DeviceError(
                f"{student.path} was written, but {name} does not run it correctly on this machine: {why}\n"
                "Use it on another engine, export the run at another precision:\n"
                f"  edgead export --checkpoint {typed(run)} --precision auto\nor distil again for another --engine."
            )
        page = compare(read_bundle(teacher), student, run, self.engine, self.target_ms, self.console)
        return Distilled(run, student, page)
