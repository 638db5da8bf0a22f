"""Compare edgead with what else runs the same network: whole call, from a BGR frame to score and map in memory.

    python benchmarks/peers/run.py --run RUN --fp32 A.edgead --int8 B.edgead \
        --anomalib-python VENV/bin/python --anomalib FOLDER/weights --out benchmarks/results/peers.json

RUN is a training of DRAEM `paper`, A and B are its bundles; benchmarks/README.md names the commands that make them.
Each contender has a process of its own. They take turns, in another order each round, so that a disturbance of the
machine affects all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edgead.benchmark.disturbance import describe_state
from edgead.benchmark.uncertainty import ratio_interval
from edgead.files import write_json
from edgead.machine import describe_machine

CONTENDER = Path(__file__).resolve().with_name("contender.py")
FRAME = (480, 640, 3)
REST = 0.3
"""Seconds before a turn: threads of the one before stop spinning."""
REFERENCE = "edgead openvino int8"


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
        assert self._process.stdin
        print(calls, file=self._process.stdin, flush=True)
        found: list[float] = self._read()
        return found

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"The contender {self._name} ended by itself; its reason stands above.")
        return json.loads(line)


def contenders(given: argparse.Namespace) -> dict[str, tuple[str, str, Path]]:
    """Return each contender's label ↦ interpreter, name for `CONTENDER`, model."""
    own, other = sys.executable, given.anomalib_python
    return {
        REFERENCE: (own, "edgead openvino", given.int8),
        "edgead onnxruntime int8": (own, "edgead onnxruntime", given.int8),
        "edgead openvino fp32": (own, "edgead openvino", given.fp32),
        "edgead onnxruntime fp32": (own, "edgead onnxruntime", given.fp32),
        "plain openvino, its default bf16": (own, "plain openvino", given.fp32),
        "plain onnxruntime": (own, "plain onnxruntime", given.fp32),
        "torch eager": (own, "torch eager", given.run),
        "torch compile": (own, "torch compile", given.run),
        "anomalib OpenVINOInferencer": (other, "anomalib openvino", given.anomalib / "openvino" / "model.xml"),
        "anomalib TorchInferencer": (other, "anomalib torch", given.anomalib / "torch" / "model.pt"),
    }


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


def row(label: str, process: Process, times: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    """Describe one contender."""
    ratio, least, most = ratio_interval(times, reference)
    return {
        "contender": label,
        "p50_ms": round(statistics.median(times), 2),
        "times_slower_than_reference": round(ratio, 3),
        "interval": [round(least, 3), round(most, 3)],
        "calls": len(times),
        **process.facts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--run", "--fp32", "--int8", "--anomalib", "--out"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--anomalib-python", required=True, help="Interpreter of the environment with anomalib.")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--calls", type=int, default=3, help="Calls in one turn.")
    given = parser.parse_args()
    before = describe_state()
    with ExitStack() as stack:
        frame = Path(stack.enter_context(tempfile.TemporaryDirectory()), "frame.npy")
        np.save(frame, np.random.default_rng(0).integers(0, 256, FRAME, dtype=np.uint8))
        processes = {}
        for label, (python, name, model) in contenders(given).items():
            print(f"loading {label}", file=sys.stderr)
            processes[label] = Process(python, name, model, frame)
            stack.callback(processes[label].close)
            processes[label].wait()
        times = measure(processes, given.rounds, given.calls)
    rows = [row(label, processes[label], times[label], times[REFERENCE]) for label in processes]
    write_json(
        given.out,
        {
            "command": shlex.join(["python", "benchmarks/peers/run.py", *(Path(each).name for each in sys.argv[1:])]),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": asdict(describe_machine()),
            "state_before": asdict(before),
            "frame": FRAME,
            "reference": REFERENCE,
            "contenders": sorted(rows, key=lambda one: float(one["p50_ms"])),
        },
    )
    for each in sorted(rows, key=lambda one: float(one["p50_ms"])):
        print(f"{each['contender']:30} {each['p50_ms']:8.1f} ms  × {each['times_slower_than_reference']:.2f}")


if __name__ == "__main__":
    main()
