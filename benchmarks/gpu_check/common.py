"""What all steps share: folders, options, result lines and timing."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = Path(os.environ.get("EDGEAD_GPU_FOLDER", str(Path.home() / "edgead_gpu")))
"""Scratch folder on the GPU machine; take.sh unpacks into it."""
SITE = WORK / "site"
"""The Python packages that pack.py packed; on other machines there is no such folder."""
TINY = ("size=64", "reconstructive_width=4", "discriminative_width=4")
"""Settings of a DRAEM for --cpu: right in form, useless in accuracy."""


@dataclass(frozen=True)
class Options:
    """The command line, as the steps see it.

    Attributes:
        cpu: do what is possible without a GPU, to test the scripts themselves.
        out: folder for the results.
        data: folder of one category, in a layout of `edgead.datasets`; drawn sample parts where None.
        weights: file of the ImageNet weights of torchvision's squeezenet1_1; torchvision's download where None.
        textures: folder of pictures that fill synthetic anomalies; procedural textures where None.
        seconds: time budget of the training in the step ``accuracy``.
        batch: its batch size.
    """

    cpu: bool
    out: Path
    data: Path | None
    weights: Path | None
    textures: Path | None
    seconds: float
    batch: int

    @property
    def device(self) -> str:
        return "cpu" if self.cpu else "cuda"

    def images(self) -> Path:
        """Return the folder of images; sample parts are drawn on first use."""
        if self.data is not None:
            return self.data.resolve()
        from edgead.demo import make_parts

        folder = WORK / "parts"
        return folder if folder.is_dir() else make_parts(folder, train=20, good=6, bad=3)


def report(ok: bool = True, **facts: Any) -> None:
    """Print one result as a line of JSON; check.py collects them."""
    print(json.dumps({"ok": bool(ok), **facts}, default=str), flush=True)


def attempt(what: str, call: Callable[[], dict[str, Any]]) -> bool:
    """Report what a call returns, or the error that it raises. Return whether it raised none."""
    started = time.perf_counter()
    try:
        found = call()
    except Exception as error:
        traceback.print_exc()
        text = " ".join(f"{type(error).__name__}: {error}".split())
        report(False, what=what, error=text[:600])
        return False
    report(**{"ok": True, "what": what, "seconds": round(time.perf_counter() - started, 3), **found})
    return True


def milliseconds(call: Callable[[], Any], rounds: int = 50, warm_up: int = 5) -> dict[str, float]:
    """Time a call: median, 99th percentile and minimum, in milliseconds."""
    import numpy as np

    for _ in range(warm_up):
        call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    p50, p99 = np.percentile(times, [50, 99])
    return {"p50": round(float(p50), 4), "p99": round(float(p99), 4), "min": round(min(times), 4)}
