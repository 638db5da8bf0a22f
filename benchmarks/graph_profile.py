"""Profile every method's exported graph on both CPU engines, and compare each kind of node with its floor.

    python benchmarks/graph_profile.py --out benchmarks/results/graph-profile.json
    python benchmarks/graph_profile.py --out graph-profile.json --only aand

Networks have random weights: latency does not depend on them. The floor of convolutions and matrix products is their
multiply-adds at the engine's peak, or the time to read their weights if that is longer; of all other nodes it is the
time to read their inputs and write their outputs once at the machine's bandwidth. Names that end in `-int8` are the
INT8 form with all layers quantized. `differnet-paper-flow` is the flow alone, with weights in 32 bits and in 16. Use an
idle machine.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from export_cost import NETWORKS, make
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgead.benchmark.floor import operations_by_operator
from edgead.benchmark.peak import bandwidth_per_second, peak_per_second
from edgead.export.graph.to_onnx import write_onnx
from edgead.export.quantization.calibration import measure_ranges
from edgead.export.quantization.int8 import to_int8
from edgead.files import write_json
from edgead.machine import describe_measurement, physical_cores
from edgead.runtime.engines.openvino_engine import the_core

PROFILED = {
    **NETWORKS,
    "draem-nano": ("nano",),
    "draem-nano-int8": ("nano",),
    "aand-nano-int8": ("nano",),
    "patchcore-nano": ("nano",),
    "patchcore-nano-int8": ("nano",),
}
INT8, FLOW = "-int8", "differnet-paper-flow"
RUNS = 9
"""Profiled inferences; one more before them warms up."""
ABOVE, SHARE = 1.3, 0.02
"""A kind of node is worth a look above this multiple of its floor, if it takes this share of the time."""
CONVOLUTION, PRODUCT = "convolution", "matrix product"
LARGE = 1 << 16
"""Values of a tensor that is stored in 16 bits."""


@dataclass(frozen=True)
class Node:
    """A profiled node: its kind, milliseconds, and bytes that it reads and writes."""

    kind: str
    milliseconds: float
    bytes: float


def kind_of(name: str) -> str:
    """Return the kind of a node, for a name of either engine."""
    if "Conv" in name or name == "Deconvolution":
        return CONVOLUTION
    return PRODUCT if any(word in name for word in ("MatMul", "Gemm", "FullyConnected", "Attention")) else name


def profile_onnxruntime(path: Path, frames: NDArray[Any], folder: Path) -> list[Node]:
    """Return the nodes of one inference on ONNX Runtime: the median of `RUNS`."""
    import onnxruntime  # after edgead, which turns its telemetry off

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, physical_cores()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for _ in range(RUNS + 1):
        session.run(None, {session.get_inputs()[0].name: frames})
    events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [event for event in events if event.get("name", "").endswith("_kernel_time")]
    runs = np.array_split(np.array([event["dur"] / 1e3 for event in kernels]), RUNS + 1)
    times = np.median(np.stack(runs[1:]), axis=0)
    return [
        Node(kind_of(event["args"]["op_name"]), float(time), _bytes_moved(event["args"]))
        for event, time in zip(kernels, times)
    ]


def _bytes_moved(node: dict[str, Any]) -> float:
    return sum(float(node[key]) for key in ("activation_size", "parameter_size", "output_size"))


def profile_openvino(path: Path, frames: NDArray[Any]) -> list[Node]:
    """Return the nodes of one inference on OpenVINO: the median of `RUNS`."""
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True}
    compiled = the_core().compile_model(the_core().read_model(str(path)), "CPU", settings)
    moved = {op.get_friendly_name(): _tensor_bytes(op) for op in compiled.get_runtime_model().get_ops()}
    request, runs = compiled.create_infer_request(), []
    for _ in range(RUNS + 1):
        request.infer([frames])
        runs.append({row.node_name: row for row in request.get_profiling_info()})
    return [
        Node(
            kind_of(row.node_type),
            float(np.median([run[name].real_time.total_seconds() for run in runs[1:]])) * 1e3,
            moved.get(name, 0.0),
        )
        for name, row in runs[0].items()
    ]


def _tensor_bytes(op: Any) -> float:
    """Return the bytes of a node's inputs and outputs for one frame."""
    moved = 0.0
    for tensor in (*op.inputs(), *op.outputs()):
        sides = [each.get_length() if each.is_static else 1 for each in tensor.get_partial_shape()]
        moved += float(np.prod(sides)) * tensor.get_element_type().size
    return moved


def count(path: Path, frames: NDArray[Any]) -> dict[str, int]:
    """Return the multiply-adds of convolutions and of matrix products, of the graph as it is written."""
    found = {CONVOLUTION: 0, PRODUCT: 0}
    for operator, operations in operations_by_operator(path.read_bytes(), frames).items():
        if operations:
            found[kind_of(operator)] += operations
    return found


def summarise(nodes: list[Node], operations: dict[str, int], peak: float, bandwidth: float) -> dict[str, Any]:
    """Return milliseconds, floor and their ratio of every kind of node, largest first."""
    kinds: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        kinds[node.kind].append(node)
    total, rows = sum(node.milliseconds for node in nodes), []
    for kind, found in kinds.items():
        milliseconds = sum(node.milliseconds for node in found)
        memory = sum(node.bytes for node in found) / bandwidth * 1e3
        floor = max(operations.get(kind, 0) / peak * 1e3, memory)
        rows.append(
            {
                "kind": kind,
                "nodes": len(found),
                "ms": round(milliseconds, 3),
                "share": round(milliseconds / total, 3),
                "floor_ms": round(floor, 3),
                "ratio": round(milliseconds / floor, 2) if floor else None,
            }
        )
    rows.sort(key=lambda row: -float(row["ms"]))  # type: ignore[arg-type]
    return {"total_ms": round(total, 3), "kinds": [row for row in rows if row["ms"]]}


def write_graph(name: str, folder: Path) -> tuple[Path, NDArray[Any]]:
    """Write a network of `PROFILED` with random weights; return its file and a frame."""
    method = make(name.partition("-")[0], *PROFILED[name])
    size, path = method.config.size, folder / "graph.onnx"
    write_onnx(method.export_model(), size, path, method.sensitive)
    frames = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    if name.endswith(INT8):
        ranges = measure_ranges(path, frames, "minmax", iter)
        onnx.save(to_int8(onnx.load(path), ranges, (), "cpu"), path)
    return path, frames


def write_flow(folder: Path) -> Iterator[tuple[str, Path, NDArray[Any]]]:
    """Write DifferNet's flow as published, with weights in 32 and in 16 bits; yield both with features of a frame."""
    method: Any = make("differnet", "paper")
    flow, views = method.network.nf, method.config.views
    features = np.random.default_rng(0).normal(size=(views, len(method.network.reference))).astype(np.float32)
    whole, half = folder / "flow32.onnx", folder / "flow16.onnx"
    export_flow(flow, features, whole)
    yield "32 bits", whole, features
    save_in_half(whole, half)
    yield "16 bits", half, features


def export_flow(flow: Any, features: NDArray[np.float32], path: Path) -> None:
    """Export a flow alone."""
    import torch

    torch.onnx.export(
        flow.eval(), (torch.from_numpy(features),), str(path), input_names=["y"], dynamo=False, opset_version=17
    )


def save_in_half(source: Path, target: Path) -> None:
    """Copy a graph with large float32 constants in float16 and a Cast after each: arithmetic stays float32."""
    model = onnx.load(source)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < LARGE:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}/half"))
        casts.append(helper.make_node("Cast", [f"{name}/half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, target)


def notable(name: str, engine: str, found: dict[str, Any]) -> Iterator[str]:
    """Yield a line of Markdown for each kind that is above its floor and no convolution."""
    for row in found["kinds"]:
        if row["kind"] != CONVOLUTION and row["share"] >= SHARE and (row["ratio"] or ABOVE + 1) > ABOVE:
            ratio = "–" if row["ratio"] is None else f"{row['ratio']:.1f}"
            yield (
                f"| {name} | {engine} | {found['total_ms']:.1f} | {row['kind']} × {row['nodes']} "
                f"| {row['ms']:.2f} | {row['share'] * 100:.0f} | {ratio} |"
            )


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Results, .json; added to if it exists.")
@click.option("--only", default="", help="Profile only names with this prefix.")
def main(out: Path, only: str) -> None:
    """Profile all graphs and write the results, after every graph."""
    record = json.loads(out.read_text()) if out.exists() else {"graphs": {}}
    head = describe_measurement("benchmarks/graph_profile.py")
    engines = ("onnxruntime", "openvino")
    peaks = {precision: {name: peak_per_second(name, precision) for name in engines} for precision in ("fp32", "int8")}
    bandwidth = bandwidth_per_second()
    conditions: dict[str, Any] = {
        **asdict(head),
        "peak_per_second": peaks,
        "bandwidth_per_second": bandwidth,
    }
    click.echo("| graph | engine | ms | nodes | ms | % | times the floor |\n|---|---|---|---|---|---|---|")
    for name in (*PROFILED, FLOW):
        if not name.startswith(only):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            graphs = write_flow(folder) if name == FLOW else iter([("", *write_graph(name, folder))])
            for form, path, frames in graphs:
                label = f"{name}, {form}" if form else name
                precision = "int8" if name.endswith(INT8) else "fp32"
                operations = count(path, frames)
                profiles = {
                    "onnxruntime": profile_onnxruntime(path, frames, folder),
                    "openvino": profile_openvino(path, frames),
                }
                found = {
                    engine: summarise(nodes, operations, peaks[precision][engine], bandwidth)
                    for engine, nodes in profiles.items()
                }
                size = round(path.stat().st_size / 1e6, 3)
                record["graphs"][label] = {"megabytes": size, "multiply_adds": operations, **found, **conditions}
                for engine, each in found.items():
                    for line in notable(label, engine, each):
                        click.echo(line)
        write_json(out, record)


if __name__ == "__main__":
    main()
