"""Mixed-precision search: find the layers that must stay in float32 for a lower precision to pass the gate."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgead.bundle import MODEL, Outputs
from edgead.bundle.gate_record import AttemptRecord, LayerRecord, VariantRecord, describe_sensitivity
from edgead.console import Console
from edgead.errors import BundleError, GateError
from edgead.export.graph.sensitive import is_sensitive
from edgead.export.inference import run_singly
from edgead.export.quantization.accumulation import with_half_sums
from edgead.export.quantization.float16 import overflowing, to_float16
from edgead.export.quantization.gate import Gate, Judgement
from edgead.export.quantization.int8 import Ranges, quantizable, to_int8
from edgead.runtime.engines import CPU_MODEL
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine

SENSITIVITY_FRAMES = 2
"""Held-out normals, and as many synthetic anomalies, for measuring the sensitivity of layers."""
IN_HALF = f"{MODEL} in float16"
"""The gate's name of the variant that really rounds tensors and sums to float16, as a GPU may."""

R = TypeVar("R", VariantRecord, LayerRecord)


@dataclass(frozen=True)
class SearchResult:
    """The graphs of one precision.

    Attributes:
        precision: see `edgead.export.options.PRECISIONS`.
        files: file name ↦ graph, for the bundle.
        judgement: of the gate on these graphs.
        kept: layers that stay in float32, most sensitive first.
        layers: number of layers that can be lowered.
        golden: outputs of each judged graph for the golden frames.
        table: errors with one layer lowered at a time; empty if no layer has to stay in float32.
        trace: one entry per attempt.
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
    """A float32 graph and its variants in a lower precision.

    Args:
        model: the float32 graph.
        ranges: of its tensors on good images.
        precision: of the variants.
    """

    def __init__(self, model: onnx.ModelProto, ranges: Ranges, precision: str) -> None:
        self.model, self.ranges, self.precision = model, ranges, precision
        self.integer = frozenset(quantizable(model)) if "int8" in precision else frozenset()
        # Known before any attempt.
        self.too_large = frozenset(overflowing(model, ranges)) if "fp16" in precision else frozenset()

    def layers(self) -> dict[str, list[str]]:
        """Return the layers that INT8 or float16 would change, layer ↦ its nodes.

        INT8 nodes with the same weights (a layer at several scales) are one layer, with the name of the first node.
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
        """Return the graphs for a bundle, with the nodes in `keep` in float32."""
        if self.precision == "fp16":
            return {MODEL: to_float16(self.model, {*keep, *self.too_large})}
        cpu = to_int8(self.model, self.ranges, keep, "cpu")
        if self.precision == "int8":
            return {MODEL: to_int8(self.model, self.ranges, keep, "tensorrt"), CPU_MODEL: cpu}
        compact = to_int8(self.model, self.ranges, keep, "compact")
        return {MODEL: to_float16(compact, {*keep, *self.too_large}), CPU_MODEL: cpu}

    def judged(self) -> dict[str, Callable[[Collection[str]], onnx.ModelProto]]:
        """Return functions that make the gate's graphs: on a CPU they compute what the shipped graphs do elsewhere.

        Each takes the nodes that stay in float32. The variant that fails most often and runs fastest comes first.
        """

        def int8(variant: str) -> Callable[[Collection[str]], onnx.ModelProto]:
            return lambda keep: to_int8(self.model, self.ranges, keep, variant)

        def rounded(model: onnx.ModelProto, keep: Collection[str]) -> onnx.ModelProto:
            return with_half_sums(to_float16(model, {*keep, *self.too_large}, emulate=True))

        if self.precision == "int8":
            return {CPU_MODEL: int8("cpu"), MODEL: int8("tensorrt")}
        if self.precision == "fp16":
            return {
                IN_HALF: lambda keep: rounded(self.model, keep),
                MODEL: lambda keep: self.shipped(keep)[MODEL],
            }
        return {CPU_MODEL: int8("cpu"), IN_HALF: lambda keep: rounded(int8("compact")(keep), keep)}


def search_mixed_precision(
    variants: GraphVariants, gate: Gate, golden: NDArray[np.uint8], console: Console
) -> SearchResult:
    """Lower a graph and return layers to float32, most sensitive first, until it passes the gate.

    Doubling and then bisection find the number of layers in few attempts.

    Args:
        variants: the graph.
        gate: judges each attempt.
        golden: ``[K, H, W, C] uint8``, the bundle's golden frames.
        console: shows progress.

    Raises:
        GateError: no layer can be lowered; or the gate fails even with only the least sensitive layer lowered, or
            passes only without any INT8 layer.
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
        raise GateError(f"This graph has no layer that can be {variants.precision}. No bundle was written.")
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
                f"{variants.precision} fails the gate ({judgement.failures[0]}), even with only {order[-1]} lowered, "
                f"the least sensitive of {len(layers)} layers.\nNo bundle was written. Choose another precision "
                f"(--precision {others} or auto), or allow more: --max-flips, --max-auroc-drop."
            )
    if variants.integer and variants.integer <= {*_nodes(layers, kept)}:
        raise GateError(
            f"{variants.precision} passes the gate only with every INT8 layer in float32. No bundle was written.\n"
            "Choose --precision fp16, or allow more: --max-flips, --max-auroc-drop."
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
    """Return the shortest prefix of `order` that passes, and its judgement; an empty one if none passes.

    Args:
        order: layers, most sensitive first.
        attempt: judges with the given layers in float32.
        judgement: of the failed attempt without any layer in float32.
    """
    most = len(order) - 1  # at least one layer must be lowered
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
    """Lower one layer at a time and measure the errors of scores and maps; the largest errors come first.

    Errors are root mean squares over the frames, relative to the standard deviation of the float32 values. The largest
    over all variants counts, because a layer may fail in one variant only.
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
                found = run_singly(gate.on_canvases(engine), frames)
                engine.close()
                errors.append([_rms(each - exact) / unit for each, exact, unit in zip(found, expected, spread)])
            score_error, map_error = np.nan_to_num(errors, nan=np.inf, posinf=np.inf).max(axis=0)
            rows.append((float(score_error), float(map_error), name))
    rows.sort(key=lambda row: -(row[0] + row[1]))
    return [LayerRecord(name, score_error, map_error) for score_error, map_error, name in rows]


def finite(record: R) -> R:
    """Replace infinity and NaN, which a lowered layer may return and JSON cannot hold, by None."""
    values = {each.name: getattr(record, each.name) for each in dataclasses.fields(record)}
    odd = [name for name, value in values.items() if isinstance(value, float) and not np.isfinite(value)]
    return dataclasses.replace(record, **dict.fromkeys(odd))  # type: ignore[arg-type]


def _rms(values: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def open_variant(variant: str, model: onnx.ModelProto, folder: Path) -> OnnxRuntimeEngine:
    """Open a graph of `GraphVariants.judged`. Its file in `folder` is removed again.

    ONNX Runtime fuses the CPU variant into INT8 operators, as on the line. For other variants that only costs time.
    """
    path = folder / "variant.onnx"
    onnx.save(model, path)
    try:
        return OnnxRuntimeEngine(path, as_written=variant != CPU_MODEL)
    except BundleError as error:
        raise GateError(f"{str(error).replace(str(path), variant)}\nNo bundle was written.") from error
    finally:
        path.unlink()
