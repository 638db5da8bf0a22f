"""Compare edgead with what else runs the same network: whole call, from a BGR frame to score and map in memory.

    python benchmarks/peers/run.py --run RUN --fp32 A.edgead --int8 B.edgead \
        --anomalib-python VENV/bin/python --anomalib FOLDER/weights --out benchmarks/results/peers.json

RUN is a training of DRAEM `paper`, A and B are its bundles; benchmarks/README.md names the commands that make them.
Each contender has a process of its own. They take turns, in another order each round, so that a disturbance of the
machine affects all of them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from processes import Process, measure

from edgead.benchmark.disturbance import describe_state
from edgead.benchmark.uncertainty import latency_ratio
from edgead.files import write_json
from edgead.machine import describe_measurement

FRAME = (480, 640, 3)
REFERENCE = "edgead openvino int8"


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


def row(label: str, process: Process, times: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    """Describe one contender."""
    ratio, interval = latency_ratio(times, reference)
    return {
        "contender": label,
        "p50_ms": round(statistics.median(times), 2),
        "times_slower_than_reference": round(ratio, 3),
        "interval": [round(end, 3) for end in interval] if interval else None,
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
    head, before = describe_measurement("benchmarks/peers/run.py"), describe_state()
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
            **asdict(head),
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
