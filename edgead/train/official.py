"""Checkpoints of the methods' published code, read as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from edgead.errors import CheckpointError
from edgead.train.configuration import configure
from edgead.train.method import Method, Official
from edgead.train.methods import METHODS, get_method
from edgead.train.weights import read_weights, refuse_differences


def find_files(method_class: type[Method], files: Sequence[Path]) -> list[Path]:
    """Return the files of a checkpoint; of a pair, where one is named, the other one too.

    Raises:
        CheckpointError: two files of different pairs.
    """
    found = list(files)
    for pattern, replacement in _official(method_class).partners:
        path = found[0].resolve()
        other = Path(re.sub(pattern, replacement, str(path)))
        if other == path or not other.is_file():
            continue
        if len(found) == 1:
            return [found[0], other]
        if not any(file.resolve() == other.resolve() for file in found):
            raise CheckpointError(
                f"{found[0]} and {found[1]} do not belong together: the partner of {found[0]} is {other}."
            )
    return found


def load_official(method_class: type[Method], files: Sequence[Path], settings: Iterable[str] = ()) -> Method:
    """Make a method with the weights that its published code saved, configured as they were made.

    Args:
        method_class: the method.
        files: all files of the checkpoint, see `find_files`.
        settings: ``NAME=VALUE`` of what the weights do not tell.

    Raises:
        CheckpointError: not weights, another method's, or names and shapes that differ; with what differs.
        ConfigError: a setting that does not exist or makes no sense.
    """
    official = _official(method_class)
    weights: dict[str, Tensor] = {}
    for file in files:
        more = read_weights(file)
        if differ := [name for name in weights.keys() & more.keys() if not torch.equal(weights[name], more[name])]:
            raise CheckpointError(
                f"{file} holds other values of '{min(differ)}' than the file before it.\n"
                "Name the files of one checkpoint."
            )
        weights.update(more)
    named = " and ".join(str(file) for file in files)
    _check_marks(method_class, weights, named)
    method = _build(method_class, weights, settings, named)
    own = method.network.state_dict()
    renamed = {name: value for key, value in weights.items() if (name := official.rename(key)) is not None}
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    refuse_differences(
        f"{named} does not hold the weights of {method_class.card.title} as its published code saves them",
        missing=own.keys() - renamed.keys() - counters - set(official.computed),
        unknown=renamed.keys() - own.keys(),
        reshaped={name for name in own.keys() & renamed.keys() if own[name].shape != renamed[name].shape},
    )
    method.network.load_state_dict(renamed, strict=False)
    return method


def _build(method_class: type[Method], weights: Mapping[str, Tensor], settings: Iterable[str], named: str) -> Method:
    """Make a method with the network that the shapes of some weights describe."""
    try:
        found = _official(method_class).settings(weights)
        return method_class(configure(method_class, "paper", [*found, *settings]))
    except (LookupError, ArithmeticError, ValueError, RuntimeError, MemoryError) as error:  # shapes of another network
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{named} has weights of {method_class.card.title} by their names, but their shapes fit no such network: "
            f"{reason}."
        ) from error


def _official(method_class: type[Method]) -> Official:
    if method_class.official is None:
        raise CheckpointError(f"Checkpoints of {method_class.card.title}'s published code cannot be read yet.")
    return method_class.official


def _check_marks(method_class: type[Method], weights: Mapping[str, Tensor], named: str) -> None:
    marks = _official(method_class).marks
    missing = [mark for mark in marks if mark not in weights]
    if not missing:
        return
    if len(missing) < len(marks):
        raise CheckpointError(
            f"{named} is one part of a checkpoint of {method_class.card.title}; the other part is missing "
            f"('{missing[0]}' is in it).\nName both files."
        )
    guess = _guess(weights)
    if guess is not None:
        raise CheckpointError(
            f"{named} is not a checkpoint of {method_class.card.title}. It looks like one of {guess.card.title}:  "
            f"--method {guess.name}"
        )
    shown = ", ".join(list(weights)[:3])
    raise CheckpointError(
        f"{named} is not a checkpoint of {method_class.card.title}'s published code, nor of another method here.\n"
        f"It holds {len(weights)} weights: {shown} …"
    )


def _guess(weights: Mapping[str, Tensor]) -> type[Method] | None:
    for name in METHODS:
        method_class = get_method(name)
        if method_class.official and any(mark in weights for mark in method_class.official.marks):
            return method_class
    return None
