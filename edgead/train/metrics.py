"""The losses of a run, step by step: `metrics.jsonl` in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgead.files import atomic_file
from edgead.train.training_state import State

METRICS = "metrics.jsonl"


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
