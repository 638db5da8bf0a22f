"""The losses of a run, step by step: `metrics.jsonl` in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgead.files import atomic_file
from edgead.schema import parse_json
from edgead.train.training_state import State

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class StepMetrics:
    """One line: what a step of a stage measured.

    Attributes:
        stage: its name.
        step: from 1.
        values: each loss, their ``total``, and the ``learning_rate``.
    """

    stage: str
    step: int
    values: Mapping[str, float]

    def to_line(self) -> str:
        """Return the line, with its end."""
        return json.dumps({"stage": self.stage, "step": self.step, **self.values}) + "\n"


def trim_metrics(folder: Path, stages: list[str], state: State) -> None:
    """Remove the steps after the saved position, and a last line that was cut."""
    path = folder / METRICS
    if not path.is_file():
        return
    before, current = stages[: state.stage], stages[state.stage : state.stage + 1]
    kept = [
        line + "\n"
        for line in path.read_text("utf-8", "replace").splitlines()
        if (entry := _parse(line)) and (entry.stage in before or (entry.stage in current and entry.step <= state.step))
    ]
    with atomic_file(path) as stream:
        stream.write("".join(kept).encode())


def read_metrics(folder: Path) -> list[StepMetrics]:
    """Read metrics.jsonl. Lines that hold something else are left out: nothing depends on them."""
    try:
        lines = (folder / METRICS).read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
    return [entry for entry in map(_parse, lines) if entry is not None]


def _parse(line: str) -> StepMetrics | None:
    try:
        entry = parse_json(line)
        stage, step = entry.pop("stage"), entry.pop("step")
    except (ValueError, AttributeError, TypeError, KeyError):
        return None
    right = isinstance(stage, str) and isinstance(step, int)
    right = right and all(isinstance(value, (int, float)) for value in entry.values())
    return StepMetrics(stage, step, entry) if right else None
