"""Compare fp32, fp16 and int8: size, accuracy, changed verdicts, latency on the CPU engines. One results file.

    python benchmarks/precision.py export --bundles BUNDLES --run RUN --run RUN --out RESULTS.json
    python benchmarks/precision.py score --bundles BUNDLES --data RUN=DATA --out RESULTS.json
    python benchmarks/precision.py agree --bundles BUNDLES --run NAME --out RESULTS.json
    python benchmarks/precision.py time --bundles BUNDLES --run NAME --out RESULTS.json
    python benchmarks/precision.py random --preset edge --out RESULTS.json

`export` writes every run in each precision with the default gate, which sees held-out normals and synthetic anomalies,
but no test label. `score` runs the bundles on labelled test images. `agree` compares the CPU engines on the golden
frames with each other, and with the INT8 form for TensorRT. None of these minds a busy machine; `time` does: it times
all graphs of a run in turn on the same frames. ``random`` times DRAEM with random weights, and says in which operators
the time goes: latency does not depend on the weights. Each adds what it found to the results file, under the name of
the run's folder, with the machine and the load it found.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch

from edgead import schema
from edgead.bundle import Bundle, is_bundle, read_bundle
from edgead.console import Console, Terminal
from edgead.datasets import open_category
from edgead.errors import GateError
from edgead.export import export
from edgead.export.graph.to_onnx import write_onnx
from edgead.export.inference import run_singly
from edgead.export.quantization.calibration import measure_ranges
from edgead.export.quantization.gate import read_labelled, score_labelled
from edgead.export.quantization.int8 import to_int8
from edgead.files import write_json
from edgead.machine import describe_measurement
from edgead.runtime.engines import Engine
from edgead.runtime.engines.auto import time_engines
from edgead.runtime.engines.checked import check
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.runtime.engines.opening import open_engine
from edgead.runtime.engines.openvino_engine import the_core
from edgead.runtime.golden import check_golden
from edgead.train.configuration import configure
from edgead.train.methods import get_method

PRECISIONS = ("fp32", "fp16", "int8")
ENGINES = ("onnxruntime", "openvino")
SHOWN = 10
"""Operators of a profile, the most expensive first."""
WORST = 5
"""Rows of a layer table, the most sensitive first."""


def export_run(run: Path, precision: str, path: Path) -> dict[str, Any]:
    """Export a run in one precision unless it exists; return the gate's result."""
    found: dict[str, Any] = {}
    if not is_bundle(path):
        started = time.process_time()
        try:
            export(run, out=path, precision=precision, console=Terminal())
        except GateError as error:
            return {"refused": str(error).splitlines()[0]}
        found["export_processor_seconds"] = round(time.process_time() - started, 1)
    bundle = read_bundle(path)
    gate = bundle.manifest.gate
    found["files_bytes"] = {file.name: file.stat().st_size for file in path.glob("*.onnx")}
    found["nodes"] = len(onnx.load(bundle.model).graph.node)
    if gate:
        found |= {
            "layers": gate.layers,
            "handed_back": gate.kept_in_float32,
            "most_sensitive": schema.write(gate.sensitivity or ())[:WORST],
            "attempts": [
                {"handed_back": each.kept_in_float32, "failures": each.failures} for each in gate.attempts or ()
            ],
            "gate": schema.write(gate.variants or {}),
        }
    return found


def bundles_of(folder: Path, name: str) -> Iterator[tuple[str, Bundle]]:
    """Yield the exported precisions of a run."""
    for precision in PRECISIONS:
        path = folder / f"{name}-{precision}.edgead"
        if is_bundle(path):
            yield precision, read_bundle(path)


def score_run(name: str, data: Path, folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield precision, engine and results on labelled images; flips are relative to fp32 on ONNX Runtime."""
    baseline: np.ndarray | None = None
    labelled = None
    for precision, bundle in bundles_of(folder, name):
        labelled = labelled or read_labelled(
            open_category(data), bundle.manifest.size, bundle.manifest.pixels, Console()
        )
        if labelled is None:
            raise click.UsageError(f"{data} has no good or no defective labelled images.")
        for engine_name in ENGINES:
            engine = open_engine(engine_name, bundle)
            check = check_golden(bundle, engine)
            found: dict[str, Any] = {"golden": check.good, "golden_score_error": check.score_error}
            if check.good:
                values, scores = score_labelled(engine, labelled, Terminal())
                failed = scores > bundle.manifest.threshold.value
                baseline = failed if baseline is None else baseline
                found |= {**values, "flips": int((failed != baseline).sum()), "test_images": len(scores)}
            engine.close()
            yield precision, engine_name, found


def compare_engines(bundle: Bundle) -> dict[str, Any]:
    """Run an INT8 bundle's golden frames on both engines, and its TensorRT graph on ONNX Runtime as written.

    Returns:
        the largest differences in score and map, the spread of the first engine's, and what the bundle allows.
    """
    engines = {name: open_engine(name, bundle) for name in ENGINES}
    engines["for tensorrt"] = check(OnnxRuntimeEngine(bundle.model, as_written=True), bundle)
    outputs = {name: run_singly(engine, bundle.golden().frames, iter) for name, engine in engines.items()}
    for engine in engines.values():
        engine.close()
    parity, found = bundle.manifest.parity, {}
    for index, (what, allowed) in enumerate((("scores", "tolerance"), ("maps", "map_tolerance"))):
        first, second, other = (each[index] for each in outputs.values())
        found[what] = {
            "spread": float(np.ptp(first)),
            "engines_differ": float(np.abs(first - second).max()),
            "forms_differ": float(np.abs(first - other).max()),
            "allowed": getattr(parity, allowed),
        }
    return found


def time_run(name: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Time every precision of a run on every engine that reproduces its golden outputs, interleaved."""
    engines: dict[str, Engine] = {}
    frames = None
    for precision, bundle in bundles_of(folder, name):
        frames = bundle.golden().frames if frames is None else frames
        for engine_name in ENGINES:
            opened = open_engine(engine_name, bundle)
            if check_golden(bundle, opened).good:
                engines[f"{precision} {engine_name}"] = opened
    assert frames is not None
    times = time_engines(engines, frames, rounds)
    for engine in engines.values():
        engine.close()
    return _relative(times, rounds)


def _relative(times: dict[str, float], rounds: int) -> dict[str, Any]:
    base = times["fp32 onnxruntime"]
    ratios = {name: round(base / each, 3) for name, each in times.items()}
    return {"inferences": rounds, "p50_ms": times, "times_faster_than_fp32_onnxruntime": ratios}


def time_random(preset: str, rounds: int, folder: Path) -> dict[str, Any]:
    """Time DRAEM with random weights and profile its INT8 graph."""
    kind = get_method("draem")
    torch.manual_seed(0)
    method = kind(configure(kind, preset))
    for module in method.network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    size, paths = method.config.size, {name: folder / f"{preset}-{name}.onnx" for name in ("fp32", "int8")}
    write_onnx(method.export_model(), size, paths["fp32"], method.sensitive)
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    ranges = measure_ranges(paths["fp32"], frames, "minmax", iter)
    onnx.save(to_int8(onnx.load(paths["fp32"]), ranges, (), "cpu"), paths["int8"])
    engines: dict[str, Any] = {
        "fp32 onnxruntime": OnnxRuntimeEngine(paths["fp32"]),
        "int8 onnxruntime": OnnxRuntimeEngine(paths["int8"]),
        "fp32 openvino": _OpenVino(paths["fp32"], "f32"),
        "fp32 openvino-bf16": _OpenVino(paths["fp32"], "bf16"),
        "int8 openvino": _OpenVino(paths["int8"], "f32"),
    }
    times = time_engines(engines, frames, rounds)
    return {
        **_relative(times, rounds),
        "profile": {
            "int8 openvino": engines["int8 openvino"].profile(frames[:1]),
            "fp32 onnxruntime": _profile_onnxruntime(paths["fp32"], frames[:1], folder),
            "int8 onnxruntime": _profile_onnxruntime(paths["int8"], frames[:1], folder),
        },
    }


class _OpenVino:
    """OpenVINO with a profile of its operators."""

    def __init__(self, path: Path, arithmetic: str) -> None:
        core = the_core()
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": arithmetic, "PERF_COUNT": True}
        self.request = core.compile_model(core.read_model(str(path)), "CPU", settings).create_infer_request()

    def infer(self, frames: np.ndarray) -> None:
        self.request.infer({"frames": frames}, share_inputs=True, share_outputs=True)

    def profile(self, frames: np.ndarray) -> dict[str, Any]:
        self.infer(frames)
        rows = [
            (row.node_name, f"{row.node_type} {row.exec_type}", row.real_time)
            for row in self.request.get_profiling_info()
        ]
        return _summary([(name, kind, time.total_seconds() * 1e3) for name, kind, time in rows])


def _profile_onnxruntime(path: Path, frames: np.ndarray, folder: Path) -> dict[str, Any]:
    import onnxruntime  # after edgead, which turns its telemetry off

    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    session.run(None, {"frames": frames})
    session.run(None, {"frames": frames})
    events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [event for event in events if event.get("name", "").endswith("_kernel_time")]
    last = kernels[len(kernels) // 2 :]  # of the second run
    return _summary([(e["name"].removesuffix("_kernel_time"), e["args"]["op_name"], e["dur"] / 1e3) for e in last])


def _summary(rows: list[tuple[str, str, float]]) -> dict[str, Any]:
    kinds: dict[str, float] = defaultdict(float)
    for _, kind, milliseconds in rows:
        kinds[kind] += milliseconds
    by_kind = sorted(kinds.items(), key=lambda item: -item[1])[:SHOWN]
    by_layer = sorted(rows, key=lambda row: -row[2])[:SHOWN]
    return {"total_ms": sum(kinds.values()), "ms_by_kind": dict(by_kind), "ms_by_layer": by_layer}


class Results:
    """A results file. It is read again before each addition, so that several phases can add to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.conditions = {
            **asdict(describe_measurement("benchmarks/precision.py")),
            "load_before": os.getloadavg(),
        }

    def add(self, phase: str, *keys: str, value: dict[str, Any]) -> None:
        """Merge a dictionary into the one under `keys`; record the command of the phase."""
        record = json.loads(self.path.read_text()) if self.path.exists() else {}
        place = record
        for key in keys:
            place = place.setdefault(key, {})
        place.update(value)
        record.setdefault("phases", {})[phase] = {**self.conditions, "load_after": os.getloadavg()}
        write_json(self.path, record)


BUNDLES = click.option("--bundles", type=click.Path(path_type=Path), required=True, help="Folder for the bundles.")
OUT = click.option("--out", type=click.Path(path_type=Path), required=True, help="The results file.")
ROUNDS = click.option("--rounds", default=7, show_default=True)


@click.group()
def main() -> None:
    """Measure lower precisions in phases that add to one JSON file."""


@main.command("export")
@BUNDLES
@OUT
@click.option("--run", "runs", multiple=True, type=click.Path(path_type=Path), help="A finished run. Repeatable.")
@click.option("--precision", "precisions", multiple=True, default=PRECISIONS, show_default=True)
def export_command(bundles: Path, out: Path, runs: tuple[Path, ...], precisions: tuple[str, ...]) -> None:
    """Export runs in every precision."""
    bundles.mkdir(parents=True, exist_ok=True)
    results = Results(out)
    for run in runs:
        for precision in precisions:
            found = export_run(run, precision, bundles / f"{run.name}-{precision}.edgead")
            results.add(f"export {run.name}", "runs", run.name, precision, value=found)


@main.command("score")
@BUNDLES
@OUT
@click.option("--data", "data", multiple=True, help="RUN=DATA, the run's name and its labelled images. Repeatable.")
def score_command(bundles: Path, out: Path, data: tuple[str, ...]) -> None:
    """Score bundles on labelled images."""
    results = Results(out)
    for name, _, folder in (each.partition("=") for each in data):
        for precision, engine, found in score_run(name, Path(folder), bundles):
            results.add(f"score {name}", "runs", name, precision, "engines", engine, value=found)
            click.echo(f"{name} {precision} {engine}: {found}", err=True)


@main.command("agree")
@BUNDLES
@OUT
@click.option("--run", "names", multiple=True, required=True, help="A run's name. Repeatable.")
def agree_command(bundles: Path, out: Path, names: tuple[str, ...]) -> None:
    """Compare engines on the golden frames of INT8 bundles."""
    results = Results(out)
    for name in names:
        found = compare_engines(read_bundle(bundles / f"{name}-int8.edgead"))
        results.add("agree", "runs", name, "agreement", value=found)


@main.command("time")
@BUNDLES
@OUT
@ROUNDS
@click.option("--run", "names", multiple=True, required=True, help="A run's name. Repeatable.")
def time_command(bundles: Path, out: Path, rounds: int, names: tuple[str, ...]) -> None:
    """Time bundles. Use an idle machine."""
    results = Results(out)
    for name in names:
        results.add("time", "runs", name, "latency", value=time_run(name, bundles, rounds))


@main.command("random")
@OUT
@ROUNDS
@click.option("--preset", "presets", multiple=True, required=True, help="Preset of DRAEM. Repeatable.")
def random_command(out: Path, rounds: int, presets: tuple[str, ...]) -> None:
    """Time DRAEM with random weights. Use an idle machine."""
    results = Results(out)
    with tempfile.TemporaryDirectory() as folder:
        for preset in presets:
            found = time_random(preset, rounds, Path(folder))
            results.add(f"random {preset}", "random_weights", f"draem-{preset}", value=found)


if __name__ == "__main__":
    main()
