"""Small ONNX models as other programs write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

SIDE = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
THRESHOLD, PIXEL_THRESHOLD, SPREAD, PIXEL_SPREAD = 1.5, 1.25, 2.0, 2.5

HEADS = {
    "where": """
        {0}_d = Sub({1}, {0}_threshold)
        {0}_q = Div({0}_d, {0}_spread)
        {0}_h = Add({0}_q, half)
        {0}_c = Clip({0}_h, zero, one)
        {0}_gt = Greater({1}, {0}_threshold)
        {0}_lt = Less({1}, {0}_threshold)
        {0}_w = Where({0}_lt, zero, half)
        {0}_v = Where({0}_gt, one, {0}_w)
        {0}_u = Where(no, {0}_v, {0}_c)
        {2} = Where(yes, {0}_u, {1})""",
    "clip": """
        {0}_nan = IsNaN({0}_threshold)
        {0}_t = Where({0}_nan, zero, {0}_threshold)
        {0}_d = Sub({1}, {0}_t)
        {0}_q = Div({0}_d, {0}_spread)
        {0}_h = Add({0}_q, half)
        {2} = Clip({0}_h, zero, one)""",
    "min": """
        {0}_d = Sub({1}, {0}_threshold)
        {0}_q = Div({0}_d, {0}_spread)
        {0}_h = Add({0}_q, half)
        {0}_m = Min({0}_h, one)
        {2} = Max({0}_m, zero)""",
    "plain": """
        {2} = Identity({1})""",
}
"""How versions of anomalib normalise and cut off: {0} prefix, {1} raw tensor, {2} output."""


def anomalib_model(
    heads: str = "where", dynamic: bool = False, crop: int = 0, sensitivity: tuple[float, float] = (0.5, 0.5)
) -> onnx.ModelProto:
    """A model with the input, preprocessing and heads of an anomalib 2.x export.

    ``resized``, ``raw_map`` and ``raw_score`` are inside. Sensitivities are those of image and pixels.
    """
    shape = "N, 3, H, W" if dynamic else f"N, 3, {SIDE}, {SIDE}"
    inner = SIDE - 2 * crop
    resize = (
        "leading = Shape <start = 0, end = 2> (input)\n sizes = Concat <axis = 0> (leading, sides)\n"
        'resized = Resize <mode = "linear", antialias = 0, keep_aspect_ratio_policy = "stretch">'
        " (input, no_roi, no_scales, sizes)"
        if dynamic
        else "resized = Identity(input)"
    )
    text = f"""
    <ir_version: 10, opset_import: ["" : 18], producer_name: "pytorch", producer_version: "2.13.0">
    main (float[{shape}] input) => (float[N, 1] pred_score, bool[N, 1] pred_label,
          float[N, 1, {inner}, {inner}] anomaly_map, bool[N, 1, {inner}, {inner}] pred_mask) {{
        {resize}
        cut = Slice(resized, low, high, axes)
        centred = Sub(cut, mean)
        normal = Div(centred, std)
        features = Conv <strides = [4, 4], kernel_shape = [4, 4]> (normal, kernel)
        active = Relu(features)
        coarse = ReduceMean <keepdims = 1> (active, channel)
        raw_map = Resize <mode = "linear"> (coarse, no_roi, scales)
        raw_score = ReduceMax <keepdims = 0> (raw_map, places)
        {HEADS[heads].format("s", "raw_score", "pred_score")}
        {HEADS[heads].format("m", "raw_map", "anomaly_map")}
        pred_label = Greater(pred_score, s_cut)
        pred_mask = Greater(anomaly_map, m_cut)
    }}"""
    rng = np.random.default_rng(0)
    constants = {
        "mean": np.array(MEAN, np.float32).reshape(3, 1, 1),
        "std": np.array(STD, np.float32).reshape(3, 1, 1),
        "kernel": rng.normal(0, 0.5, (6, 3, 4, 4)).astype(np.float32),
        "sides": np.array([SIDE, SIDE]),
        "low": np.array([crop, crop]),
        "high": np.array([SIDE - crop, SIDE - crop]),
        "axes": np.array([2, 3]),
        "channel": np.array([1]),
        "places": np.array([-2, -1]),
        "scales": np.array([1, 1, 4, 4], np.float32),
        "no_roi": np.array([], np.float32),
        "no_scales": np.array([], np.float32),
        "s_threshold": np.float32(THRESHOLD),
        "s_spread": np.float32(SPREAD),
        "m_threshold": np.float32(PIXEL_THRESHOLD),
        "m_spread": np.float32(PIXEL_SPREAD),
        "s_cut": np.float32(1 - sensitivity[0]),
        "m_cut": np.float32(1 - sensitivity[1]),
        "half": np.float32(0.5),
        "zero": np.float32(0),
        "one": np.float32(1),
        "yes": np.array(True),
        "no": np.array(False),
    }
    return build(text, constants)


def plain_model(
    *,
    channels_last: bool = False,
    batch: str | int = "N",
    kind: str = "float",
    size: tuple[int | str, int | str] = (24, 32),
    opset: int = 17,
) -> onnx.ModelProto:
    """A model with a map at a quarter of the input's size and a score of its own, nothing else known about it."""
    sides = f"{size[0]}, {size[1]}"
    shape = f"{batch}, {sides}, 3" if channels_last else f"{batch}, 3, {sides}"
    planes = "planes = Transpose <perm = [0, 3, 1, 2]> (image)" if channels_last else "planes = Identity(image)"
    text = f"""
    <ir_version: 8, opset_import: ["" : {opset}], producer_name: "somebody">
    main ({kind}[{shape}] image) => ({kind}[{batch}, 2] logits, {kind}[{batch}] score, {kind}[{batch}, 1, 6, 8] heat) {{
        {planes}
        features = Conv <strides = [4, 4], kernel_shape = [4, 4]> (planes, kernel)
        heat = Abs(features)
        flat = GlobalAveragePool(heat)
        score = Reshape(flat, one_side)
        column = Reshape(flat, column_side)
        logits = Concat <axis = 1> (column, column)
    }}"""
    number = {"float": np.float32, "float16": np.float16}[kind]
    kernel = np.random.default_rng(1).normal(0, 0.2, (1, 3, 4, 4)).astype(number)
    return build(text, {"kernel": kernel, "one_side": np.array([-1]), "column_side": np.array([-1, 1])})


def stubborn_model() -> onnx.ModelProto:
    """A model that takes one image at a time although its input says otherwise."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    main (float[N, 3, 24, 32] image) => (float[1, 1, 24, 32] heat) {
        flat = Reshape(image, sides)
        heat = ReduceSum <keepdims = 1> (flat, channel)
    }"""
    return build(text, {"sides": np.array([1, 3, 24, 32]), "channel": np.array([1])})


def bytes_model(kind: str = "uint8") -> onnx.ModelProto:
    """A model that takes bytes, or other whole numbers, and whose map is the brightest channel."""
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    main ({kind}[N, 24, 32, 3] image) => (float[N, 24, 32] heat) {{
        values = Cast <to = 1> (image)
        heat = ReduceMax <axes = [3], keepdims = 0> (values)
    }}"""
    return build(text, {})


def quantised_model() -> onnx.ModelProto:
    """A user's own INT8 model: convolution between QuantizeLinear and DequantizeLinear."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    main (float[N, 3, 24, 32] image) => (float[N, 1, 6, 8] heat) {
        q = QuantizeLinear(image, scale, zero)
        x = DequantizeLinear(q, scale, zero)
        w = DequantizeLinear <axis = 0> (kernel, kernel_scale, kernel_zero)
        features = Conv <strides = [4, 4], kernel_shape = [4, 4]> (x, w)
        heat = Abs(features)
    }"""
    rng = np.random.default_rng(2)
    return build(
        text,
        {
            "scale": np.float32(1 / 127),
            "zero": np.int8(0),
            "kernel": rng.integers(-127, 128, (1, 3, 4, 4)).astype(np.int8),
            "kernel_scale": np.array([0.002], np.float32),
            "kernel_zero": np.array([0], np.int8),
        },
    )


def build(text: str, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A model from ONNX's text form, with initialisers."""
    model = parser.parse_model(text)
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used
    )
    onnx.checker.check_model(model)
    return model


def save(model: onnx.ModelProto, path: Path, external: bool = False) -> Path:
    """Write a model, with its weights beside it where `external`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # saving with external data empties the model
    onnx.save_model(copy, path, save_as_external_data=external, location=path.name + ".data", size_threshold=0)
    return path


def with_location(model: onnx.ModelProto, location: str) -> onnx.ModelProto:
    """The model with its kernel said to lie in another file."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    [kernel] = [value for value in changed.graph.initializer if value.name == "kernel"]
    kernel.ClearField("raw_data")
    kernel.data_location = TensorProto.EXTERNAL
    kernel.external_data.append(onnx.StringStringEntryProto(key="location", value=location))
    return changed


def with_operator(model: onnx.ModelProto, operator: str, domain: str = "") -> onnx.ModelProto:
    """The model with another operator's node behind its first output."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.graph.node.append(helper.make_node(operator, [changed.graph.output[0].name], ["extra"], domain=domain))
    if domain:
        changed.opset_import.append(helper.make_opsetid(domain, 1))
    return changed


ODD = {
    "a constant as a node": "two = Constant <value_float = 2.5> ()\n wide = Mul(active, two)",
    "a tensor made by an attribute": "sides = Shape(active)\n ones = ConstantOfShape(sides)\n wide = Add(active, ones)",
    "a newer operator": "wide = Gelu(features)",
    "minus infinity in float16": "hot = Mul(active, twelve)\n share = Softmax <axis = 1> (hot)\n wide = Log(share)",
    "control flow": (
        "wide = If (yes) <then_branch = one () => (float[N, 8, 32, 32] a) { a = Relu(active) }, "
        "else_branch = two () => (float[N, 8, 32, 32] b) { b = Neg(active) }>"
    ),
}
"""What float16 is not simply turned into: from `active` or `features` to `wide`."""


def odd_model(kind: str) -> onnx.ModelProto:
    """Two convolutions, and between them one of `ODD`."""
    opset = 20 if kind == "a newer operator" else 17
    text = f"""
    <ir_version: 9, opset_import: ["" : {opset}]>
    main (float[N, 3, 32, 32] image) => (float[N, 1, 32, 32] heat) {{
        features = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (image, first)
        active = Relu(features)
        {ODD[kind]}
        heat = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (wide, second)
    }}"""
    rng = np.random.default_rng(0)
    constants = {
        "first": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "second": rng.normal(0, 0.3, (1, 8, 3, 3)).astype(np.float32),
        "twelve": np.float32(12),
        "yes": np.array(True),
    }
    return build(text, constants)
