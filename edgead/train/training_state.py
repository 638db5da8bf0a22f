"""The state of an unfinished run: what it is resumed from, and who may train it.

state.safetensors    weights, optimisers and position; replaced in one step, removed at the end
next.safetensors     the next state, for one step: it replaces the other if its loss is good
.lock                held by the process that trains in the folder
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from edgead import schema
from edgead.errors import CheckpointError
from edgead.files import file_lock, remove_unfinished
from edgead.schema import Within
from edgead.train.method import Trainable
from edgead.train.weights import load_exactly, pack, write

STATE, NEXT = "state.safetensors", "next.safetensors"
LOCK = ".lock"


@contextmanager
def sole_trainer(folder: Path) -> Iterator[None]:
    """Keep a second process out of a run's folder; the system lets it in when this one is gone.

    What a killed process was writing in the folder is deleted.

    Raises:
        CheckpointError: another process is training there.
    """

    def refuse() -> None:
        raise CheckpointError(f"Another process is training in {folder}. Wait for it, or stop it.")

    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / LOCK, refuse):
        remove_unfinished(folder)
        yield


@dataclass(frozen=True)
class State:
    """Where a run stopped: `step` steps of the stage with number `stage` are done, which began with `first_loss`."""

    stage: Annotated[int, Within(0)]
    step: Annotated[int, Within(0)]
    scaler: dict[str, float]
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
    write(folder / NEXT, pack(tensors, {name: json.dumps(value) for name, value in vars(state).items()}))


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
            found = {name: schema.parse_json(value) for name, value in file.metadata().items()}
        state = schema.read(State, {name: value for name, value in found.items() if value == value})  # without NaN
        tensors = load_file(path)
        network = {name.removeprefix("network/"): value for name, value in tensors.items() if name[0] == "n"}
    except (OSError, SafetensorError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be resumed from: {error}\nRestore it, or delete it to start this training again."
        ) from error
    what = f"{path} is of another network. Restore the right file, or delete it to start this training again"
    load_exactly(what, trainable.network, network)
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
