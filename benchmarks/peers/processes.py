"""Contenders in processes of their own, which take turns."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONTENDER = Path(__file__).resolve().with_name("contender.py")
REST = 0.3
"""Seconds before a turn: threads of the one before stop spinning."""


class Process:
    """A contender that is loaded and warm."""

    def __init__(self, python: str, name: str, model: Path, frame: Path) -> None:
        command = [os.path.abspath(python), str(CONTENDER), name, str(model.resolve()), str(frame)]
        self._name = name
        self._process = subprocess.Popen(  # where it runs, anomalib leaves a cache
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=frame.parent
        )
        self.facts: dict[str, Any] = {}

    def wait(self) -> None:
        """Read what it says when it is ready."""
        self.facts = self._read()

    def time(self, calls: int) -> list[float]:
        """Return the milliseconds of some calls."""
        self._ask(calls)
        found: list[float] = self._read()
        return found

    def score(self, images: Sequence[Path], maps: Path) -> list[float]:
        """Return the scores of image files; write their maps ``[N, 256, 256] float32``."""
        self._ask({"images": [str(image.resolve()) for image in images], "maps": str(maps)})
        found: list[float] = self._read()
        return found

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, asked: Any) -> None:
        assert self._process.stdin
        print(json.dumps(asked), file=self._process.stdin, flush=True)

    def _read(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"The contender {self._name} ended by itself; its reason stands above.")
        return json.loads(line)


def measure(processes: dict[str, Process], rounds: int, calls: int) -> dict[str, list[float]]:
    """Let the contenders take turns; return the milliseconds of their calls."""
    times: dict[str, list[float]] = {label: [] for label in processes}
    order, shuffle = list(processes), random.Random(0).shuffle
    for number in range(rounds):
        shuffle(order)
        for label in order:
            time.sleep(REST)
            times[label] += processes[label].time(calls)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return times
