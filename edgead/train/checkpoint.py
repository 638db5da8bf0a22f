"""A training run on disk: a folder that is its own checkpoint.

config.json          what is trainable, on what, with which seed and versions
metrics.jsonl        losses of every step
state.safetensors    weights, optimiser and position while training; replaced in one step, gone at the end
next.safetensors     the next state, for one step: it replaces the other if its loss is good
weights.safetensors  the trained weights; their presence means that the run is finished
curves.png           losses over steps
synthetic.png        examples of what the network was trained on
.lock                held by the process that trains here
sources/NAME         what was learned from another product first; see `edgead.train.donors`
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file, save
from torch import Tensor

from edgead import schema
from edgead.depth import DepthRange
from edgead.errors import CheckpointError, ConfigError
from edgead.files import atomic_file, file_lock, write_json
from edgead.images import PixelFormat
from edgead.manifest import ImageSizes
from edgead.schema import SchemaError, Within, left_out, stored_as
from edgead.train.method import Method, MethodConfig, Trainable, read_config, reconfigure, steps_in_epoch
from edgead.train.methods import get_method

CONFIG, METRICS, STATE, WEIGHTS = "config.json", "metrics.jsonl", "state.safetensors", "weights.safetensors"
NEXT = "next.safetensors"
CURVES = "curves.png"
LOCK = ".lock"


@dataclass(frozen=True)
class DonorConfig:
    """Another product that a run learns from.

    Attributes:
        name: of the product; its folder below ``RUN/sources``.
        path: folder of its images, or the file with what another run has learned from it.
        root: folder of its images.
        normals, anomalies: file names relative to `root`; empty where what was learned is taken up.
        fingerprint: SHA-256 over good and over defective images.
    """

    name: str
    path: str
    root: str
    normals: tuple[str, ...] = ()
    anomalies: tuple[str, ...] = ()
    fingerprint: str = ""


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
        textures_fingerprint: SHA-256 over them; empty where there are none, or in runs of before it was kept.
        bit_depth: significant bits of 16-bit images.
        seed, mixed_precision: of the training.
        created: UTC, ISO 8601.
        versions: of the packages that matter.
        weights: file of a backbone's weights, or None for its publisher's download.
        donors: other products whose real defects are learned from.
        masks_fingerprint, held_out_masks_fingerprint: SHA-256 over the foreground masks of the training images and of
            those held out; empty where there are none, the second in runs of before it was kept, too.
        depth_range: of the training images' depth, see `edgead.depth`; None where none is learned from.
        epoch_images: good images that an epoch of the schedule counts: all of them, as published, those held out too.
            0 in runs of before it was kept, which counted the images trained on alone.
        devices: what it was trained on, in order.
        departures: what of the published training is done otherwise, in words, when it was started.
        choice: why this preset was taken, where nobody named one.
        stage_precisions: stage's name ↦ ``"no"`` or ``"bf16"``, as chosen at the start for the precision ``"auto"``.
        budget: time that the training was given, as ``30m``; None where its schedule was not scaled to any.
        published_steps: optimiser steps of the schedule that was scaled to the budget, once that was done.
        changes: settings that were changed when a stopped run went on, as ``NAME BEFORE -> AFTER``; which step had
            which learning rate stands in metrics.jsonl.
        weights_sha256: of the finished run's weights; None in runs of before it was kept.
        image_sizes: of the training images; None in runs of before they were kept.
        copies: good images that show, pixel for pixel, what another one shows: they are on its side of the split.
        near_copies: held-out images that look almost like one that is trained on. Both are None in runs of before
            they were counted.
    """

    method: str
    preset: str
    config: MethodConfig
    category: str
    data: str
    normals: tuple[str, ...]
    held_out: tuple[str, ...]
    fingerprint: str
    held_out_fingerprint: str
    textures: str | None
    bit_depth: Annotated[int, Within(9, 16)]
    seed: int
    mixed_precision: str = stored_as("precision")
    created: str
    versions: dict[str, str]
    weights: str | None = None
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

    @property
    def steps_in_epoch(self) -> Fraction:
        """Optimiser steps in an epoch. A run of before `epoch_images` keeps its own, which are no whole number."""
        if self.epoch_images:
            return steps_in_epoch(self.epoch_images, self.config.batch_size)
        return Fraction(len(self.normals), self.config.batch_size)

    copies: int | None = left_out()
    near_copies: int | None = left_out()

    @property
    def precisions(self) -> str | dict[str, str]:
        """What `edgead.train.fit.fit` takes; ``"auto"`` where it has not been chosen yet."""
        return self.mixed_precision if self.stage_precisions is None else self.stage_precisions

    @property
    def pixels(self) -> PixelFormat:
        """How images become frames."""
        return PixelFormat(self.bit_depth, self.depth_range)

    def fits_held_out_masks(self, fingerprint: str) -> bool:
        """Tell whether the foreground masks of the images held out are those that the run was started with."""
        return self.held_out_masks_fingerprint in ("", fingerprint)


@contextmanager
def sole_trainer(folder: Path) -> Iterator[None]:
    """Keep a second process out of a run's folder; the system lets it in when this one is gone.

    Raises:
        CheckpointError: another process is training there.
    """

    def refuse() -> None:
        raise CheckpointError(f"Another process is training in {folder}. Wait for it, or stop it.")

    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / LOCK, refuse):
        yield


def save_run_config(folder: Path, run: RunConfig) -> None:
    """Write `config.json`."""
    write_json(folder / CONFIG, schema.write(run))


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
        raise CheckpointError(f"{path} is damaged: {error}. Train again, or name another run.") from error


def _read_run_config(values: Any) -> RunConfig:
    """Read everything but the method's configuration, which the method's dataclass reads."""
    if not isinstance(values, dict) or not isinstance(values.get("config"), dict):
        raise SchemaError("it has no table 'config'")
    run = schema.read(RunConfig, {**values, "config": {}})
    try:
        return dataclasses.replace(run, config=read_config(get_method(run.method), values["config"]))
    except (SchemaError, ConfigError) as error:
        raise CheckpointError(f"The run's configuration does not fit {run.method}: {error}") from error


def is_finished(folder: Path) -> bool:
    """Tell whether a run has its final weights."""
    return (folder / WEIGHTS).is_file()


def find_runs(root: Path, method: str, finished: bool, category: str | None = None) -> list[Path]:
    """Return the runs of a method below `root`, newest first."""
    found = []
    for path in root.glob(f"**/{CONFIG}"):
        folder = path.parent
        try:
            run = load_run_config(folder)
        except CheckpointError:
            continue
        if run.method == method and is_finished(folder) == finished and category in (None, run.category):
            found.append((run.created, folder))
    return [folder for _, folder in sorted(found, reverse=True)]


def save_weights(folder: Path, trainable: Trainable) -> None:
    """Write the final weights; the state that was needed to go on is removed.

    Their hash goes into the run's configuration first: a finished run has both.
    """
    content = _pack(dict(trainable.network.state_dict()), {})
    if (folder / CONFIG).is_file():  # not what was learned from a donor, which is no run
        run = load_run_config(folder)
        save_run_config(folder, dataclasses.replace(run, weights_sha256=hashlib.sha256(content).hexdigest()))
    _write(folder / WEIGHTS, content)
    (folder / STATE).unlink(missing_ok=True)
    drop_next_state(folder)


def load_method(folder: Path, settings: Iterable[str] = ()) -> tuple[RunConfig, Method]:
    """Read a finished run and rebuild its method with the trained weights.

    Args:
        folder: of the run.
        settings: ``name=value`` overrides of what is open at export; they go into the run's configuration too.

    Raises:
        CheckpointError: not a finished run, damaged, or weights that do not fit its configuration.
        ConfigError: a setting that does not exist, makes no sense or was decided in training.
    """
    run = load_run_config(folder)
    run = dataclasses.replace(run, config=reconfigure(get_method(run.method), run.config, settings, "export"))
    if not is_finished(folder):
        raise CheckpointError(f"The run in {folder} is not finished. Go on with:  edgead train --resume --out {folder}")
    method = build_method(run)
    load_weights(method.network, folder, run.weights_sha256)
    return run, method


def load_weights(network: torch.nn.Module, folder: Path, sha256: str | None = None) -> None:
    """Give a network its trained weights.

    Args:
        network: is changed.
        folder: of the run.
        sha256: of the file, where it is known.

    Raises:
        CheckpointError: the file is damaged, another run's or another network's.
    """
    path = folder / WEIGHTS
    try:
        content = path.read_bytes()
        if sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise CheckpointError(
                f"{path} is damaged, or another run's: its SHA-256 is not the one in {CONFIG}.\n"
                "Bring the right file back, or train again."
            )
        network.load_state_dict(load(content))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not hold the weights of this run: {error}") from error


def build_method(run: RunConfig) -> Method:
    """Make the method of a run, with weights drawn from its seed."""
    torch.manual_seed(run.seed)
    return get_method(run.method)(run.config)


@dataclass(frozen=True)
class State:
    """Where a run stopped: `step` steps of the stage with number `stage` are done, which began with `first_loss`."""

    stage: Annotated[int, Within(0)]
    step: Annotated[int, Within(0)]
    scaler: dict[str, Any]
    first_loss: float = math.nan


def save_next_state(
    folder: Path, trainable: Trainable, optimizers: Sequence[torch.optim.Optimizer], state: State
) -> None:
    """Write weights, each optimiser and position as one file that is whole or not there at all.

    It counts once `keep_next_state` has put it into the place of the last one.
    """
    tensors = {f"network/{name}": value for name, value in trainable.network.state_dict().items()}
    for turn, optimizer in enumerate(optimizers):
        for index, values in optimizer.state_dict()["state"].items():
            tensors.update({f"optimizer/{turn}/{index}/{name}": value for name, value in values.items()})
    _write(folder / NEXT, _pack(tensors, {name: json.dumps(value) for name, value in vars(state).items()}))


def keep_next_state(folder: Path) -> None:
    """Replace the saved state by the next one, if there is one."""
    with suppress(FileNotFoundError):
        os.replace(folder / NEXT, folder / STATE)


def drop_next_state(folder: Path) -> None:
    """Remove the next state, if there is one, and what a kill left half-written: the last one stays."""
    for path in (folder / NEXT, *folder.glob(f".{NEXT}.*")):
        path.unlink(missing_ok=True)


def load_state(folder: Path, trainable: Trainable) -> tuple[State, dict[str, Tensor]] | None:
    """Restore the network of an unfinished run.

    Returns:
        The position and the optimisers' tensors, or None where nothing was saved yet.

    Raises:
        CheckpointError: the file is damaged or does not fit the network.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: json.loads(value) for name, value in file.metadata().items()}
        state = schema.read(State, {name: value for name, value in found.items() if value == value})  # without NaN
        tensors = load_file(path)
        network = {name.removeprefix("network/"): value for name, value in tensors.items() if name[0] == "n"}
        trainable.network.load_state_dict(network)
    except (OSError, SafetensorError, RuntimeError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be resumed from: {error}\nBring it back, or delete it: what was trained then begins anew."
        ) from error
    rest = {name.removeprefix("optimizer/"): value for name, value in tensors.items() if name[0] == "o"}
    return state, rest


def load_position(folder: Path) -> tuple[int, int]:
    """Return the stage and its steps that are done in an unfinished run; zeros where nothing is, or is readable."""
    try:
        with safe_open(folder / STATE, framework="pt") as file:
            metadata = file.metadata()
        return int(metadata["stage"]), int(metadata["step"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return 0, 0


def restore_optimizer(optimizer: torch.optim.Optimizer, turn: int, tensors: Mapping[str, Tensor]) -> None:
    """Give a new optimiser the state of its saved one, each tensor in the memory layout of its parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        owner, index, name = key.split("/")
        if int(owner) != turn:
            continue
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _pack(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return bytes(save(plain, metadata or None))


def _write(path: Path, content: bytes) -> None:
    with atomic_file(path) as stream:
        stream.write(content)


def trim_metrics(folder: Path, stages: list[str], state: State) -> None:
    """Drop the lines of metrics.jsonl that lie behind the saved position, and a last line that was cut."""
    path = folder / METRICS
    if not path.is_file():
        return
    kept = []
    before, current = stages[: state.stage], stages[state.stage : state.stage + 1]
    for line in path.read_text(errors="replace").splitlines():
        entry = _parse(line)
        if entry is None:
            continue
        if entry["stage"] in before or (entry["stage"] in current and entry["step"] <= state.step):
            kept.append(line + "\n")
    with atomic_file(path) as stream:
        stream.write("".join(kept).encode())


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl: one dictionary per step with ``stage``, ``step`` (from 1) and the losses.

    Lines that hold something else are left out: they are for looking at only.
    """
    try:
        lines = (folder / METRICS).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [entry for entry in map(_parse, lines) if entry is not None]


def _parse(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
        return None
    losses = (value for name, value in entry.items() if name != "stage")
    right = isinstance(entry.get("stage"), str) and all(isinstance(value, (int, float)) for value in losses)
    return entry if right else None
