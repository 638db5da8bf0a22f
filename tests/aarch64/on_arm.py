"""Runs ``edgead inspect``, ``predict`` and ``run`` on a bundle and the folder ``pictures``; prints one JSON object.

One process for all of them: under emulation, importing takes longer than everything else.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from command_line import inside

from edgead.machine import versions

COUNTS = ("passed", "failed", "unknown")


def call(*arguments: str) -> dict[str, Any]:
    """Return what a verb prints as JSON.

    Raises:
        SystemExit: it failed; with what it wrote.
    """
    done = inside(*arguments, "--engine", "onnxruntime", "--json")
    if done.returncode:
        sys.exit(f"edgead {arguments[0]} ended with exit code {done.returncode}: {done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def use(bundle: str) -> dict[str, Any]:
    """Return the agreement on the golden frames, the pictures' scores, and both verbs' counts."""
    started = time.process_time()
    inspected, predicted = call("inspect", bundle), call("predict", bundle, "pictures")
    run = call("run", bundle, "--source", "pictures")
    return {
        "golden": inspected["golden"],
        "scores": [result["score"] for result in predicted["results"]],
        "predict": {name: predicted[name] for name in COUNTS},
        "run": {name: run[name] for name in COUNTS},
        "processor_seconds": round(time.process_time() - started, 1),
    }


if __name__ == "__main__":
    print(json.dumps({"machine": platform.machine(), "versions": versions(), **use(sys.argv[1])}))
