"""Which precision becomes the bundle: the one that was asked for, or the fastest that passes the gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from edgead import schema
from edgead.bundle import MODEL, Bundle, write_bundle
from edgead.console import Console
from edgead.datasets import Frames
from edgead.errors import ConfigError, GateError
from edgead.export.calibration import Calibration, load_images, measure_ranges, warn_of_anomalies
from edgead.export.complete import Assembled, fit_limits
from edgead.export.gate import Budget, Gate, Labelled
from edgead.export.lower import Lowered, Lowering, finite, lower, to_records
from edgead.export.precision import PRECISIONS, Ranges, with_names_and_constants
from edgead.manifest import AttemptRecord, BudgetRecord, CalibrationRecord, FormRecord, GateRecord, ParityRecord
from edgead.runtime.engines import Engine, first_line
from edgead.runtime.engines.auto import ON_GPU, open_agreeing, time_engines, usable_engines
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.runtime.golden import MOST_OF_SPREAD

SLACK = 1.5
"""What an engine may differ, relative to what graphs and engines were seen to differ here."""
LEAST_SLACK = 0.05
"""The same at least, relative to the spread of the golden outputs; docs/adr/0021."""
ROUNDS = 7
"""Timed inferences of each graph on each engine."""
FASTER = 0.95
"""Share of another's time that a precision must stay below to count as faster; less is noise."""
T = TypeVar("T")


@dataclass(frozen=True)
class Trial:
    """What lower precisions are judged with.

    Attributes:
        float32: the float32 graph as a bundle.
        images: good images that INT8 is scaled on, unless others are named.
        source: what they are, for the manifest: ``"training"`` or ``"threshold"`` images.
        seed: draws from them where there are more than wanted.
        held_out: good images that the threshold is fitted to.
        anomalies: ``[M, H, W, 3] uint8``, synthetic.
        labelled: labelled images or None.
        false_reject, budget: what the threshold is fitted to, and what the gate allows.
        console: what shows progress.
    """

    float32: Assembled
    images: Sequence[Path]
    source: str
    seed: int
    held_out: Frames
    anomalies: NDArray[np.uint8]
    labelled: Labelled | None
    false_reject: float
    budget: Budget
    console: Console


@dataclass(frozen=True)
class PrecisionOptions:
    """To which precision an imported model is lowered.

    Attributes:
        precision: one of `edgead.export.precision.PRECISIONS`, or ``"auto"``.
        calibration: what INT8 is scaled on; the threshold's images where it names no other.
        budget: what the gate allows.
        labelled: a data set whose labelled test images the gate judges on too, or None.
    """

    precision: str
    calibration: Calibration = field(default_factory=Calibration)
    budget: Budget = field(default_factory=Budget)
    labelled: Path | None = None

    def __post_init__(self) -> None:
        check_precision(self.precision)


def check_precision(precision: str) -> None:
    """Refuse what is no precision.

    Raises:
        ConfigError: with what there is.
    """
    if precision not in (*PRECISIONS, "auto"):
        raise ConfigError(f"There is no precision '{precision}'. There is: {', '.join(PRECISIONS)}, auto.")


def choose(trial: Trial, precision: str, calibration: Calibration) -> Assembled:
    """Lower the float32 graph, judge, and return the chosen precision in a folder of its own.

    Raises:
        GateError: the one precision that was asked for does not pass.
    """
    on_gpu = "tensorrt" in usable_engines()
    wanted = [precision]
    if precision == "auto":
        # On a CPU the two INT8 precisions are the same graph.
        wanted = ["fp16", "int8", *(["int8-fp16"] if on_gpu else [])]
    elif on_gpu and precision != "fp16":
        wanted.append("fp16")  # to be compared with
    model = with_names_and_constants(onnx.load(trial.float32.folder / MODEL))
    engine = OnnxRuntimeEngine(trial.float32.folder / MODEL)
    console = trial.console
    gate = Gate(
        engine,
        trial.held_out.frames,
        trial.anomalies,
        trial.labelled,
        trial.false_reject,
        trial.budget,
        console,
    )
    images, ranges = _calibrate(trial, engine, gate, calibration)
    candidates = {"fp32": trial.float32}
    for name in wanted:
        try:
            lowered = lower(Lowering(model, ranges, name), gate, trial.float32.golden.frames, console)
            candidates[name] = _complete(trial, gate, lowered, images)
        except GateError as error:
            if name == precision:
                raise
            console.say(str(error).splitlines()[0])
    engine.close()
    speed, failed = _measure_speed(candidates, console)
    _say_failures(console, failed)
    _say_speed(console, speed)
    name = precision
    if precision == "auto":
        name = _fastest(speed)
        console.say(f"auto takes {name}")
    else:
        _warn_of_better(console, speed, name)
    chosen = candidates[name]
    gate_facts = dataclasses.replace(chosen.manifest.gate or GateRecord(), milliseconds_here=speed, failed_here=failed)
    return dataclasses.replace(chosen, manifest=dataclasses.replace(chosen.manifest, gate=gate_facts))


def _calibrate(trial: Trial, engine: Engine, gate: Gate, calibration: Calibration) -> tuple[CalibrationRecord, Ranges]:
    manifest = trial.float32.manifest
    frames = load_images(calibration, trial.images, manifest.size, manifest.pixels, trial.seed, trial.console)
    warn_of_anomalies(frames, engine, gate.threshold, gate.reference[0][gate.normals :], trial.console)
    track = trial.console.track(f"calibrating ({calibration.method})")
    ranges = measure_ranges(trial.float32.folder / MODEL, frames.frames, calibration.method, track)
    source = "folder" if calibration.data else trial.source
    return CalibrationRecord(calibration.method, len(frames.frames), source, frames.fingerprint), ranges


def _complete(trial: Trial, gate: Gate, lowered: Lowered, images: CalibrationRecord) -> Assembled:
    """Write the graphs of a precision and what the manifest says about them."""
    folder = trial.float32.folder.with_name(lowered.precision)
    folder.mkdir()
    for file, model in lowered.files.items():
        onnx.save(model, folder / file)
        try:
            onnx.checker.check_model(folder / file, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise GateError(
                f"{lowered.precision} makes a graph that is not valid ONNX: {first_line(error)}\n"
                "No bundle was written. Take another precision, or report this with the model."
            ) from error
    judgement, allowed = lowered.judgement, trial.float32.manifest.parity
    errors = {name: judgement.worst(name) for name in ("score_error", "map_error")}
    score_outputs, map_outputs = zip(*lowered.golden)
    map_tolerance = allowed.tolerance if allowed.map_tolerance is None else allowed.map_tolerance
    record = GateRecord(
        budget=BudgetRecord(gate.budget.auroc_drop, gate.budget.flips),
        held_out_normals=gate.normals,
        synthetic_anomalies=len(gate.frames) - gate.normals,
        labelled_images=len(gate.labelled.frames) if gate.labelled else 0,
        forms=schema.read(dict[str, FormRecord], judgement.forms),
        layers=lowered.layers,
        handed_back=tuple(lowered.kept),
        sensitivity=to_records(lowered.table),
        attempts=schema.read(tuple[AttemptRecord, ...], finite(lowered.trace)),
    )
    manifest = dataclasses.replace(
        trial.float32.manifest,
        precision=lowered.precision,
        calibration=images,
        parity=ParityRecord(
            frames=len(gate.frames),
            score_error=errors["score_error"],
            map_error=errors["map_error"],
            tolerance=allowed.tolerance + _engines_may_differ(score_outputs, errors["score_error"]),
            map_tolerance=map_tolerance + _engines_may_differ(map_outputs, errors["map_error"]),
        ),
        gate=record,
        **fit_limits(judgement.scores, judgement.peaks, trial.false_reject).fields(),
    )
    summary = f"{lowered.precision}: {record.describe()}; scores differ by at most {errors['score_error']:.2g}"
    return Assembled(folder, manifest, dataclasses.replace(trial.float32.golden, forms=lowered.golden), summary)


def _engines_may_differ(outputs: Sequence[NDArray[np.float32]], error: float) -> float:
    """Return by how much an engine's golden outputs may differ from those of one of the judged graphs.

    Engines round at other places, as the graphs of one precision do among each other. Half of the outputs' spread
    would let an engine pass that gives the same for every frame.

    Args:
        outputs: of each graph.
        error: the gate's largest, of these graphs from the trained network: no engine needs more.
    """
    spread = max(float(np.ptp(values)) for values in outputs)
    apart = max(float(np.abs(values - outputs[0]).max()) for values in outputs)
    return min(SLACK * error, MOST_OF_SPREAD * spread, max(SLACK * apart, LEAST_SLACK * spread))


def _measure_speed(
    candidates: Mapping[str, Assembled], console: Console
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, str]]]:
    """Time each precision on each engine that this machine has a device for, all in turn.

    Returns:
        The median milliseconds, and why an engine was left out, both by precision and engine. Left out is one that
        does not open, or run, or give the precision's golden outputs.
    """
    engines: dict[tuple[str, str], Engine] = {}
    reasons: dict[tuple[str, str], str] = {}
    names = usable_engines()
    for precision, each in candidates.items():
        bundle = Bundle(each.folder, write_bundle(each.folder, each.manifest, each.golden))
        opened, left_out = open_agreeing(bundle, names, console=console)
        engines |= {(precision, name): engine for name, engine in opened.items()}
        # The folder is gone when someone reads this.
        reasons |= {(precision, name): why.replace(f"{each.folder}/", "") for name, why in left_out.items()}
    times = time_engines(engines, candidates["fp32"].golden.frames, ROUNDS, reasons)
    for engine in engines.values():
        engine.close()
    return _by_precision(times), _by_precision(reasons)


def _by_precision(values: Mapping[tuple[str, str], T]) -> dict[str, dict[str, T]]:
    """Turn ``{(precision, engine): value}`` into ``{precision: {engine: value}}``."""
    found: dict[str, dict[str, T]] = {}
    for (precision, engine), value in values.items():
        found.setdefault(precision, {})[engine] = value
    return found


def _say_failures(console: Console, failed: Mapping[str, Mapping[str, str]]) -> None:
    for precision, reasons in failed.items():
        for engine, why in reasons.items():
            console.say(f"{precision} does not run right on {engine} here: {why}")


def _say_speed(console: Console, speed: Mapping[str, Mapping[str, float]]) -> None:
    for name, times in speed.items():
        engine = min(times, key=lambda each: times[each])
        console.say(f"{name}: {times[engine]:.3g} ms a frame here, on {engine}")


def _fastest(speed: Mapping[str, Mapping[str, float]]) -> str:
    """Return the highest of the precisions, given from high to low, that are as good as the fastest."""
    best = {name: min(times.values()) for name, times in speed.items()}
    return next(name for name, time in best.items() if time * FASTER <= min(best.values()))


def _warn_of_better(console: Console, speed: Mapping[str, Mapping[str, float]], name: str) -> None:
    """Warn where a higher precision than the one that was asked for runs better here."""
    best = {each: min(times.values()) for each, times in speed.items()}
    slower = [each for each, time in best.items() if name in best and time < best[name] * FASTER]
    on_gpu = {each for each, times in speed.items() if any(engine in times for engine in ON_GPU)}
    if "fp16" in on_gpu and name not in on_gpu:
        console.say(f"Warning: {name} runs on no engine of this machine's GPU, fp16 does: --precision fp16 or auto.")
    elif slower:
        console.say(f"Warning: {name} is slower than {slower[0]} on this machine; --precision auto takes the fastest.")
