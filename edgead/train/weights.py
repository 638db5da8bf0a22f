"""Weights in files of others: read without running what is in them, and compared name by name."""

from __future__ import annotations

import mmap
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from edgead.errors import CheckpointError
from edgead.files import atomic_file
from edgead.npz import has_many_members

MOST_MEMBERS = 100_000
"""Files in an archive: PyTorch writes one for each tensor."""
DEEPEST = 50
"""Tables inside tables; one that holds itself has no end."""
SHOWN = 3
"""Differing names that an error lists of each kind."""
INSIDE = ("state_dict", "model_state_dict")
"""Where training programs put the weights when they save other things beside them."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a table of weights, ``.safetensors`` or what ``torch.save`` wrote. A table of tables becomes one.

    Raises:
        CheckpointError: not there, damaged, or a pickled object, which is never loaded.
    """
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is not a file.")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        _refuse_compressed(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd files
            values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist.") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, error)) from error
    except CheckpointError:
        raise
    except Exception as error:  # torch's readers raise whatever a damaged file leads them to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} cannot be read as weights: {reason}") from error
    for name in INSIDE:
        if isinstance(values, Mapping) and isinstance(values.get(name), Mapping):
            values = values[name]
    weights = dict(_flatten(values)) if isinstance(values, Mapping) else {}
    if not weights:
        raise CheckpointError(f"{path} is not a plain table of weights (a state dict).")
    if all(name.startswith("module.") for name in weights):  # torch's DataParallel
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    for name, value in weights.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_complex():
            raise CheckpointError(
                f"{path} does not hold '{name}' as plain numbers: it is sparse, quantised, complex or without values."
            )
    return weights


def _refuse_compressed(path: Path) -> None:
    """PyTorch stores its archives as they are. A compressed one may unpack to any size."""
    if zipfile.is_zipfile(path):
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if has_many_members(content, MOST_MEMBERS):
                raise CheckpointError(f"{path} is an archive of more than {MOST_MEMBERS} files. It is refused.")
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > path.stat().st_size:
            raise CheckpointError(f"{path} is a compressed archive, which PyTorch does not write. It is refused.")


def _refusal(path: Path, error: Exception) -> str:
    found = re.search(r"(?:GLOBAL|Unsupported class|global) `?([\w.]+)", str(error))
    if found is None:
        return f"{path} cannot be read as weights: it is damaged, or not a PyTorch file."
    return (
        f"{path} is a pickled Python object ({found.group(1)}), not a table of weights. Loading it could run any "
        "program, so it is refused.\nIn the code that made it, where you trust the file, save its weights:\n"
        f"  model = torch.load({path.name!r}, map_location='cpu', weights_only=False); "
        f"torch.save(model.state_dict(), '{path.stem}_weights.pth')"
    )


def _flatten(values: Mapping[Any, Any], prefix: str = "") -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for name, value in values.items():
        if isinstance(value, Tensor):
            found.append((f"{prefix}{name}", value))
        elif isinstance(value, Mapping) and prefix.count(".") < DEEPEST:
            found += _flatten(value, f"{prefix}{name}.")
    return found


def refuse_differences(what: str, **differences: set[str]) -> None:
    """Raise an error that names what differs, a few of each kind; do nothing where nothing does.

    Raises:
        CheckpointError: some set is not empty.
    """
    listed = [
        f"{kind}: {', '.join(sorted(keys)[:SHOWN])}" + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")
        for kind, keys in differences.items()
        if keys
    ]
    if listed:
        raise CheckpointError(f"{what}.\n{'; '.join(listed)}.")


def load_exactly(what: str, network: torch.nn.Module, values: Mapping[str, Tensor]) -> None:
    """Load values into a network. There must be one for each of its tensors, of the same shape, and no others.

    Args:
        what: beginning of the error.
        network: is changed.
        values: name ↦ tensor.

    Raises:
        CheckpointError: names or shapes differ.
    """
    own = network.state_dict()
    refuse_differences(
        what,
        missing=own.keys() - values.keys(),
        unknown=values.keys() - own.keys(),
        reshaped={name for name in own.keys() & values.keys() if own[name].shape != values[name].shape},
    )
    network.load_state_dict(values)


def pack(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return bytes(save(plain, metadata or None))


def write(path: Path, content: bytes) -> None:
    with atomic_file(path) as stream:
        stream.write(content)
