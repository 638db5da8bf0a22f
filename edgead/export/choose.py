"""Which precision becomes the bundle: the one that was asked for, or the fastest that passes the gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgead.bundle import MODEL, Bundle, describe_gate, write_bundle
from edgead.console import Console
from edgead.datasets import Frames
from edgead.errors import ConfigError, GateError, is_installed
from edgead.export.calibration import Calibration, load_images, measure_ranges, warn_of_anomalies
from edgead.export.complete import Assembled, fit_limits
from edgead.export.gate import Budget, Gate, Labelled
from edgead.export.lower import Lowered, Lowering, lower
from edgead.export.precision import PRECISIONS, Ranges
from edgead.runtime.engines import Engine
from edgead.runtime.engines.auto import installed_engines, open_good, time_engines
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine

SLACK = 1.5
"""What an engine may differ from the trained network, relative to what the gate saw on this one."""
ROUNDS = 7
"""Timed inferences of each graph on each engine."""


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
    on_gpu = is_installed("tensorrt")
    wanted = [precision]
    if precision == "auto":
        # On a CPU the two INT8 precisions are the same graph.
        wanted = ["fp16", "int8", *(["int8-fp16"] if on_gpu else [])]
    elif on_gpu and precision != "fp16":
        wanted.append("fp16")  # to be compared with
    model = onnx.load(trial.float32.folder / MODEL)
    for number, node in enumerate(model.graph.node):  # an imported model's may have none
        node.name = node.name or f"node_{number}"
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
            lowered = lower(Lowering(model, ranges, name), gate, console)
        except GateError as error:
            if name == precision:
                raise
            console.say(str(error).splitlines()[0])
            continue
        candidates[name] = _complete(trial, gate, lowered, images)
    engine.close()
    speed = _measure_speed(candidates)
    name = min(speed, key=lambda each: min(speed[each].values())) if precision == "auto" else precision
    _say_speed(console, speed, name)
    chosen = candidates[name]
    manifest = dataclasses.replace(chosen.manifest, gate={**chosen.manifest.gate, "milliseconds_here": speed})
    return dataclasses.replace(chosen, manifest=manifest)


def _calibrate(trial: Trial, engine: Engine, gate: Gate, calibration: Calibration) -> tuple[dict[str, Any], Ranges]:
    manifest = trial.float32.manifest
    frames = load_images(calibration, trial.images, manifest.size, manifest.pixels, trial.seed, trial.console)
    warn_of_anomalies(frames, engine, gate.threshold, gate.reference[0][gate.normals :], trial.console)
    track = trial.console.track(f"calibrating ({calibration.method})")
    ranges = measure_ranges(trial.float32.folder / MODEL, frames.frames, calibration.method, track)
    facts = {
        "method": calibration.method,
        "images": len(frames.frames),
        "source": "folder" if calibration.data else trial.source,
        "fingerprint": frames.fingerprint,
    }
    return facts, ranges


def _complete(trial: Trial, gate: Gate, lowered: Lowered, images: dict[str, Any]) -> Assembled:
    """Write the graphs of a precision and what the manifest says about them."""
    folder = trial.float32.folder.with_name(lowered.precision)
    folder.mkdir()
    for file, model in lowered.files.items():
        onnx.save(model, folder / file)
    judgement, allowed = lowered.judgement, trial.float32.manifest.parity["tolerance"]
    errors = {name: judgement.worst(name) for name in ("score_error", "map_error")}
    manifest = dataclasses.replace(
        trial.float32.manifest,
        precision=lowered.precision,
        calibration=images,
        parity={
            "frames": len(gate.frames),
            **errors,
            "tolerance": SLACK * errors["score_error"] + allowed,
            "map_tolerance": SLACK * errors["map_error"] + allowed,
        },
        gate={
            "budget": dataclasses.asdict(gate.budget),
            "held_out_normals": gate.normals,
            "synthetic_anomalies": len(gate.frames) - gate.normals,
            "labelled_images": len(gate.labelled.frames) if gate.labelled else 0,
            "forms": judgement.forms,
            "layers": lowered.layers,
            "handed_back": lowered.kept,
            "sensitivity": lowered.table,
            "attempts": lowered.trace,
        },
        **fit_limits(judgement.scores, judgement.peaks, trial.false_reject).fields(),
    )
    summary = (
        f"{lowered.precision}: {describe_gate(manifest.gate)}; scores differ by at most {errors['score_error']:.2g}"
    )
    return Assembled(folder, manifest, trial.float32.golden, summary)


def _measure_speed(candidates: Mapping[str, Assembled]) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of each precision on each engine of this machine, all measured in turn.

    An engine that does not give a precision's golden outputs is left out.
    """
    engines: dict[tuple[str, str], Engine] = {}
    for name, each in candidates.items():
        bundle = Bundle(each.folder, write_bundle(each.folder, each.manifest, each.golden))
        opened, _ = open_good(bundle, installed_engines())
        engines |= {(name, engine): one for engine, one in opened.items()}
    times = time_engines(engines, candidates["fp32"].golden.frames, ROUNDS)
    for one in engines.values():
        one.close()
    speed: dict[str, dict[str, float]] = {}
    for (name, engine), milliseconds in times.items():
        speed.setdefault(name, {})[engine] = milliseconds
    return speed


def _say_speed(console: Console, speed: Mapping[str, Mapping[str, float]], name: str) -> None:
    """Say how fast the precisions are here, and warn where a higher one than the chosen is faster."""
    best = {each: min(times.items(), key=lambda item: item[1]) for each, times in speed.items()}
    for each, (engine, milliseconds) in best.items():
        console.say(f"{each}: {milliseconds:.3g} ms a frame here, on {engine}")
    slower = [each for each, (_, time) in best.items() if name in best and time < best[name][1]]
    if slower:
        console.say(f"Warning: {name} is slower than {slower[0]} on this machine; --precision auto takes the fastest.")
