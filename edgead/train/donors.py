"""Donors: other products from whose real defects a method learns before its own training.

What a run learned from each lies in ``RUN/sources/NAME``, beside the files of that training:

learned.safetensors  what the method needs of it; small, and any other run of the method can use it (--donor)
learned.png          the same, to look at
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from edgead import schema
from edgead.console import Console
from edgead.datasets import Category, load_frames, open_categories
from edgead.datasets.copies import find_contents
from edgead.errors import CheckpointError, DataError
from edgead.files import atomic_file
from edgead.schema import PathText
from edgead.text import typed
from edgead.train import plots
from edgead.train.accelerator import is_main
from edgead.train.checkpoint import WEIGHTS, load_weights
from edgead.train.method import Arrays, Donor, Method, Stage, Trainable
from edgead.train.run_config import CONFIG, DonorConfig, RunConfig, load_run_config

TRANSFERRED, PICTURE = "learned.safetensors", "learned.png"


def find_donors(
    given: Sequence[str | Path], target: Category, method: str, known: Mapping[str, Path], console: Console
) -> tuple[DonorConfig, ...]:
    """Look up what ``--donor`` names: data sets, one or several categories, or what a run has learned from them.

    Args:
        given: folders or files.
        target: the category to train on; it cannot be its own donor.
        method: that trains.
        known: data folder ↦ what the same command has learned from it already, from `find_transferred`.
        console: shows which of several categories are left out.

    Raises:
        DataError: nothing there, no defective or no good images, or images of the target.
        CheckpointError: a file that is damaged or of another method.
    """
    found: list[DonorConfig] = []
    for path in map(Path, given):
        if path.is_file() or (path / TRANSFERRED).is_file():
            found.append(_transferred_donor(path, method, target))
        elif (path / CONFIG).is_file():
            names = [donor.name for donor in load_run_config(path).donors]
            parts = [path / "sources" / name / TRANSFERRED for name in names]
            done = [part for part in parts if part.is_file()]
            if not done:
                raise DataError(f"The run in {path} has learned nothing from donors yet; choose another --donor.")
            if done != parts:
                raise DataError(
                    f"The run in {path} has learned from {len(done)} of its {len(parts)} donors.\n"
                    f"Resume it first:  edgead train --resume --out {typed(path)}\n"
                    f"Or use what it has learned: --donor {typed(done[0])}"
                )
            found += [_transferred_donor(part, method, target) for part in parts]
        else:
            found += _data_donors(path, target, method, known, console)
    named: dict[str, DonorConfig] = {}
    roots: set[str] = set()
    for donor in found:
        if donor.root in roots:
            raise DataError(f"The donor {donor.root} is given twice: its defects would count twice. Leave one out.")
        roots.add(donor.root)
        name, number = donor.name, 1
        while name in named:
            number += 1
            name = f"{donor.name}-{number}"
        named[name] = dataclasses.replace(donor, name=name)
    return tuple(named.values())


def _data_donors(
    path: Path, target: Category, method: str, known: Mapping[str, Path], console: Console
) -> list[DonorConfig]:
    categories = open_categories(path)
    found, refused = [], []
    for category in categories:
        root = str(category.root.resolve())
        normals = [*category.normals, *category.validation, *(s.path for s in category.test if not s.anomalous)]
        anomalies = [sample.path for sample in category.test if sample.anomalous]
        if not normals or not anomalies:
            which = "defective images (test/KIND)" if normals else "good images"
            refused.append(
                f"{category.root} has no {which}: a donor needs good and defective ones.\n"
                "Name another one, or leave out --donor to learn from good images alone."
            )
        elif _shares_images(target, {image.resolve() for image in (*normals, *anomalies)}):
            refused.append(_own_donor(str(category.root)))
        elif root in known:
            found.append(_transferred_donor(known[root], method, target))
        else:
            found.append(
                DonorConfig(
                    name=category.name,
                    path=root,
                    root=root,
                    normals=tuple(image.relative_to(category.root).as_posix() for image in normals),
                    anomalies=tuple(image.relative_to(category.root).as_posix() for image in anomalies),
                )
            )
    if not found:
        raise DataError(refused[0])
    for line in refused:
        console.say(f"Not a donor: {line.splitlines()[0]}")
    return found


def _shares_images(target: Category, paths: set[Path], contents: set[str] | None = None) -> bool:
    """Tell whether an image of the target is among others: by its path, or, a link or a copy, by its content.

    Args:
        target: whose images, all of them, are looked for.
        paths: of the others.
        contents: of the others, from `find_contents`; read from `paths` where None.
    """
    images = {*target.normals, *target.validation, *(sample.path for sample in target.test)}
    if paths & {image.resolve() for image in images}:
        return True
    if contents is None:
        contents = set(find_contents(paths, {image.stat().st_size for image in images if image.is_file()}))
    sizes = {int(content.partition("-")[0]) for content in contents}
    return not contents.isdisjoint(find_contents(images, sizes))


def _own_donor(root: str) -> str:
    return (
        f"{root} shares images with --data: a product cannot be its own donor.\n"
        "Its test anomalies would be learned from, and every figure measured on them would be wrong."
    )


def _transferred_donor(path: Path, method: str, target: Category) -> DonorConfig:
    path = path / TRANSFERRED if path.is_dir() else path
    facts = _read_facts(path, method)
    contents = set(schema.parse_json(facts.get("contents", "[]")))
    if _shares_images(target, {Path(image) for image in schema.parse_json(facts["paths"])}, contents):
        raise DataError(_own_donor(facts["root"]))
    return DonorConfig(facts["source"], str(path.resolve()), facts["root"], fingerprint=facts["fingerprint"])


def _read_facts(path: Path, method: str) -> dict[str, str]:
    """Read what a file says about the donor that it was learned from."""
    try:
        with safe_open(path, framework="numpy") as file:
            facts: dict[str, str] = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} does not hold defects transferred from a donor: {error}") from error
    try:
        for name in ("paths", "contents"):
            schema.read(list[str], schema.parse_json(facts.get(name, "[]")))
    except ValueError as error:
        raise CheckpointError(
            f"{path} does not hold defects transferred from a donor: '{name}' is not a list."
        ) from error
    if absent := {"method", "source", "root", "paths", "fingerprint"} - set(facts):
        raise CheckpointError(f"{path} does not hold defects transferred from a donor: no {', '.join(sorted(absent))}.")
    if facts["method"] != method:
        raise CheckpointError(f"{path} was learned by {facts['method']}, not by {method}; leave it out.")
    if not PathText(one_name=True).allows(name := facts["source"]):
        raise CheckpointError(f"{path} names its donor {name[:100]!a}, which cannot be the name of a folder.")
    return facts


def open_donor(
    config: DonorConfig, run_folder: Path, run: RunConfig, console: Console
) -> tuple[DonorConfig, Donor | Arrays]:
    """Read a donor's images, or what has been learned from it; the configuration comes back with the fingerprint.

    Raises:
        DataError: none of its defective or of its good images can be read.
        CheckpointError: its images, or what was learned from them, are not what the run was started with.
    """
    own = run_folder / "sources" / config.name / TRANSFERRED
    file = own if own.is_file() else Path(config.path)
    if file.is_file():
        fingerprint = _read_facts(file, run.method)["fingerprint"]
        _check(config, fingerprint, run_folder)
        return dataclasses.replace(config, fingerprint=fingerprint), load_file(file)
    if not config.normals:
        raise CheckpointError(
            f"The defects transferred from '{config.name}' are missing: {file}\nRestore the file, or start a new run."
        )
    size = run.config.size
    kinds = []
    for names, what in ((config.normals, "good"), (config.anomalies, "defective")):
        paths = [Path(config.root, name) for name in names]
        frames = load_frames(paths, size, run.pixels, console.track(f"reading {config.name}, {what}"))
        if not len(frames.frames):
            raise DataError(
                f"None of the {len(paths)} {what} images in {config.root} can be read:\n{frames.skipped[0]}"
            )
        for line in frames.skipped[:10]:
            console.say(f"Warning: skipped: {line}")
        kinds.append(frames)
    normals, anomalies = kinds
    fingerprint = f"{normals.fingerprint}-{anomalies.fingerprint}"
    _check(config, fingerprint, run_folder)
    return dataclasses.replace(config, fingerprint=fingerprint), Donor(config.name, normals.frames, anomalies.frames)


def _check(config: DonorConfig, fingerprint: str, run_folder: Path) -> None:
    if config.fingerprint not in ("", fingerprint):
        raise CheckpointError(
            f"The donor '{config.name}' ({config.path}) differs from the one that {run_folder} was started with.\n"
            "Restore the right images or file, or start a new run."
        )


def copy_transferred(config: DonorConfig, run_folder: Path, console: Console) -> None:
    """Copy the defects that another run transferred from a donor into this one, which then no longer needs it."""
    path = run_folder / "sources" / config.name / TRANSFERRED
    if not config.normals and not path.is_file():
        with atomic_file(path) as stream:
            stream.write(Path(config.path).read_bytes())
        console.say(f"Copied: defects transferred from '{config.name}' in {config.path}")


def pretrain(
    method: Method,
    config: DonorConfig,
    donor: Donor,
    run_folder: Path,
    run: RunConfig,
    train: Callable[[Trainable, list[Stage], Path], None],
    console: Console,
) -> Arrays:
    """Transfer the defects of a donor, resumed where it was stopped; write and return them.

    Args:
        method: that learns.
        config, donor: from `open_donor`.
        run_folder, run: what it is learned for.
        train: `edgead.train.fit.fit` with all but its first arguments.
        console: shows progress.
    """
    folder = run_folder / "sources" / config.name
    console.say(f"Learning from '{config.name}': {len(donor.anomalies)} defective, {len(donor.normals)} good images")
    paths = [Path(config.root, name).resolve() for name in config.normals + config.anomalies]
    contents = find_contents(paths)  # now, while they are there
    torch.manual_seed(run.seed)
    pretraining = method.pretraining(donor)
    if (folder / WEIGHTS).is_file():  # stopped after the training, before what follows
        load_weights(pretraining.network, folder)
    else:
        train(pretraining, pretraining.stages, folder)
    transferred = pretraining.transferred()
    if is_main():
        plots.draw_rows(pretraining.picture(), folder / PICTURE)
        facts = {
            "method": run.method,
            "source": config.name,
            "root": config.root,
            "paths": json.dumps([str(path) for path in paths]),
            "contents": json.dumps(sorted(contents)),
            "fingerprint": config.fingerprint,
            "images": f"{len(donor.anomalies)} defective, {len(donor.normals)} good",
            "config": json.dumps(run.stored_config),
            "seed": str(run.seed),
            "created": run.created,
            "edgead": run.versions["edgead"],
        }
        with atomic_file(folder / TRANSFERRED) as stream:
            stream.write(save(transferred, facts))
    return transferred


def find_transferred(run_folder: Path) -> dict[str, Path]:
    """Return where a run has what it transferred: the folder of a donor's images ↦ the file."""
    run = load_run_config(run_folder)
    files = {donor.root: run_folder / "sources" / donor.name / TRANSFERRED for donor in run.donors}
    return {root: file for root, file in files.items() if file.is_file()}


def load_transferred(run_folder: Path, run: RunConfig) -> tuple[Arrays, ...]:
    """Read what a run has learned from all its donors.

    Raises:
        CheckpointError: it has not learned from all of them yet, or a file is damaged or another run's.
    """
    transferred: list[Arrays] = []
    for config in run.donors:
        path = run_folder / "sources" / config.name / TRANSFERRED
        if not path.is_file():
            raise CheckpointError(
                f"The run in {run_folder} has not learned from its donor '{config.name}' yet.\n"
                f"Resume with:  edgead train --resume --out {typed(run_folder)}"
            )
        _check(config, _read_facts(path, run.method)["fingerprint"], run_folder)
        transferred.append(load_file(path))
    return tuple(transferred)
