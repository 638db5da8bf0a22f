"""Experiment trackers, through accelerate's: losses, learning rates and held-out figures, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgead.errors import ConfigError, require_installed, unknown

TRACKERS = ("tensorboard", "mlflow")
"""Each is also the name of its package and of the extra that installs it."""
EVERY = 1.0
"""Seconds between two steps that are logged: a tracker on another machine takes its time for each."""


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that does not exist, or is not installed.

    Raises:
        ConfigError: unknown.
        MissingDependencyError: its package is missing.
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(unknown("tracker", name, TRACKERS))
        require_installed((name,), name)


class Tracking:
    """Logs the figures of one run. Its trackers start with the first figures, when accelerate knows the processes.

    Args:
        names: of `TRACKERS`; none of them logs nothing.
        folder: of the run. TensorBoard writes to its folder ``tensorboard``; MLflow to its tracking server, as a run
            with the folder's name in the experiment ``edgead``.
    """

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self._names, self._folder = names, folder
        self._trackers: list[Any] | None = None
        self._logged_at = -EVERY

    def log_step(self, stage: str, step: int, figures: Mapping[str, float], last: bool) -> None:
        """Log the figures of a training step under ``STAGE/NAME``: at most once in `EVERY` seconds, and the last."""
        now = time.monotonic()
        if self._names and (last or now - self._logged_at >= EVERY):
            self._logged_at = now
            self.log({f"{stage}/{name}": value for name, value in figures.items()}, step)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Log figures."""
        if self._trackers is None:
            self._trackers = [self._start(name) for name in self._names]
        for tracker in self._trackers:
            tracker.log(dict(figures), step=step)

    def _start(self, name: str) -> Any:
        from accelerate.tracking import MLflowTracker, TensorBoardTracker

        if name == "tensorboard":
            tracker = TensorBoardTracker("tensorboard", self._folder)
        else:
            tracker = MLflowTracker("edgead", run_name=self._folder.name)
        tracker.start()
        return tracker

    def close(self) -> None:
        """End the trackers' runs."""
        for tracker in self._trackers or ():
            tracker.finish()
