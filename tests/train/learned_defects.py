"""What the tests of donors share: quick settings, and runs that are stopped or changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from listener import Listener
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from edgead.train import checkpoint
from edgead.train.donors import TRANSFERRED

QUICK = (
    *("size=64", "width=2", "source_width=2", "components=3", "batch_size=2"),
    *("removal_steps=3", "defect_steps=2", "steps=2"),
)


def weights(run: Path) -> bytes:
    return (run / checkpoint.WEIGHTS).read_bytes()


def unfinished(transferred: Path, folder: Path) -> Path:
    run = Path(shutil.copytree(transferred, folder))
    (run / checkpoint.WEIGHTS).unlink()
    return run


class Stopper(Listener):
    """Interrupts the run when a stage begins, or when a line begins with `cue`."""

    def __init__(self, stage: str, cue: str = "never") -> None:
        super().__init__()
        self.stage, self.cue = stage, cue

    def say(self, text: str) -> None:
        super().say(text)
        if text.startswith(self.cue):
            raise KeyboardInterrupt

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[str], None]]:
        if label == self.stage:
            raise KeyboardInterrupt
        yield lambda text: None


def relearned(transferred: Path, path: Path, facts: dict[str, str], **arrays: Any) -> Path:
    """Write the learned file again, with other facts or arrays."""
    file = transferred / "sources" / "tile" / TRANSFERRED
    with safe_open(file, framework="numpy") as learned:
        save_file({**load_file(file), **arrays}, path, {**learned.metadata(), **facts})
    return path
