"""From a float32 graph to the graphs of a lower precision that pass the gate."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgead.bundle import MODEL, Outputs
from edgead.console import Console
from edgead.errors import BundleError, GateError
from edgead.export.complete import run_singly
from edgead.export.gate import Gate, Judgement
from edgead.export.precision import Ranges, overflowing, quantizable, to_half, to_int8
from edgead.export.sensitive import is_sensitive
from edgead.manifest import LayerRecord, describe_sensitivity
from edgead.runtime.engines import CPU_MODEL
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine

SENSITIVITY_FRAMES = 2
"""Held-out normals, and as many synthetic anomalies, on which the layers' sensitivity is measured."""
STORED_AS_HALF = f"{MODEL} with float16 tensors"
"""How the gate calls a float16 graph that really rounds to float16, as a GPU does."""


@dataclass(frozen=True)
class Lowered:
    """The graphs of one precision.

    Attributes:
        precision: see `edgead.export.precision.PRECISIONS`.
        files: file name ↦ graph, what a bundle ships.
        judgement: the gate's last word on them.
        kept: layers that were handed back to float32, most sensitive first.
        layers: how many could have been.
        golden: what each of the judged graphs gives for the golden frames.
        table: of every layer its errors when it alone is lowered; empty where nothing had to be handed back.
        trace: one entry for each attempt.
    """

    precision: str
    files: dict[str, onnx.ModelProto]
    judgement: Judgement
    kept: list[str]
    layers: int
    golden: tuple[Outputs, ...]
    table: list[dict[str, Any]] = field(default_factory=list)
    trace: list[dict[str, Any]] = field(default_factory=list)


class Lowering:
    """One float32 graph, and what makes another precision of it.

    Args:
        model: the float32 graph.
        ranges: of its tensors on good images.
        precision: what it is to become.
    """

    def __init__(self, model: onnx.ModelProto, ranges: Ranges, precision: str) -> None:
        self.model, self.ranges, self.precision = model, ranges, precision
        self.integer = frozenset(quantizable(model)) if "int8" in precision else frozenset()
        # What would overflow in float16 is known beforehand.
        self.too_large = frozenset(overflowing(model, ranges)) if "fp16" in precision else frozenset()

    def layers(self) -> dict[str, list[str]]:
        """Return what can be handed back, layer ↦ its nodes: all that INT8 changes, and all that float16 does.

        For INT8 nodes with the same weights, the same layer at another scale, are one; it has the first one's name.
        """
        weights = {tensor.name: tensor for tensor in self.model.graph.initializer if len(tensor.dims) > 1}
        layers: dict[bytes, list[str]] = {}
        for node in self.model.graph.node:
            key = node.name.encode()
            if node.name in self.integer:
                alike = (numpy_helper.to_array(weights[name]).tobytes() for name in node.input if name in weights)
                key = b"".join(alike) or key
            elif "fp16" not in self.precision or is_sensitive(node) or node.name in self.too_large:
                continue
            layers.setdefault(key, []).append(node.name)
        return {names[0]: names for names in layers.values()}

    def shipped(self, keep: Collection[str]) -> dict[str, onnx.ModelProto]:
        """Return the graphs of a bundle, with the layers in `keep` in float32."""
        if self.precision == "fp16":
            return {MODEL: to_half(self.model, {*keep, *self.too_large})}
        cpu = to_int8(self.model, self.ranges, keep, "cpu")
        if self.precision == "int8":
            return {MODEL: to_int8(self.model, self.ranges, keep, "tensorrt"), CPU_MODEL: cpu}
        compact = to_int8(self.model, self.ranges, keep, "compact")
        return {MODEL: to_half(compact, {*keep, *self.too_large}), CPU_MODEL: cpu}

    def judged(self) -> dict[str, Callable[[Collection[str]], onnx.ModelProto]]:
        """Return what makes graphs that show on ONNX Runtime's CPU engine what the shipped ones give where they run.

        Each takes the layers that stay in float32. The one that is most likely to fail at least cost comes first.
        """

        def int8(form: str) -> Callable[[Collection[str]], onnx.ModelProto]:
            return lambda keep: to_int8(self.model, self.ranges, keep, form)

        def rounded(model: onnx.ModelProto, keep: Collection[str]) -> onnx.ModelProto:
            return to_half(model, {*keep, *self.too_large}, emulate=True)

        if self.precision == "int8":
            return {CPU_MODEL: int8("cpu"), MODEL: int8("tensorrt")}
        if self.precision == "fp16":
            return {
                STORED_AS_HALF: lambda keep: rounded(self.model, keep),
                MODEL: lambda keep: self.shipped(keep)[MODEL],
            }
        return {CPU_MODEL: int8("cpu"), STORED_AS_HALF: lambda keep: rounded(int8("compact")(keep), keep)}


def lower(lowering: Lowering, gate: Gate, golden: NDArray[np.uint8], console: Console) -> Lowered:
    """Lower a graph and hand layers back to float32, most sensitive first, until the gate is passed.

    How many are needed is found by doubling and then by halving, so that few attempts are made.

    Args:
        lowering: the graph.
        gate: judges.
        golden: ``[K, H, W, C] uint8``, the bundle's golden frames.
        console: what shows progress.

    Raises:
        GateError: there is nothing to lower, or the gate is not passed with the least sensitive layer alone lowered, or
            only with nothing left in INT8.
    """
    trace: list[dict[str, Any]] = []
    layers = lowering.layers()

    @contextmanager
    def opened(keep: Sequence[str]) -> Iterator[dict[str, OnnxRuntimeEngine]]:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            engines = {}
            for form, make in lowering.judged().items():
                engines[form] = open_form(form, make(_nodes(layers, keep)), Path(folder))
                stack.callback(engines[form].close)
            yield engines

    def attempt(keep: Sequence[str]) -> Judgement:
        with opened(keep) as engines:
            judgement = gate.judge(engines)
        trace.append({"handed_back": len(keep), "failures": judgement.failures, "forms": judgement.forms})
        verdict = "passed" if judgement.passed else judgement.failures[0]
        console.say(f"gate, {lowering.precision} with {len(keep)} layers handed back: {verdict}")
        return judgement

    if not layers or ("int8" in lowering.precision and not lowering.integer):
        raise GateError(f"There is nothing in this graph to lower to {lowering.precision}. No bundle was written.")
    judgement = attempt([])
    kept: Sequence[str] = []
    table: list[dict[str, Any]] = []
    if not judgement.passed:
        table = measure_layers(lowering, gate, console)
        console.say(f"most sensitive: {describe_sensitivity(to_records(table))}")
        order = [row["layer"] for row in table]
        kept, judgement = _fewest(order, attempt, judgement)
        if not judgement.passed:
            others = "fp32" if lowering.precision == "fp16" else "fp32, fp16"
            raise GateError(
                f"{lowering.precision} does not pass the gate, not even with {order[-1]} alone lowered, the least "
                f"sensitive of its {len(layers)} layers ({judgement.failures[0]}).\nNo bundle was written. Take "
                f"another precision (--precision {others} or auto), or allow more: --max-flips, --max-auroc-drop."
            )
    if lowering.integer and lowering.integer <= {*_nodes(layers, kept)}:
        raise GateError(
            f"{lowering.precision} passes the gate only with every INT8 layer handed back. No bundle was written.\n"
            "Take --precision fp16, or allow more: --max-flips, --max-auroc-drop."
        )
    with opened(kept) as engines:
        outputs = tuple(run_singly(engine, golden, Console().track("")) for engine in engines.values())
    files = lowering.shipped(_nodes(layers, kept))
    return Lowered(lowering.precision, files, judgement, list(kept), len(layers), outputs, table, trace)


def _nodes(layers: Mapping[str, Sequence[str]], names: Collection[str]) -> list[str]:
    return [node for name in names for node in layers[name]]


def _fewest(
    order: Sequence[str], attempt: Callable[[Sequence[str]], Judgement], judgement: Judgement
) -> tuple[Sequence[str], Judgement]:
    """Return the shortest head of `order` that was found to pass, or the last judgement where none does.

    Args:
        order: layers, most sensitive first.
        attempt: judges with these handed back.
        judgement: the one with none handed back, which failed.
    """
    most = len(order) - 1  # with every layer handed back nothing is lowered
    failing, passing, count = 0, 0, 1
    best = None
    while passing == 0 and failing < most:
        count = min(count, most)
        judgement = attempt(order[:count])
        if judgement.passed:
            passing, best = count, judgement
        else:
            failing, count = count, 2 * count
    if best is None:
        return [], judgement
    while passing - failing > 1:
        middle = (failing + passing) // 2
        judgement = attempt(order[:middle])
        if judgement.passed:
            passing, best = middle, judgement
        else:
            failing = middle
    return order[:passing], best


def measure_layers(lowering: Lowering, gate: Gate, console: Console) -> list[dict[str, Any]]:
    """Lower every layer alone and measure what that does to scores and maps; the worst comes first.

    Errors are root mean squares over the frames, relative to the standard deviation of the float32 graph's values, and
    the largest of all forms: one of them may be blind to what breaks another.
    """
    half = SENSITIVITY_FRAMES
    chosen = np.r_[: min(half, gate.normals), gate.normals : min(gate.normals + half, len(gate.frames))]
    frames, expected = gate.frames[chosen], [each[chosen] for each in gate.reference]
    spread = [max(float(each.std()), 1e-9) for each in gate.reference]
    layers = lowering.layers()
    rows: list[tuple[float, float, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in console.track("sensitivity of the layers")(list(layers)):
            rest = _nodes(layers, [other for other in layers if other != name])
            errors = []
            for form, make in lowering.judged().items():
                engine = open_form(form, make(rest), Path(folder))
                found = run_singly(engine, frames, Console().track(""))
                engine.close()
                errors.append([_rms(each - exact) / unit for each, exact, unit in zip(found, expected, spread)])
            score_error, map_error = np.nan_to_num(errors, nan=np.inf, posinf=np.inf).max(axis=0)
            rows.append((float(score_error), float(map_error), name))
    rows.sort(key=lambda row: -(row[0] + row[1]))
    return [{"layer": name, "score_error": score, "map_error": peak} for score, peak, name in rows]


def to_records(table: Sequence[Mapping[str, Any]]) -> tuple[LayerRecord, ...]:
    """Turn the rows of `measure_layers` into what the manifest holds."""
    return tuple(LayerRecord(**finite(dict(row))) for row in table)


def finite(value: Any) -> Any:
    """Replace what JSON cannot hold by None: a layer may give infinity or no number at all before it is handed back."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _rms(values: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def open_form(form: str, model: onnx.ModelProto, folder: Path) -> OnnxRuntimeEngine:
    """Open one of `Lowering.judged`; its file in `folder` is gone again when this returns.

    ONNX Runtime fuses the CPU form into INT8 operators, as where it runs. Elsewhere that only costs time.
    """
    path = folder / "form.onnx"
    onnx.save(model, path)
    try:
        return OnnxRuntimeEngine(path, as_written=form != CPU_MODEL)
    except BundleError as error:
        raise GateError(f"{str(error).replace(str(path), form)}\nNo bundle was written.") from error
    finally:
        path.unlink()
