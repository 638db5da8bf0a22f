"""fp32, fp16 and int8 side by side: size, accuracy, changed verdicts, latency on the CPU engines. One results file.

    python benchmarks/precision.py --run RUN --run RUN=DATA --random edge --out benchmarks/results/precision.json

Every run is exported in each precision with the default gate, which sees held-out normals and synthetic anomalies, but
no test label. Then all graphs of a run are timed in turn on the same frames and scored on the labelled test images.
``--random PRESET`` times DRAEM with random weights, and says in which operators the time goes: latency does not depend
on the weights.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
import torch

from edgead.benchmark.machine import describe_machine, versions
from edgead.bundle import Bundle
from edgead.console import Console, Terminal
from edgead.datasets import open_category
from edgead.errors import EdgeadError, GateError
from edgead.export.calibration import measure_ranges
from edgead.export.export import export
from edgead.export.gate import measure_accuracy, read_labelled
from edgead.export.precision import to_int8
from edgead.export.to_onnx import write_onnx
from edgead.runtime.engines import Engine, open_engine
from edgead.runtime.engines.auto import time_engines
from edgead.runtime.engines.openvino_engine import the_core
from edgead.runtime.golden import check_golden
from edgead.train.checkpoint import load_run_config
from edgead.train.method import configure
from edgead.train.methods import get_method

ENGINES = ("onnxruntime", "openvino", "openvino-bf16")
SHOWN = 10
"""Operators of a profile, the most expensive first."""


def compare_run(
    run_folder: Path, data: Path | None, precisions: list[str], rounds: int, folder: Path
) -> dict[str, Any]:
    """Export a run in each precision and measure all of them."""
    bundles: dict[str, Bundle] = {}
    found: dict[str, Any] = {}
    for precision in precisions:
        path = folder / f"{run_folder.name}-{precision}.edgead"
        try:
            bundles[precision] = export(run_folder, out=path, precision=precision, console=Terminal())
        except GateError as error:
            found[precision] = {"refused": str(error).splitlines()[0]}
    run = load_run_config(run_folder)
    labelled = read_labelled(open_category(data or run.data), bundles["fp32"].manifest.size, run.pixels, Console())
    engines: dict[tuple[str, str], Engine] = {}
    for precision, bundle in bundles.items():
        gate = bundle.manifest.gate
        found[precision] = {
            "files_bytes": {file.name: file.stat().st_size for file in bundle.path.glob("*.onnx")},
            "nodes": len(onnx.load(bundle.model).graph.node),
            "handed_back": f"{len(gate['handed_back'])} of {gate['layers']}" if gate else None,
            "gate": gate.get("forms"),
            "engines": {},
        }
        for name in ENGINES:
            engine = open_engine(name, bundle)
            check = check_golden(bundle, engine)
            found[precision]["engines"][name] = {"golden": check.good, "golden_score_error": check.score_error}
            if check.good:
                engines[precision, name] = engine
    times = time_engines(engines, bundles["fp32"].golden().frames, rounds)
    baseline: np.ndarray | None = None
    for (precision, name), engine in engines.items():
        row = found[precision]["engines"][name]
        row["p50_ms"] = times[precision, name]
        row["times_faster_than_fp32_onnxruntime"] = times["fp32", "onnxruntime"] / times[precision, name]
        if labelled and not (precision == "fp32" and name != "onnxruntime"):
            values, scores = measure_accuracy(engine, labelled, Terminal())
            failed = scores > bundles[precision].manifest.threshold["value"]
            baseline = failed if baseline is None else baseline
            row |= {**values, "flips_on_test": int((failed != baseline).sum()), "test_images": len(scores)}
        engine.close()
        click.echo(f"{run_folder.name} {precision} {name}: {row}", err=True)
    return found


def time_random(preset: str, rounds: int, folder: Path) -> dict[str, Any]:
    """Time DRAEM with random weights and profile its INT8 form."""
    kind = get_method("draem")
    torch.manual_seed(0)
    method = kind(configure(kind, preset))
    for module in method.network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    size, paths = method.config.size, {name: folder / f"{preset}-{name}.onnx" for name in ("fp32", "int8")}
    write_onnx(method.deployable(), size, paths["fp32"], method.sensitive)
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    ranges = measure_ranges(paths["fp32"], frames, "minmax", iter)
    onnx.save(to_int8(onnx.load(paths["fp32"]), ranges, (), "cpu"), paths["int8"])
    engines: dict[str, Any] = {
        "fp32 onnxruntime": _onnxruntime(paths["fp32"]),
        "int8 onnxruntime": _onnxruntime(paths["int8"]),
        "fp32 openvino": _OpenVino(paths["fp32"], "f32"),
        "fp32 openvino-bf16": _OpenVino(paths["fp32"], "bf16"),
        "int8 openvino": _OpenVino(paths["int8"], "f32"),
    }
    for engine in engines.values():
        engine.infer(frames[:1])
    times = time_engines(engines, frames, rounds)
    base = times["fp32 onnxruntime"]
    return {
        "p50_ms": times,
        "times_faster_than_fp32_onnxruntime": {name: base / each for name, each in times.items()},
        "profile": {
            "int8 openvino": engines["int8 openvino"].profile(frames[:1]),
            "fp32 onnxruntime": _profile_onnxruntime(paths["fp32"], frames[:1], folder),
            "int8 onnxruntime": _profile_onnxruntime(paths["int8"], frames[:1], folder),
        },
    }


def _onnxruntime(path: Path) -> Engine:
    from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(path)


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


@click.command()
@click.option("--run", "runs", multiple=True, help="A finished run, or RUN=DATA where its data has moved. Repeatable.")
@click.option("--random", "presets", multiple=True, help="A preset of DRAEM to time with random weights. Repeatable.")
@click.option("--precision", "precisions", multiple=True, default=("fp32", "fp16", "int8"), show_default=True)
@click.option("--rounds", default=20, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(runs: tuple[str, ...], presets: tuple[str, ...], precisions: tuple[str, ...], rounds: int, out: Path) -> None:
    """Measure and write JSON; what is done is kept after every run."""
    record: dict[str, Any] = {
        "command": ["python", "benchmarks/precision.py", *sys.argv[1:-1], Path(sys.argv[-1]).name],
        "machine": describe_machine(),
        "versions": versions(),
        "load_before": os.getloadavg(),
        "runs": {},
        "random_weights": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for preset in presets:
            record["random_weights"][f"draem-{preset}"] = time_random(preset, rounds, Path(folder))
            _write(out, record)
        for each in runs:
            run, _, data = each.partition("=")
            try:
                result = compare_run(Path(run), Path(data) if data else None, list(precisions), rounds, Path(folder))
            except EdgeadError as error:
                result = {"error": str(error)}
            record["runs"][Path(run).name] = result
            _write(out, record)


def _write(out: Path, record: dict[str, Any]) -> None:
    record["load_after"] = os.getloadavg()
    out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
