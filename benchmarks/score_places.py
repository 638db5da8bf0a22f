"""Where on a picture its score comes from: on the defect, on the part, or on what lies beside it.

    python benchmarks/score_places.py BUNDLE DATA --out FILE

For each labelled picture of a bundle with one map: the score, whether the map's highest place lies on the labelled
defect (grown by `NEAR` of the side), and whether it lies on the part as `--set foreground=auto` finds it. The second
image AUROC is that of the map's highest value on the part alone. Nothing is chosen by it.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

import edgead
from edgead import metrics
from edgead.datasets import Sample, open_category, read_labelled_mask
from edgead.files import write_json
from edgead.images import Mask, fit_frame, read_frame
from edgead.machine import describe_measurement
from edgead.runtime.inspector import Inspector
from edgead.train.foreground import foreground_mask

NEAR = 0.03


def look(inspector: Inspector, sample: Sample) -> dict[str, Any]:
    """Return what is to be known about a picture."""
    frame = read_frame(sample.path)
    result = inspector.inspect(frame)
    found, defect = result.anomaly_map, read_labelled_mask(sample, result.frame_size, inspector.size)
    assert found is not None
    part = foreground_mask(fit_frame(frame, inspector.size))
    place = np.unravel_index(int(found.argmax()), found.shape)
    return {
        "picture": sample.path.name,
        "anomalous": sample.anomalous,
        "score": float(result.score),
        "part_score": float(found[part].max()),
        "on_part": bool(part[place]),
        "on_defect": None if defect is None else bool(grown(defect)[place]),
    }


def grown(mask: Mask) -> Mask:
    """Return a mask grown on all sides."""
    side = 2 * round(NEAR * max(mask.shape)) + 1
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8))) > 0


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return counts and both image AUROCs."""
    labels = np.array([row["anomalous"] for row in rows])

    def auroc(key: str) -> float:
        return round(metrics.rank(labels, np.array([row[key] for row in rows])).auroc(), 4)

    bad = [row for row in rows if row["anomalous"]]
    return {
        "good": int((~labels).sum()),
        "defective": len(bad),
        "highest_place_on_defect": sum(bool(row["on_defect"]) for row in bad),
        "highest_place_on_part": sum(row["on_part"] for row in bad),
        "image_auroc": auroc("score"),
        "image_auroc_of_the_part_alone": auroc("part_score"),
    }


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(bundle: Path, data: Path, out: Path) -> None:
    """Look at all labelled pictures and write the results."""
    head = describe_measurement("benchmarks/score_places.py")
    with edgead.load(bundle, engine="onnxruntime") as inspector:
        rows = [look(inspector, sample) for sample in open_category(data).test]
        config = inspector.bundle.manifest.config
    summary = summarise(rows)
    record = {
        **asdict(head),
        "config": config,
        **summary,
        "pictures": sorted(rows, key=lambda row: -float(row["score"])),
    }
    write_json(out, record)
    click.echo(summary)


if __name__ == "__main__":
    main()
