"""Sessions of ONNX Runtime on processors with and without VNNI."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from edgead import machine
from edgead.export.quantization.int8 import to_int8
from edgead.onnx_session import EXACT_INT8, new_session


def shared_weights(layers: int) -> bytes:
    """Convolutions in INT8, all with the same weights."""
    names = [f"t{number}" for number in range(layers + 1)]
    nodes = "".join(f"{after} = Conv <pads = [1, 1, 1, 1]> ({before}, w)" for before, after in pairwise(names))
    signature = f"g (float[1,16,8,8] t0) => (float[1,16,8,8] {names[-1]})"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {signature} {{ {nodes} }}')
    weights = np.random.default_rng(0).normal(0, 0.1, (16, 16, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    for node in model.graph.node:
        node.name = f"/{node.output[0]}"
    model = onnx.shape_inference.infer_shapes(model)
    return to_int8(model, {name: (-1.0, 1.0) for name in names}, (), "cpu").SerializeToString()


@pytest.mark.parametrize(("flags", "exact"), [("sse2 avx2", True), ("sse2 avx512_vnni", False), ("asimd", False)])
def test_exact_sums_are_requested_where_others_overflow(
    flags: str, exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    monkeypatch.setattr(machine, "PROCESSOR", tmp_path / "cpuinfo")
    options = new_session(ort, shared_weights(1)).get_session_options()
    if exact:
        assert options.get_session_config_entry(EXACT_INT8) == "1"
    else:
        with pytest.raises(RuntimeError, match=EXACT_INT8):
            options.get_session_config_entry(EXACT_INT8)


def test_a_graph_whose_layers_share_weights_is_opened_on_every_processor() -> None:
    session = new_session(ort, shared_weights(3))
    [values] = session.run(None, {"t0": np.zeros((1, 16, 8, 8), np.float32)})
    assert values.shape == (1, 16, 8, 8)


def test_what_is_no_graph_is_an_error_of_onnx_runtime() -> None:
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        new_session(ort, b"no graph")
