"""`edgead train`: from a folder of images to finished runs."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from edgead.console import Console
from edgead.datasets import Category, open_again, open_categories, open_category
from edgead.errors import CheckpointError, ConfigError
from edgead.geometry import GeometryRequest
from edgead.settings import check_text, refuse_text
from edgead.text import file_name
from edgead.train import checkpoint, run_config
from edgead.train.accelerator import check_device
from edgead.train.configuration import reconfigure
from edgead.train.donors import find_transferred
from edgead.train.methods import get_method
from edgead.train.new_run import check_same, choose_images, refuse_run, run_without_images
from edgead.train.request import Request, take_at_most
from edgead.train.run import Execution, train_run
from edgead.train.split import split_normals
from edgead.train.tracking import check_trackers


def train(
    method: str,
    data: str | Path,
    *,
    category: str | None = None,
    preset: str | None = None,
    settings: tuple[str, ...] = (),
    out: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    mixed_precision: str = "auto",
    budget: str | None = None,
    workers: int | None = None,
    holdout: float = 0.2,
    textures: str | Path | None = None,
    weights: str | Path | None = None,
    donors: Sequence[str | Path] = (),
    bit_depth: int = 16,
    crop: str | None = None,
    fit: str = "stretch",
    tiles: str | None = None,
    overlap: float | None = None,
    scale: float | None = None,
    align: str | Path | None = None,
    max_shift: float | None = None,
    max_rotation: float | None = None,
    track: Sequence[str] = (),
    most_images: int | None = None,
    marked: str | Path | None = None,
    console: Console | None = None,
) -> list[Path]:
    """Train a method on the good images of a data set.

    Args:
        method: name, for instance ``"draem"``.
        data: folder in a layout of `edgead.datasets`.
        category: one of several categories, or ``"all"`` for one run per category.
        preset: ``"paper"``, ``"edge"`` or ``"nano"``. None: the largest that trains on this machine within 12 hours.
        settings: ``"name=value"`` overrides of the method's configuration.
        out: folder of the run (with several categories: of all their runs). Default: a new one below ``runs/train``.
        seed: random seed of the weights, the split and every example.
        device, workers: see `edgead.train.fit.fit`. With None, the number of workers follows from the machine.
        mixed_precision: ``"no"`` (float32), ``"bf16"``, ``"fp16"``, or ``"auto"``: bf16 for each stage in which the
            processor supports it, a few steps show that it is faster, and the losses agree.
        budget: time for each run, as ``90s``, ``30m`` or ``2h``. The published schedule is scaled to it.
        holdout: share of the good images, at most 200, that is held out for the threshold and not trained on.
        textures: folder of texture images that fill synthetic anomalies.
        weights: file of the backbone's weights. None: they are downloaded if the method needs any.
        donors: other products with real defects, for a method that learns from them: data sets, finished runs that
            have learned from them, or the file ``learned.safetensors`` of such a run.
        bit_depth: significant bits of 16-bit images.
        crop: ``"x,y,width,height"`` of the part of each image that is used, as shares of the image or in pixels.
        fit: ``"stretch"`` to the network's input, or ``"letterbox"``, which keeps the aspect ratio.
        tiles: ``"ROWSxCOLUMNS"``: the number of tiles of the network's size. Or the size of a tile in pixels of the
            image: ``"512px"``, ``"HEIGHTxWIDTHpx"``.
        overlap: overlap of neighbouring tiles, as a share of a tile. None: `edgead.geometry.OVERLAP`.
        scale: pixels of the images per millimetre. A message then says how many pixels of a defect of 1 mm are left.
        align: image of a good part. All images are shifted and turned so that their part lies as on it. ``"auto"``:
            one of the good images.
        max_shift: largest shift of a part, as a share of the image's longer side. None: `edgead.geometry.MAX_SHIFT`.
        max_rotation: largest angle of a part, in degrees. None: `edgead.geometry.MAX_ROTATION`.
        most_images: largest number of good images per category; more are left out at random. None: no limit.
        marked: folder of a ``rejects:`` sink or of its marks. Good parts that are marked as false rejects are trained
            on, too, and never held out.
        track: experiment trackers that get losses, learning rates and held-out figures: ``"tensorboard"``,
            ``"mlflow"``.
        console: shows progress.

    Returns:
        The folder of each finished run.

    Raises:
        EdgeadError: see `edgead.errors`.
    """
    started, created = time.monotonic(), datetime.now(timezone.utc)
    console = console or Console()
    optional = {"category": category, "preset": preset, "budget": budget, "crop": crop, "tiles": tiles}
    given = {name: text for name, text in optional.items() if text is not None}
    for name, text in {"method": method, "device": device, "fit": fit, **given}.items():
        check_text(name, text)
    for name, values in {"settings": settings, "donors": donors, "track": track}.items():
        refuse_text(name, values)
    check_trackers(track)
    if out is None and "RANK" in os.environ:
        raise ConfigError("Several processes need a common folder; set it with --out DIR.")
    request = Request(
        method=get_method(method),
        preset=preset,
        settings=settings,
        seed=seed,
        device=device,
        mixed_precision=mixed_precision,
        budget=budget,
        workers=workers,
        holdout=holdout,
        textures=textures,
        weights=weights,
        donors=donors,
        bit_depth=bit_depth,
        geometry=GeometryRequest.parse(
            crop, fit, tiles, overlap, None if align is None else str(align), max_shift, max_rotation
        ),
        scale=scale,
        marked=marked,
    )
    request.check()
    check_device(device)
    categories = open_categories(data) if category == "all" else [open_category(data, category)]
    if most_images is not None:
        categories = [take_at_most(most_images, each, seed, console) for each in categories]
    shared = Path(out) if out and category == "all" else None  # folder of the folders of several runs
    preset, choice = (preset, "") if preset is not None else _choose_preset(request, categories, shared, console)
    config = request.configure(preset, category)
    geometries = [request.fix_geometry(each, config, console) for each in categories]
    folders: list[Path] = []
    learned: dict[str, Path] = {}  # what earlier categories have learned from a donor serves the later ones
    with _naming_the_rest(categories, folders, out, console):
        for each, geometry in zip(categories, geometries):
            run = run_without_images(request, preset, choice, config, each, geometry, created)
            own = (
                Path(out) if out else Path("runs", "train", f"{method}-{file_name(each.name)}-{created:%Y%m%d-%H%M%S}")
            )
            folder = own / each.name if shared else own
            if shared and (folder / run_config.CONFIG).exists():  # the same command resumes where it stopped
                check_same(run_config.load_run_config(folder), run, bool(donors), folder)
                folders.append(resume(folder, device=device, workers=workers, track=track, console=console))
            else:
                refuse_run(folder)
                run = choose_images(run, each, request, learned, console)
                execution = Execution(device, workers, console, track, started)
                folders.append(train_run(run, folder, execution, named=out is not None))
                started = time.monotonic()
            learned |= find_transferred(folders[-1])
    return folders


def resume(
    folder: str | Path,
    *,
    data: str | Path | None = None,
    settings: tuple[str, ...] = (),
    device: str = "auto",
    workers: int | None = None,
    track: Sequence[str] = (),
    console: Console | None = None,
) -> Path:
    """Resume a stopped run; on a CPU the result is that of a run that was never stopped.

    Args:
        folder: folder of the run.
        data: the category's folder, if it has moved.
        settings: ``"name=value"`` overrides from the last saved state on, of settings that may change
            (`Method.resume_settings`): for instance a lower learning rate after a training that diverged.
        device, workers, track, console: as for `train`.

    Raises:
        CheckpointError: not a run, or the training images have changed since.
        ConfigError: a wrong number of workers, a setting that was fixed when the run was started, or a finished run.
    """
    folder, console = Path(folder), console or Console()
    check_trackers(track)
    execution = Execution(device, workers, console, track)
    run = run_config.load_run_config(folder)
    changed = reconfigure(get_method(run.method), run.config, settings, "resume")
    if checkpoint.is_finished(folder):
        if settings:
            raise ConfigError(f"{folder} is finished: --set {settings[0]} has no effect. Start a new run.")
        console.say(f"{folder} is finished already.")
        return folder
    if data is not None:
        run = dataclasses.replace(run, data=str(open_again(data, run.category).root.resolve()))
    before, after = vars(run.config), vars(changed)
    changes = [f"{name} {before[name]:g} -> {value:g}" for name, value in after.items() if value != before[name]]
    if changes:
        run = dataclasses.replace(run, config=changed, changes=(*run.changes, *changes))
        console.say(f"Changed: {', '.join(changes)}")
    return train_run(run, folder, execution, named=True)


def _choose_preset(
    request: Request, categories: Sequence[Category], shared: Path | None, console: Console
) -> tuple[str, str]:
    """Return the preset where none was named, and why: that of the same command before, or what fits the machine."""
    for category in categories:
        split_normals(category, request.holdout, request.seed)  # too few images are reported before a measurement
    for category in categories if shared else ():
        if shared and (shared / category.name / run_config.CONFIG).exists():
            stored = run_config.load_run_config(shared / category.name)
            return stored.preset, stored.choice
    return request.choose_preset(categories, console)


@contextmanager
def _naming_the_rest(
    categories: Sequence[Category], trained: Sequence[Path], out: str | Path | None, console: Console
) -> Iterator[None]:
    """Name the categories that a stopped command has not started; the run itself says how to resume it."""
    try:
        yield
    except KeyboardInterrupt:
        rest = [category.name for category in categories[len(trained) + 1 :]]
        if rest:
            how = "repeat the command to resume and train them" if out else "train each with --category NAME"
            console.say(f"Not started: {', '.join(rest)}; {how}.")
        raise


def find_unfinished(method: str, root: Path = Path("runs/train")) -> Path:
    """Return the newest run of a method that was stopped.

    Raises:
        CheckpointError: there is none.
    """
    found = checkpoint.find_runs(root, method, finished=False)
    if not found:
        raise CheckpointError(f"No unfinished run of {method} in {root}. Set its folder with --out DIR.")
    return found[0]
