"""Mixed-precision search: which layers stay in float32, so that the graphs of a lower precision pass the gate."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgead.bundle import MODEL, Outputs
from edgead.console import Console
from edgead.errors import BundleError, GateError
from edgead.export.graph.sensitive import is_sensitive
from edgead.export.inference import run_singly
from edgead.export.quantization.float16 import overflowing, to_float16
from edgead.export.quantization.gate import Gate, Judgement
from edgead.export.quantization.int8 import Ranges, quantizable, to_int8
from edgead.manifest import AttemptRecord, LayerRecord, VariantRecord, describe_sensitivity
from edgead.runtime.engines import CPU_MODEL
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine

SENSITIVITY_FRAMES = 2
"""Held-out normals, and as many synthetic anomalies, on which the layers' sensitivity is measured."""
STORED_AS_HALF = f"{MODEL} with float16 tensors"
"""How the gate calls a float16 graph that really rounds to float16, as a GPU does."""

R = TypeVar("R", VariantRecord, LayerRecord)


@dataclass(frozen=True)
class SearchResult:
    """The graphs of one precision.

    Attributes:
        precision: see `edgead.export.options.PRECISIONS`.
        files: file name ↦ graph, what a bundle ships.
        judgement: the gate's last word on them.
        kept: layers that stay in float32, most sensitive first.
        layers: how many there are.
        golden: outputs of each judged graph for the golden frames.
        table: the errors of every layer when it alone is lowered; empty where no layer has to stay in float32.
        trace: one entry for each attempt.
    """

    precision: str
    files: dict[str, onnx.ModelProto]
    judgement: Judgement
    kept: list[str]
    layers: int
    golden: tuple[Outputs, ...]
    table: list[LayerRecord] = field(default_factory=list)
    trace: list[AttemptRecord] = field(default_factory=list)


class GraphVariants:
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
        """Return what can stay in float32, layer ↦ its nodes: all that INT8 changes, and all that float16 does.

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
            return {MODEL: to_float16(self.model, {*keep, *self.too_large})}
        cpu = to_int8(self.model, self.ranges, keep, "cpu")
        if self.precision == "int8":
            return {MODEL: to_int8(self.model, self.ranges, keep, "tensorrt"), CPU_MODEL: cpu}
        compact = to_int8(self.model, self.ranges, keep, "compact")
        return {MODEL: to_float16(compact, {*keep, *self.too_large}), CPU_MODEL: cpu}

    def judged(self) -> dict[str, Callable[[Collection[str]], onnx.ModelProto]]:
        """Return functions that make the judged graphs: on a CPU they compute what the shipped ones do elsewhere.

        Each takes the layers that stay in float32. The one that is most likely to fail at least cost comes first.
        """

        def int8(variant: str) -> Callable[[Collection[str]], onnx.ModelProto]:
            return lambda keep: to_int8(self.model, self.ranges, keep, variant)

        def rounded(model: onnx.ModelProto, keep: Collection[str]) -> onnx.ModelProto:
            return to_float16(model, {*keep, *self.too_large}, emulate=True)

        if self.precision == "int8":
            return {CPU_MODEL: int8("cpu"), MODEL: int8("tensorrt")}
        if self.precision == "fp16":
            return {
                STORED_AS_HALF: lambda keep: rounded(self.model, keep),
                MODEL: lambda keep: self.shipped(keep)[MODEL],
            }
        return {CPU_MODEL: int8("cpu"), STORED_AS_HALF: lambda keep: rounded(int8("compact")(keep), keep)}


def search_mixed_precision(
    variants: GraphVariants, gate: Gate, golden: NDArray[np.uint8], console: Console
) -> SearchResult:
    """Lower a graph and return layers to float32, most sensitive first, until the gate is passed.

    Their number is found by doubling and then by bisection, so that few attempts are made.

    Args:
        variants: the graph.
        gate: judges.
        golden: ``[K, H, W, C] uint8``, the bundle's golden frames.
        console: what shows progress.

    Raises:
        GateError: no layer can be lowered, or the gate is not passed with the least sensitive layer alone lowered, or
            only with nothing left in INT8.
    """
    trace: list[AttemptRecord] = []
    layers = variants.layers()

    @contextmanager
    def opened(keep: Sequence[str]) -> Iterator[dict[str, OnnxRuntimeEngine]]:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            engines = {}
            for variant, make in variants.judged().items():
                engines[variant] = open_variant(variant, make(_nodes(layers, keep)), Path(folder))
                stack.callback(engines[variant].close)
            yield engines

    def attempt(keep: Sequence[str]) -> Judgement:
        with opened(keep) as engines:
            judgement = gate.judge(engines)
        found = AttemptRecord(
            kept_in_float32=len(keep), failures=tuple(judgement.failures), variants=judgement.variants
        )
        trace.append(found)
        verdict = "passed" if judgement.passed else judgement.failures[0]
        console.say(f"gate, {variants.precision} with {len(keep)} layers in float32: {verdict}")
        return judgement

    if not layers or ("int8" in variants.precision and not variants.integer):
        raise GateError(f"This graph has no layer for {variants.precision}. No bundle was written.")
    judgement = attempt([])
    kept: Sequence[str] = []
    table: list[LayerRecord] = []
    if not judgement.passed:
        table = measure_layers(variants, gate, console)
        console.say(f"most sensitive: {describe_sensitivity(table)}")
        order = [row.layer for row in table]
        kept, judgement = _fewest(order, attempt, judgement)
        if not judgement.passed:
            others = "fp32" if variants.precision == "fp16" else "fp32, fp16"
            raise GateError(
                f"{variants.precision} does not pass the gate, not even with {order[-1]} alone lowered, the least "
                f"sensitive of its {len(layers)} layers ({judgement.failures[0]}).\nNo bundle was written. Take "
                f"another precision (--precision {others} or auto), or allow more: --max-flips, --max-auroc-drop."
            )
    if variants.integer and variants.integer <= {*_nodes(layers, kept)}:
        raise GateError(
            f"{variants.precision} passes the gate only with every INT8 layer in float32. No bundle was written.\n"
            "Take --precision fp16, or allow more: --max-flips, --max-auroc-drop."
        )
    with opened(kept) as engines:
        outputs = tuple(run_singly(engine, golden) for engine in engines.values())
    files = variants.shipped(_nodes(layers, kept))
    return SearchResult(variants.precision, files, judgement, list(kept), len(layers), outputs, table, trace)


def _nodes(layers: Mapping[str, Sequence[str]], names: Collection[str]) -> list[str]:
    return [node for name in names for node in layers[name]]


def _fewest(
    order: Sequence[str], attempt: Callable[[Sequence[str]], Judgement], judgement: Judgement
) -> tuple[Sequence[str], Judgement]:
    """Return the shortest head of `order` that was found to pass, or the last judgement where none does.

    Args:
        order: layers, most sensitive first.
        attempt: judges with these in float32.
        judgement: the one with none in float32, which failed.
    """
    most = len(order) - 1  # with every layer in float32 nothing is lowered
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


def measure_layers(variants: GraphVariants, gate: Gate, console: Console) -> list[LayerRecord]:
    """Lower every layer alone and measure what that does to scores and maps; the worst comes first.

    Errors are root mean squares over the frames, relative to the standard deviation of the float32 graph's values, and
    the largest of all variants: one of them may be blind to what breaks another.
    """
    half = SENSITIVITY_FRAMES
    chosen = np.r_[: min(half, gate.normals), gate.normals : min(gate.normals + half, len(gate.frames))]
    frames, expected = gate.frames[chosen], [each[chosen] for each in gate.reference]
    spread = [max(float(each.std()), 1e-9) for each in gate.reference]
    layers = variants.layers()
    rows: list[tuple[float, float, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in console.track("sensitivity of the layers")(list(layers)):
            rest = _nodes(layers, [other for other in layers if other != name])
            errors = []
            for variant, make in variants.judged().items():
                engine = open_variant(variant, make(rest), Path(folder))
                found = run_singly(engine, frames)
                engine.close()
                errors.append([_rms(each - exact) / unit for each, exact, unit in zip(found, expected, spread)])
            score_error, map_error = np.nan_to_num(errors, nan=np.inf, posinf=np.inf).max(axis=0)
            rows.append((float(score_error), float(map_error), name))
    rows.sort(key=lambda row: -(row[0] + row[1]))
    return [LayerRecord(name, score_error, map_error) for score_error, map_error, name in rows]


def finite(record: R) -> R:
    """Replace by None what JSON cannot hold: a layer may give infinity or NaN in lower precision."""
    values = {each.name: getattr(record, each.name) for each in dataclasses.fields(record)}
    odd: dict[str, Any] = {
        name: None for name, value in values.items() if isinstance(value, float) and not np.isfinite(value)
    }
    return dataclasses.replace(record, **odd)


def _rms(values: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def open_variant(variant: str, model: onnx.ModelProto, folder: Path) -> OnnxRuntimeEngine:
    """Open one of `GraphVariants.judged`; its file in `folder` is removed before this returns.

    ONNX Runtime fuses the CPU variant into INT8 operators, as where it runs. Elsewhere that only costs time.
    """
    path = folder / "variant.onnx"
    onnx.save(model, path)
    try:
        return OnnxRuntimeEngine(path, as_written=variant != CPU_MODEL)
    except BundleError as error:
        raise GateError(f"{str(error).replace(str(path), variant)}\nNo bundle was written.") from error
    finally:
        path.unlink()
