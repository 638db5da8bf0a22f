"""The page of a training: its threshold in words, losses, what it was trained on, and what it sees."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from edgead import schema
from edgead.decision import Threshold
from edgead.machine import Machine
from edgead.reports.charts import Chart, curves, histogram
from edgead.reports.page import DASH, RESULTS, describe_device, read_page_results, read_results, render, when
from edgead.reports.pictures import Group
from edgead.schema import OneOf, Within, left_out

CONFIG, METRICS, SOURCES = "config.json", "metrics.jsonl", "sources"
VERSION = 1
RATE = "learning_rate"


@dataclass(frozen=True, kw_only=True)
class TrainingResults:
    """The content of a run's results.json; everything else about the run is in its config.json.

    Attributes:
        finished: UTC, ISO 8601.
        seconds: of the training, from the start or the last resumption.
        report_seconds: of pictures and scores for the page, part of them within `seconds`.
        machine: that trained it.
        names, scores: held-out good images that were scored with the trained network, and their scores.
        held_out: number of all held-out good images.
        threshold: from these scores with a false-reject bound of 1 %; `edgead export` sets the bundle's own.
    """

    finished: str
    seconds: float
    report_seconds: float
    machine: Machine
    names: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    held_out: int = 0
    threshold: Threshold | None = left_out()
    kind: Annotated[str, OneOf(("training",))] = "training"
    schema: Annotated[int, Within(VERSION, VERSION)] = VERSION


def is_run(folder: Path) -> bool:
    """Tell whether a folder is a training run."""
    return (folder / CONFIG).is_file() and (folder / METRICS).is_file()


def training_page(folder: Path, pictures: Sequence[Group]) -> str:
    """Return the page of a run, finished or not.

    Raises:
        DataError: one of its files is damaged.
    """
    run, results = read_results(folder / CONFIG), _results(folder)
    stages = _stages(folder / METRICS)
    for path in sorted(folder.glob(f"{SOURCES}/*/{METRICS}")):
        stages |= {f"{path.parent.name}: {name}": series for name, series in _stages(path).items()}
    config = run.get("config") or {}
    return render(
        "training.html",
        kind="training",
        title=f"{run.get('method')} on {run.get('category')}",
        key=_key(run, results, stages),
        started=run.get("created"),
        finished=results and results.finished,
        words=_words(results),
        scores=_score_chart(results),
        highest=_highest(results),
        charts=[_loss_chart(name, series) for name, series in stages.items()],
        departures=list(run.get("departures") or ()),
        changes=list(run.get("changes") or ()),
        pictures=pictures,
        config=[(name, json.dumps(value, ensure_ascii=False)) for name, value in config.items()],
        facts=_facts(run, results),
        footer="Rebuild this page with: edgead report FOLDER",
    )


def _results(folder: Path) -> TrainingResults | None:
    """Read results.json; None for a run that is not finished, or older than the file."""
    path = folder / RESULTS
    if not path.is_file():
        return None
    return read_page_results(TrainingResults, path, "Delete it to build the page without it.")


Stages = dict[str, dict[str, list[tuple[float, float]]]]
"""Stage ↦ name of a loss ↦ (step, value)."""


def _stages(path: Path) -> Stages:
    """Read the losses of every step. Lines that hold something else are left out."""
    found: Stages = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = schema.parse_json(line)
            stage, step = str(entry.pop("stage")), float(entry.pop("step"))
            values = {str(name): float(value) for name, value in entry.items() if name != RATE}
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        for name, value in values.items():
            if math.isfinite(step) and math.isfinite(value):
                found.setdefault(stage, {}).setdefault(name, []).append((step, value))
    return found


def _loss_chart(stage: str, series: Mapping[str, list[tuple[float, float]]]) -> Chart:
    named = dict(sorted(series.items(), key=lambda item: item[0] != "total"))
    if len(named) == 2 and "total" in named:  # the only loss is the total
        named = {"total": named["total"]}
    return curves(f"Stage “{stage}”: loss over the steps, means of neighbours", named, "step", "loss")


def _key(run: Mapping[str, Any], results: TrainingResults | None, stages: Stages) -> list[tuple[str, str]]:
    steps = sum(int(max(step for step, _ in next(iter(series.values())))) for series in stages.values())
    found = [
        ("method, preset", f"{run.get('method')} {run.get('preset')}"),
        ("good images trained on", f"{len(run.get('normals') or ())}"),
        ("held out for the threshold", f"{len(run.get('held_out') or ())}"),
        ("optimiser steps", f"{steps:,}"),
    ]
    if results:
        found.append(("duration", _duration(results.seconds)))
    return found


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _words(results: TrainingResults | None) -> list[str]:
    """Say what the threshold and its bound mean."""
    if results is None:
        return ["This run is not finished, or older than this page: its held-out images have no scores here."]
    if results.threshold is None:
        return ["No held-out image was scored. edgead export scores all of them and sets the threshold."]
    counted = len(results.scores)
    part = "" if counted == results.held_out else f" (the first {counted} of {results.held_out}, to save time)"
    text = results.threshold.describe()
    return [
        f"The trained network scored {counted} good images that it was not trained on{part}. A part with a higher "
        "score than the threshold fails.",
        f"{text[0].upper()}{text[1:]}.",
        "edgead export scores all held-out images again with the exported graph, and sets the bundle's threshold with "
        "the bound that you ask for (--false-reject, 1 % by default).",
    ]


def _score_chart(results: TrainingResults | None) -> Chart | None:
    if results is None or not results.scores:
        return None
    rules = {"threshold": results.threshold.value} if results.threshold else {}
    return histogram("Scores of held-out good images", {"held-out good images": results.scores}, "score", rules)


def _highest(results: TrainingResults | None) -> list[list[str]]:
    if results is None:
        return []
    ranked = sorted(zip(results.scores, results.names), reverse=True)[:10]
    return [[name, f"{score:.6g}"] for score, name in ranked]


def _word_of(precision: object) -> str:
    return "float32" if precision == "no" else str(precision or "")  # "no" answers --mixed-precision


def _precision(run: Mapping[str, Any]) -> str:
    """Return the precision of a run, or that of each stage where they differ."""
    given = run.get("stage_precisions") or run.get("precision")
    if not isinstance(given, Mapping):
        return _word_of(given)
    stages = {name: _word_of(value) for name, value in given.items()}
    each = set(stages.values())
    return each.pop() if len(each) == 1 else ", ".join(f"{name}: {value}" for name, value in stages.items())


def _facts(run: Mapping[str, Any], results: TrainingResults | None) -> list[tuple[str, str]]:
    texts = {
        "data": run.get("data"),
        "backbone weights": run.get("weights"),
        "textures": run.get("textures"),
        "seed": run.get("seed"),
        "trained on": ", ".join(run.get("devices") or ()),
        "precision": _precision(run),
        "preset chosen because": run.get("choice"),
        "budget": run.get("budget"),
        "machine": describe_device(schema.write(results.machine)) if results else None,
        "started": when(run.get("created")),
        "finished": when(results.finished) if results else None,
        "time for this page": f"{results.report_seconds:.1f} s" if results else None,
        "versions": ", ".join(f"{name} {version}" for name, version in (run.get("versions") or {}).items()),
    }
    return [(name, str(text)) for name, text in texts.items() if text not in (None, "", DASH)]
