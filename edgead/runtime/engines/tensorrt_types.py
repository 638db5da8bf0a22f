"""The types that a TensorRT engine computes in: strongly typed from 10.12 on, weakly typed with flags below."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgead.errors import ConfigError
from edgead.runtime.engines.onnx_types import FLOAT16, FLOAT32, OTHER
from edgead.runtime.engines.tensorrt_logger import open_runtime

STRONG_SINCE = (10, 12)
"""From this version on strong typing is fully available and the precision flags are deprecated."""
_TYPE = re.compile(r'"(?:Format/)?Datatype"\s*:\s*"([^"]*)"', re.IGNORECASE)  # in the inspector's JSON
_WORDS = {"fp16": re.compile("FP16|Half", re.IGNORECASE), "int8": re.compile("INT8", re.IGNORECASE)}


def version_of(trt: Any) -> tuple[int, int]:
    """Return TensorRT's (major, minor) version."""
    major, minor = str(trt.__version__).split(".")[:2]
    return int(major), int(minor)


def is_strong(trt: Any, typing: str) -> bool:
    """Return whether a network is built strongly typed.

    Raises:
        ConfigError: this version cannot do what `typing` asks for.
    """
    has_weak = hasattr(trt.BuilderFlag, "FP16")  # removed in 11; TensorRT-RTX 1.x is like 11
    has_strong = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")  # since 9.0
    if typing == "weak" and not has_weak:
        raise ConfigError(f"TensorRT {trt.__version__} supports only strongly typed networks. Leave out typing=weak.")
    if typing == "strong" and not has_strong:
        raise ConfigError(
            f"TensorRT {trt.__version__} does not support strongly typed networks. Leave out typing=strong."
        )
    if typing != "auto":
        return typing == "strong"
    return not has_weak or (has_strong and version_of(trt) >= STRONG_SINCE)


def network_flags(trt: Any, strong: bool) -> int:
    """Return the flags of a network: explicit batch where it still exists, and strongly typed."""
    flags = 0
    if hasattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH"):  # required up to 8.6, ignored later
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    if strong:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return flags


def set_precision(trt: Any, network: Any, config: Any, types: Mapping[str, str]) -> list[str]:
    """Allow a weakly typed network only the types that its graph contains.

    FP16 if a tensor is float16, INT8 if a layer is quantised. What is float32 in the graph is computed and stored in
    float32: the method needs that precision or range there.

    Args:
        trt, network, config: TensorRT's.
        types: of the graph's tensors, see `float_types`. A weakly typed network need not tell them.

    Returns:
        The allowed types, of ``int8`` and ``fp16``.
    """
    allowed = []
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    if any(layer.type == trt.LayerType.QUANTIZE for layer in layers):
        config.set_flag(trt.BuilderFlag.INT8)
        allowed.append("int8")
    if FLOAT16 not in types.values():
        return allowed
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
    for layer, outputs in float32_layers(trt, layers, types):
        layer.precision = trt.float32
        for index in outputs:  # without this, what is computed in float32 may still be stored in float16
            layer.set_output_type(index, trt.float32)
    return [*allowed, "fp16"]


def float32_layers(trt: Any, layers: Sequence[Any], types: Mapping[str, str]) -> Iterator[tuple[Any, list[int]]]:
    """Yield the layers that compute in float32 in the graph, each with the numbers of its float outputs."""
    without_precision = (
        trt.LayerType.CAST,
        trt.LayerType.CONSTANT,
        trt.LayerType.QUANTIZE,
        trt.LayerType.DEQUANTIZE,
        trt.LayerType.SHAPE,
    )
    kind = OTHER
    for layer in reversed(layers):
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
        known = [types[output.name] for output in outputs if output.name in types]
        if known:  # else it helps the node whose layer follows
            read = [types[each.name] for each in inputs if each is not None and each.name in types]
            kind = next((each for each in (*known, *read) if each != OTHER), OTHER)
        if kind != FLOAT32 or layer.type in without_precision:
            continue
        floats = [index for index, output in enumerate(outputs) if output.dtype in (trt.float32, trt.float16)]
        if known or floats:
            yield layer, [index for index in floats if not outputs[index].is_shape_tensor]


def find_unused(trt: Any, logger: Any, plan: Any, allowed: Sequence[str]) -> list[str]:
    """Return the allowed types that no layer of a plan has; none if TensorRT does not tell."""
    try:
        runtime = open_runtime(trt, logger)
    except TypeError:
        return []
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:  # who opens the plan finds out why
        return []
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    found = _TYPE.findall(text)
    return [name for name in allowed if found and not any(_WORDS[name].search(each) for each in found)]
