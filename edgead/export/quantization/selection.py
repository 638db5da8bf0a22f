"""Precision selection: the requested precision, or the fastest that passes the gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from edgead.bundle import MODEL, Bundle, write_bundle
from edgead.bundle.gate_record import AttemptRecord, BudgetRecord, CalibrationRecord, GateRecord
from edgead.bundle.manifest import ParityRecord
from edgead.console import Console
from edgead.datasets import Frames
from edgead.errors import GateError
from edgead.export.draft import BundleDraft, fit_limits
from edgead.export.graph.normal_form import with_names_and_constants
from edgead.export.options import AUTO, Calibration, PrecisionOptions
from edgead.export.quantization.calibration import draw_tiles, load_images, measure_ranges, warn_of_anomalies
from edgead.export.quantization.gate import Gate, Labelled
from edgead.export.quantization.int8 import Ranges
from edgead.export.quantization.mixed_precision import (
    GraphVariants,
    SearchResult,
    finite,
    search_mixed_precision,
)
from edgead.geometry.tiling import Tiling
from edgead.runtime.engines import Engine, first_line
from edgead.runtime.engines.auto import time_engines
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.runtime.engines.opening import open_agreeing, runs_on_gpu, usable_engines
from edgead.runtime.golden import MOST_OF_SPREAD

SLACK = 1.5
"""Allowed difference of an engine, relative to the differences seen between graphs here."""
LEAST_SLACK = 0.05
"""Lower limit of that, relative to the spread of the golden outputs. Reasons: docs/adr/0021."""
TIMED_ROUNDS = 7
"""Timed inferences of each graph on each engine."""
FASTER_RATIO = 0.95
"""A precision counts as faster below this share of another's time; smaller differences are noise."""
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """The images for calibrating and judging lower precisions.

    Attributes:
        held_out: good images that the threshold is fitted to.
        anomalies: ``[M, H, W, C] uint8``, synthetic.
        labelled: labelled images or None.
        calibration_images: good images for INT8, unless the options set others.
        calibration_source: their name in the manifest: ``"training"`` or ``"threshold"``.
        seed: of the sample if there are more than requested.
    """

    held_out: Frames
    anomalies: NDArray[np.uint8]
    labelled: Labelled | None
    calibration_images: Sequence[Path]
    calibration_source: str
    seed: int


def select_precision(
    float32: BundleDraft, evaluation: EvaluationSet, options: PrecisionOptions, false_reject: float, console: Console
) -> BundleDraft:
    """Lower the float32 graph, judge the results and return the selected precision, in a folder next to the graph's.

    Raises:
        GateError: the requested precision fails the gate.
    """
    on_gpu = "tensorrt" in usable_engines()
    wanted = [options.precision]
    if options.precision == AUTO:
        # On a CPU the two INT8 precisions are the same graph.
        wanted = ["fp16", "int8", *(["int8-fp16"] if on_gpu else [])]
    elif on_gpu and options.precision != "fp16":
        wanted.append("fp16")  # for the comparison of speed
    model = with_names_and_constants(onnx.load(float32.folder / MODEL))
    engine = OnnxRuntimeEngine(float32.folder / MODEL)
    gate = Gate(
        engine,
        evaluation.held_out.frames,
        evaluation.anomalies,
        evaluation.labelled,
        false_reject,
        options.budget,
        console,
        Tiling(float32.manifest.geometry, float32.manifest.size),
    )
    images, ranges = _calibrate(float32, engine, gate, evaluation, options.calibration)
    candidates = {"fp32": float32}
    for name in wanted:
        try:
            found = search_mixed_precision(GraphVariants(model, ranges, name), gate, float32.golden.frames, console)
            candidates[name] = _draft(float32, gate, evaluation.held_out, found, images)
        except GateError as error:
            if name == options.precision:
                raise
            console.say(str(error).splitlines()[0])
    engine.close()
    speed, failed = _measure_speed(candidates, console)
    _report_failures(console, failed)
    _report_speed(console, speed)
    name = options.precision
    if name == AUTO:
        name = _fastest(speed)
        console.say(f"auto selects {name}")
    else:
        _warn_of_better(console, speed, name)
    selected = candidates[name]
    record = dataclasses.replace(selected.manifest.gate or GateRecord(), milliseconds_here=speed, failed_here=failed)
    return dataclasses.replace(selected, manifest=dataclasses.replace(selected.manifest, gate=record))


def _calibrate(
    float32: BundleDraft, engine: Engine, gate: Gate, evaluation: EvaluationSet, calibration: Calibration
) -> tuple[CalibrationRecord, Ranges]:
    manifest, console = float32.manifest, gate.console
    frames = load_images(
        calibration,
        evaluation.calibration_images,
        manifest.canvas,
        manifest.pixels,
        evaluation.seed,
        console,
        manifest.geometry,
    )
    warn_of_anomalies(frames, gate.on_canvases(engine), gate.threshold, gate.reference[0][gate.normals :], console)
    tiles = draw_tiles(frames.frames, Tiling(manifest.geometry, manifest.size), calibration.samples, evaluation.seed)
    track = console.track(f"calibrating ({calibration.method})")
    ranges = measure_ranges(float32.folder / MODEL, tiles, calibration.method, track)
    source = "folder" if calibration.data else evaluation.calibration_source
    return CalibrationRecord(calibration.method, len(frames.frames), source, frames.fingerprint), ranges


def _draft(
    float32: BundleDraft, gate: Gate, held_out: Frames, found: SearchResult, images: CalibrationRecord
) -> BundleDraft:
    """Write the graphs of a precision and the manifest's fields about them."""
    folder = float32.folder.with_name(found.precision)
    folder.mkdir()
    for file, model in found.files.items():
        onnx.save(model, folder / file)
        try:
            onnx.checker.check_model(folder / file, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise GateError(
                f"Lowering to {found.precision} produced invalid ONNX: {first_line(error)}\n"
                "No bundle was written. Choose another precision, or report this with the model."
            ) from error
    judgement, allowed = found.judgement, float32.manifest.parity
    errors = {name: judgement.worst(name) for name in ("score_error", "map_error")}
    score_outputs, map_outputs = zip(*found.golden)
    map_tolerance = allowed.tolerance if allowed.map_tolerance is None else allowed.map_tolerance
    record = GateRecord(
        budget=BudgetRecord(gate.budget.auroc_drop, gate.budget.flips),
        held_out_normals=gate.normals,
        synthetic_anomalies=len(gate.frames) - gate.normals,
        labelled_images=len(gate.labelled.frames) if gate.labelled else 0,
        variants=judgement.variants,
        layers=found.layers,
        kept_in_float32=tuple(found.kept),
        sensitivity=tuple(finite(row) for row in found.table),
        attempts=tuple(_finite(attempt) for attempt in found.trace),
    )
    limits = fit_limits(held_out, judgement.scores, judgement.map_maxima, gate.false_reject)
    manifest = dataclasses.replace(
        float32.manifest,
        precision=found.precision,
        calibration=images,
        parity=ParityRecord(
            frames=len(gate.frames),
            score_error=errors["score_error"],
            map_error=errors["map_error"],
            tolerance=allowed.tolerance + engine_tolerance(score_outputs, errors["score_error"]),
            map_tolerance=map_tolerance + engine_tolerance(map_outputs, errors["map_error"]),
        ),
        gate=record,
        threshold=limits.stored(),
        mask_threshold=limits.mask,
        held_out=limits.held_out,
    )
    summary = (
        f"{found.precision}: {record.describe()}; on these {len(gate.frames)} held-out and synthetic images scores "
        f"differ by at most {errors['score_error']:.2g}, and the threshold is {limits.threshold.value:.4g} (fp32: "
        f"{gate.threshold.value:.4g})"
    )
    return BundleDraft(folder, manifest, dataclasses.replace(float32.golden, variants=found.golden), summary)


def _finite(attempt: AttemptRecord) -> AttemptRecord:
    variants = {name: finite(each) for name, each in attempt.variants.items()}
    return dataclasses.replace(attempt, variants=variants)


def engine_tolerance(outputs: Sequence[NDArray[np.float32]], error: float) -> float:
    """Return the allowed difference of an engine's golden outputs from those of one of the judged graphs.

    Engines round at different places, as do the graphs of one precision. A tolerance of half the outputs' spread would
    accept an engine that returns the same value for every frame.

    Args:
        outputs: of each graph.
        error: largest error of these graphs in the gate; no engine needs more.
    """
    spread = max(float(np.ptp(values)) for values in outputs)
    apart = max(float(np.abs(values - outputs[0]).max()) for values in outputs)
    return min(SLACK * error, MOST_OF_SPREAD * spread, max(SLACK * apart, LEAST_SLACK * spread))


def _measure_speed(
    candidates: Mapping[str, BundleDraft], console: Console
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, str]]]:
    """Time each precision on each engine that this machine can run, interleaved.

    Returns:
        The median milliseconds, and why an engine was excluded, both by precision and engine. An engine is excluded if
        it does not open, run, or reproduce the golden outputs.
    """
    engines: dict[tuple[str, str], Engine] = {}
    reasons: dict[tuple[str, str], str] = {}
    names = usable_engines()
    for precision, each in candidates.items():
        bundle = Bundle(each.folder, write_bundle(each.folder, each.manifest, each.golden))
        opened, left_out = open_agreeing(bundle, names, console=console)
        engines |= {(precision, name): engine for name, engine in opened.items()}
        # The folder no longer exists when the user reads this.
        reasons |= {(precision, name): why.replace(f"{each.folder}/", "") for name, why in left_out.items()}
    times = time_engines(engines, candidates["fp32"].golden.frames, TIMED_ROUNDS, reasons)
    for engine in engines.values():
        engine.close()
    return _by_precision(times), _by_precision(reasons)


def _by_precision(values: Mapping[tuple[str, str], T]) -> dict[str, dict[str, T]]:
    """Convert ``{(precision, engine): value}`` to ``{precision: {engine: value}}``."""
    found: dict[str, dict[str, T]] = {}
    for (precision, engine), value in values.items():
        found.setdefault(precision, {})[engine] = value
    return found


def _report_failures(console: Console, failed: Mapping[str, Mapping[str, str]]) -> None:
    for precision, reasons in failed.items():
        for engine, why in reasons.items():
            console.say(f"{precision} does not run correctly on {engine} on this machine: {why}")


def _report_speed(console: Console, speed: Mapping[str, Mapping[str, float]]) -> None:
    for name, times in speed.items():
        engine = min(times, key=lambda each: times[each])
        console.say(f"{name}: {times[engine]:.3g} ms per frame on this machine, on {engine}")


def _fastest(speed: Mapping[str, Mapping[str, float]]) -> str:
    """Return the highest precision that is as fast as the fastest one; `speed` is sorted from high to low."""
    best = {name: min(times.values()) for name, times in speed.items()}
    return next(name for name, time in best.items() if time * FASTER_RATIO <= min(best.values()))


def _warn_of_better(console: Console, speed: Mapping[str, Mapping[str, float]], name: str) -> None:
    """Warn if a higher precision than the requested one is faster on this machine."""
    best = {each: min(times.values()) for each, times in speed.items()}
    slower = [each for each, time in best.items() if name in best and time < best[name] * FASTER_RATIO]
    on_gpu = {each for each, times in speed.items() if any(runs_on_gpu(engine) for engine in times)}
    if "fp16" in on_gpu and name not in on_gpu:
        console.say(
            f"Warning: no engine runs {name} on the GPU of this machine; fp16 does. Try --precision fp16 or auto."
        )
    elif slower:
        console.say(
            f"Warning: {name} is slower than {slower[0]} on this machine; --precision auto selects the fastest."
        )
