"""Measure how well what the gate sees without labels predicts what happens to real defects.

    python benchmarks/gate_prediction.py measure RUN… --out FILE
    python benchmarks/gate_prediction.py table FILE… --out TABLE

`measure` takes finished runs whose data has labelled test images. It damages each run's graph in steps that no gate has
limited: INT8 of all layers and weights rounded to fewer bits. A TransFusion with 18 reverse steps gets fewer of them
and nothing else, which would take hours; `--set reverse_steps=1` measures its precisions. For each damaged graph it
writes what can be measured without labels, and what became of image AUROC, AUPRO and verdicts on the test images. Those
are looked at here and chosen by nowhere. `table` reads such files and the older results of this folder,
and writes rank correlations with intervals from resampled runs.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from gate_damage import FULL_STEPS, damaged, unlabelled
from numpy.typing import NDArray

from edgead import metrics
from edgead.console import Console
from edgead.datasets import load_frames, open_category
from edgead.decision import conformal_threshold
from edgead.export.graph.to_onnx import write_onnx
from edgead.export.inference import run_singly
from edgead.export.options import Budget
from edgead.export.quantization.gate import Gate, Labelled, read_labelled, score_labelled
from edgead.machine import describe_measurement
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.train.checkpoint import load_method

FALSE_REJECT = 0.01
ALLOWED = 0.005
"""The gate's own limit: a larger loss of image AUROC or AUPRO, or share of changed verdicts, is harm."""
OUTCOMES = ("image_auroc drop", "aupro drop", "swapped pairs", "flips")
HEAD = "| signal | outcome | pairs, runs | rank correlation | harmful | finds harm | passed, harmful of them |"
FEWEST = 8
"""Rows for a correlation."""


def separation(good: NDArray[np.float32], bad: NDArray[np.float32]) -> float:
    """AUROC of scores."""
    return metrics.rank(np.arange(len(good) + len(bad)) >= len(good), np.concatenate([good, bad])).auroc()


def swapped(before: tuple[NDArray[Any], NDArray[Any]], after: tuple[NDArray[Any], NDArray[Any]]) -> float:
    """Share of the pairs of a good and an anomalous image whose order changes; no AUROC changes by more."""
    first, second = (bad[:, None] > good[None, :] for good, bad in (before, after))
    return float((first != second).mean())


def signals(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """Return what two graphs' outputs on `unlabelled` images tell, other than the gate's measures."""
    old, new = ({kind: outputs[0] for kind, outputs in each.items()} for each in (before, after))
    good_old, good_new = (np.concatenate([each["good"], each["jittered"]]) for each in (old, new))
    found = {"rank loss jittered": 1 - metrics.rank_correlation(good_old, good_new)}
    for kind in ("gate", "varied", "faint"):
        found[f"AUROC drop {kind}"] = separation(good_old, old[kind]) - separation(good_new, new[kind])
        found[f"swapped pairs {kind}"] = swapped((good_old, old[kind]), (good_new, new[kind]))
        found[f"rank loss {kind}"] = 1 - metrics.rank_correlation(old[kind], new[kind])
    pairs = zip(before["jittered"][1], after["jittered"][1])
    found["map rank loss jittered"] = float(np.mean([1 - metrics.rank_correlation(a, b) for a, b in pairs]))
    return found


def outcome(
    before: tuple[dict[str, float], NDArray[Any]],
    after: tuple[dict[str, float], NDArray[Any]],
    limits: tuple[float, float],
    labelled: Labelled,
) -> dict[str, float]:
    """Return what became of the labelled images; limits are each graph's own threshold."""
    (values, scores), (found, damaged_scores) = before, after
    lost = {f"{name} drop": values[name] - found[name] for name in values}
    good = ~labelled.anomalous
    return {
        **lost,
        "flips": float(((scores > limits[0]) != (damaged_scores > limits[1])).mean()),
        "swapped pairs": swapped((scores[good], scores[~good]), (damaged_scores[good], damaged_scores[~good])),
        "images": len(scores),
        "good": int(good.sum()),
    }


def _joined(*outputs: Any) -> Any:
    return tuple(np.concatenate(each) for each in zip(*outputs))


def run_name(folder: Path, settings: Sequence[str]) -> str:
    """Return what a run with settings is called in the results."""
    return "-".join((folder.name, *settings))


def measure(folder: Path, scratch: Path, settings: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Measure all damaged graphs of a run, with settings that are open at export."""
    run, method = load_method(folder, settings)
    held_out = load_frames([Path(run.data, name) for name in run.held_out], method.config.size, run.pixels)
    labelled = read_labelled(open_category(run.data), method.config.size, run.pixels, Console())
    if labelled is None:
        raise click.UsageError(f"{run.data} has no good or no defective labelled images.")
    reference = scratch / "reference.onnx"
    write_onnx(method.export_model(), method.config.size, reference, method.sensitive, method.config.channels)
    images = unlabelled(run, method, held_out)
    engine = OnnxRuntimeEngine(reference)
    gate = Gate(engine, images["good"], images["gate"], None, FALSE_REJECT, Budget(1.0, 1.0), Console())
    count = len(images["good"])
    before: dict[str, Any] = {kind: run_singly(engine, images[kind], iter) for kind in ("jittered", "varied", "faint")}
    before |= {"good": [each[:count] for each in gate.reference], "gate": [each[count:] for each in gate.reference]}
    real = score_labelled(engine, labelled, Console())
    rows = []
    for name, path in damaged(folder, run, method, reference, scratch):
        other = OnnxRuntimeEngine(path)
        after = {kind: run_singly(other, frames, iter) for kind, frames in images.items()}
        limits = tuple(conformal_threshold(each["good"][0], FALSE_REJECT).value for each in (before, after))
        judged = asdict(gate.measure(_joined(after["good"], after["gate"]), limits[1]))
        spread = float(before["good"][1].std())
        row = {
            "run": run_name(folder, settings),
            "method": method.name,
            "category": run.category,
            "variant": name,
            "signals": {
                "gate: flips": judged["flips"],
                "gate: all flips": judged["flips"] + judged["borderline_flips"] / judged["frames"],
                "gate: synthetic AUROC drop": judged["synthetic_auroc_drop"],
                "gate: map error / spread": judged["map_rms_error"] / max(spread, 1e-12),
                **signals(before, after),
            },
            "before": real[0],
            "real": outcome(real, score_labelled(other, labelled, Console()), (limits[0], limits[1]), labelled),
        }
        rows.append(row)
        click.echo(json.dumps(row))
    return rows


@click.group()
def main() -> None:
    """Measure what label-free measures of damage predict."""


@main.command("measure")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--set", "settings", multiple=True, help="NAME=VALUE, a setting that is open at export. Repeatable.")
def measure_command(runs: tuple[Path, ...], out: Path, settings: tuple[str, ...]) -> None:
    """Measure runs and add them to the results file; rows of the same runs are replaced."""
    record = json.loads(out.read_text()) if out.exists() else {"measured": {}, "rows": []}
    for folder in runs:
        with tempfile.TemporaryDirectory() as scratch:
            rows = measure(folder, Path(scratch), settings)
        name = run_name(folder, settings)
        record["rows"] = [row for row in record["rows"] if row["run"] != name] + rows
        record["measured"][name] = asdict(describe_measurement("benchmarks/gate_prediction.py", "torch"))
        out.write_text(json.dumps(record, indent=2) + "\n")


def older(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield rows from the results that other scripts of this folder wrote."""
    precision = json.loads((folder / "precision-xeon-2core.json").read_text())["runs"]
    for run, forms in precision.items():
        before = forms["fp32"]["engines"]["onnxruntime"]
        for name in ("fp16", "int8"):
            after, judged = forms[name]["engines"]["onnxruntime"], forms[name]["gate"].values()
            found = {
                "gate: flips": max(each["flips"] for each in judged),
                "gate: all flips": max(each["flips"] + each["borderline_flips"] / each["frames"] for each in judged),
                "gate: synthetic AUROC drop": max(each["synthetic_auroc_drop"] for each in judged),
            }
            real = {f"{what} drop": before[what] - after[what] for what in ("image_auroc", "aupro")}
            yield _older_row(run, name, found, {**real, "flips": after["flips"] / after["test_images"]})
    steps = json.loads((folder / "transfusion-steps-xeon-2core.json").read_text())["rows"]
    full = {row["run"]: row for row in steps if row["reverse_steps"] == FULL_STEPS}
    for row in steps:
        if row["reverse_steps"] < FULL_STEPS:
            lost = {
                part: full[row["run"]][part]["image_auroc"] - row[part]["image_auroc"]
                for part in ("validation", "test")
            }
            found = {"gate: synthetic AUROC drop": lost["validation"]}
            yield _older_row(row["run"], f"{row['reverse_steps']} steps", found, {"image_auroc drop": lost["test"]})
    for path in sorted(folder.glob("distil-*.json")):
        row = json.loads(path.read_text())
        lost = {what: row["labelled"][what][0] - row["labelled"][what][1] for what in ("image_auroc", "aupro")}
        teacher, student = row["synthetic_auroc"]
        found = {"gate: synthetic AUROC drop": teacher - student}
        yield _older_row(path.stem, "student", found, {f"{what} drop": each for what, each in lost.items()})


def _older_row(run: str, variant: str, found: dict[str, float], real: dict[str, float]) -> dict[str, Any]:
    return {"run": run, "method": run.split("-")[0], "variant": variant, "signals": found, "real": real}


def predictions(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each signal and outcome, how they go together over all rows that have both."""
    names = dict.fromkeys(name for row in rows for name in row["signals"])
    found = []
    for name in names:
        for what in OUTCOMES:
            held = [row for row in rows if name in row["signals"] and what in row["real"]]
            if len(held) >= FEWEST:
                found.append({"signal": name, "outcome": what, **prediction(held, name, what)})
    return found


def prediction(rows: list[dict[str, Any]], name: str, what: str) -> dict[str, Any]:
    """Return how a signal and an outcome go together."""
    runs = np.array([row["run"] for row in rows])
    signal, real = (np.array([row[part][key] for row in rows]) for part, key in (("signals", name), ("real", what)))
    harmful, passed = real > ALLOWED, signal <= ALLOWED
    return {
        "pairs": len(rows),
        "runs": len({*runs}),
        "rank_correlation": resampled(lambda at: metrics.rank_correlation(signal[at], real[at]), runs),
        "harmful": int(harmful.sum()),
        "finds_harm": resampled(lambda at: _auroc(harmful[at], signal[at]), runs),
        "passed": int(passed.sum()),
        "passed_harmful": int((harmful & passed).sum()),
    }


def _auroc(labels: NDArray[np.bool_], values: NDArray[np.float64]) -> float:
    return metrics.rank(labels, values).auroc() if 0 < labels.sum() < len(labels) else float("nan")


def resampled(
    statistic: Callable[[NDArray[np.intp]], float], runs: NDArray[np.str_], rounds: int = 200
) -> list[float | None]:
    """Return a statistic of the rows and its 95 % interval from resampling whole runs: rows of one are no new ones."""
    rng, names = np.random.default_rng(0), np.unique(runs)
    rows = {name: np.flatnonzero(runs == name) for name in names}
    drawn = [statistic(np.concatenate([rows[name] for name in rng.choice(names, len(names))])) for _ in range(rounds)]
    usable = np.array(drawn)[np.isfinite(drawn)]
    values = [statistic(np.arange(len(runs))), *(np.quantile(usable, (0.025, 0.975)) if len(usable) else ())]
    return [round(float(each), 3) if np.isfinite(each) else None for each in values]


@main.command("table")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--older", "folder", type=click.Path(path_type=Path), help="Folder of older results to read too.")
def table_command(files: tuple[Path, ...], folder: Path | None) -> None:
    """Print which signals go with which losses; the last file gets the figures."""
    rows = [row for file in files for row in json.loads(file.read_text())["rows"]]
    groups = {"all": rows, "precision": [row for row in rows if "steps" not in row["variant"]]}
    groups["steps"] = [row for row in rows if "steps" in row["variant"]]
    if folder:
        groups["older"] = list(older(folder))
    record = json.loads(files[-1].read_text())
    record["predictions"] = {name: predictions(group) for name, group in groups.items()}
    record["allowed"] = ALLOWED
    files[-1].write_text(json.dumps(record, indent=2) + "\n")
    for name, found in record["predictions"].items():
        click.echo(f"\n{name}\n\n{HEAD}")
        click.echo("|---|---|---|---|---|---|---|")
        for each in found:
            click.echo(
                f"| {each['signal']} | {each['outcome']} | {each['pairs']}, {each['runs']} "
                f"| {_interval(each['rank_correlation'])} | {each['harmful']} | {_interval(each['finds_harm'])} "
                f"| {each['passed']}, {each['passed_harmful']} |"
            )


def _interval(values: list[float | None]) -> str:
    first, *ends = ("–" if each is None else f"{each:.2f}" for each in values)
    return f"{first} ({' to '.join(ends)})" if ends else first


if __name__ == "__main__":
    main()
