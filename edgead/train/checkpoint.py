"""A training run on disk: a folder that is its own checkpoint.

config.json          what is trained, on what, with which seed and versions (`edgead.train.run_config`)
metrics.jsonl        losses of every step (`edgead.train.step_metrics`)
state.safetensors    where an unfinished run is resumed (`edgead.train.training_state`)
weights.safetensors  the trained weights; a run that has them is finished
synthetic.png        examples of what the network was trained on
results.json         scores of held-out images, and how long it took (`edgead.reports.training_page`)
pictures.json        pictures of the page
report.html          the page
sources/NAME         what was learned from a donor (`edgead.train.donors`)
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from edgead.errors import CheckpointError
from edgead.text import typed
from edgead.train.configuration import reconfigure
from edgead.train.method import Method, Trainable
from edgead.train.methods import get_method
from edgead.train.run_config import CONFIG, RunConfig, load_run_config, save_run_config
from edgead.train.training_state import STATE, drop_next_state
from edgead.train.weights import load_exactly, pack, write

WEIGHTS = "weights.safetensors"


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
    """Write the final weights; the state for resuming is removed.

    Their hash goes into the run's configuration first: a finished run has both.
    """
    content = pack(dict(trainable.network.state_dict()), {})
    if (folder / CONFIG).is_file():  # not what was learned from a donor, which is no run
        run = load_run_config(folder)
        save_run_config(folder, dataclasses.replace(run, weights_sha256=hashlib.sha256(content).hexdigest()))
    write(folder / WEIGHTS, content)
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
        raise CheckpointError(
            f"The run in {folder} is not finished. Resume with:  edgead train --resume --out {typed(folder)}"
        )
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
                f"{path} is damaged, or belongs to another run: its SHA-256 differs from that in {CONFIG}.\n"
                "Restore the right file, or train again."
            )
        values = load(content)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} does not hold the weights of this run: {error}") from error
    load_exactly(f"{path} does not hold the weights of this run", network, values)


def build_method(run: RunConfig) -> Method:
    """Make the method of a run, with weights drawn from its seed."""
    torch.manual_seed(run.seed)
    return get_method(run.method)(run.config)
