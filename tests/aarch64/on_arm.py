"""Runs ``edgead inspect``, ``predict`` and ``run`` on every bundle of the current folder; prints one JSON object.

One process for all of them: under emulation, importing takes longer than everything else. The pictures are those of
the folder ``pictures``. The bundles may be named instead.
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


def call(*arguments: str) -> Any:
    """Return what a verb prints as JSON, or why it failed."""
    done = inside(*arguments, "--engine", "onnxruntime", "--json")
    return json.loads(done.stdout) if done.returncode == 0 else {"failed": done.stderr.strip() or done.returncode}


def use(bundle: str) -> dict[str, Any]:
    """Inspect a bundle, and decide on the pictures with both verbs."""
    started = time.process_time()
    found = {
        "inspect": call("inspect", bundle),
        "predict": call("predict", bundle, "pictures"),
        "run": call("run", bundle, "--source", "pictures"),
    }
    return {
        **{verb: _facts(answer) for verb, answer in found.items()},
        "cpu_s": round(time.process_time() - started, 1),
    }


def _facts(answer: dict[str, Any]) -> dict[str, Any]:
    """Leave out what depends on the clock and the paths."""
    facts = {key: answer[key] for key in ("failed", "unknown", "passed", "golden") if key in answer}
    if "results" in answer:
        facts["scores"] = [result["score"] for result in answer["results"]]
    return facts


if __name__ == "__main__":
    bundles = sys.argv[1:] or sorted(map(str, Path().glob("*.edgead")))
    about = {"python": platform.python_version(), "machine": platform.machine(), "versions": versions()}
    print(json.dumps({**about, "bundles": {bundle.removesuffix(".edgead"): use(bundle) for bundle in bundles}}))
