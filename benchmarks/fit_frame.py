"""Time `fit_frame` against one INTER_AREA call on the same frames, interleaved, and write the result.

python benchmarks/fit_frame.py benchmarks/results/fit-frame-MACHINE.json
"""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click
import cv2
import numpy as np

from edgead.files import write_json
from edgead.images import fit_frame
from edgead.machine import describe_measurement

CASES = {"1920x1080": (1080, 1920), "2448x2048": (2048, 2448), "1280x720": (720, 1280), "1023x767": (767, 1023)}
TARGET = (256, 256)


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--rounds", default=200)
def main(out: Path, rounds: int) -> None:
    """Write the medians and their ratio to OUT."""
    head, rng = describe_measurement("benchmarks/fit_frame.py"), np.random.default_rng(0)
    rows = []
    for name, shape in CASES.items():
        frame = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        calls = {
            "fit_frame": partial(fit_frame, frame, TARGET),
            "inter_area": partial(cv2.resize, frame, TARGET[::-1], interpolation=cv2.INTER_AREA),
        }
        times: dict[str, list[float]] = {key: [] for key in calls}
        for _ in range(rounds):
            for key, call in calls.items():
                start = time.perf_counter()
                call()
                times[key].append((time.perf_counter() - start) * 1e3)
        medians = {key: float(np.median(values)) for key, values in times.items()}
        rows.append({"frame": name, **{f"{key}_ms": round(value, 3) for key, value in medians.items()}})
        rows[-1]["speedup"] = round(medians["inter_area"] / medians["fit_frame"], 2)
    conditions = {"target": "256x256", "rounds": rounds, "order": "interleaved, medians"}
    write_json(out, {**asdict(head), "conditions": conditions, "rows": rows})
    click.echo("\n".join(str(row) for row in rows))


if __name__ == "__main__":
    main()
