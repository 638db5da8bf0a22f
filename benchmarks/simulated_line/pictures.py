"""Pictures that hold the truth about their part, and bundles that read it.

A picture holds the part's number and, for each bundle, whether that one must fail the part. The graph of bundle K
answers with the number of the picture and with K, so a result tells which picture and which bundle made it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgead.bundle import FORMAT, MODEL, Golden, write_bundle
from edgead.bundle.manifest import DataRecord, InputRecord, Manifest, ParityRecord, StoredThreshold
from edgead.bundle.provenance import TrainingRecord
from edgead.images import Frame

SIDE = 16
BUNDLES = 3
NUMBERS = 1 << 16
"""A picture holds the part's number modulo this: no two parts of one line at one time have the same."""


def draw(number: int, fails: int) -> Frame:
    """Return the picture of a part, ``(16, 16, 3) uint8``.

    Args:
        number: of the part.
        fails: bit K − 1 is set if bundle K must fail it.
    """
    picture = np.full((SIDE, SIDE, 3), 90, np.uint8)
    picture[0, 0, :2] = number % 256, number // 256 % 256
    picture[0, 1 : BUNDLES + 1, 0] = [255 * (fails >> bundle & 1) for bundle in range(BUNDLES)]
    return picture


def score_of(number: int, bundle: int, fails: int) -> float:
    """Return what bundle K must answer: above 0, the threshold, for a part that it must fail."""
    size = number % NUMBERS + NUMBERS * bundle
    return float(size if fails >> (bundle - 1) & 1 else -size)


def read_score(score: float) -> tuple[int, int]:
    """Return the number of the picture, modulo `NUMBERS`, and the number of the bundle that made a score."""
    bundle, number = divmod(int(abs(score)), NUMBERS)
    return number, bundle


def make_bundle(folder: Path, number: int) -> Path:
    """Write bundle K and return its folder."""
    folder.mkdir(parents=True)
    onnx.save(_graph(number), folder / MODEL)
    parts = [(7, 0), (300, 1 << number - 1), (65535, (1 << BUNDLES) - 1), (0, 0)]
    frames = np.stack([draw(*part) for part in parts])
    scores = np.array([score_of(part, number, fails) for part, fails in parts], np.float32)
    maps = np.broadcast_to(scores[:, None, None], (len(parts), SIDE, SIDE))
    manifest = Manifest(
        format=FORMAT,
        name=f"bundle-{number}",
        method="simulated",
        preset="simulated",
        config={},
        category="simulated",
        input=InputRecord(SIDE, SIDE, 16),
        precision="fp32",
        threshold=StoredThreshold(0.0, 0, 1.0, 1.0),
        mask_threshold=0.0,
        parity=ParityRecord(frames=len(parts), score_error=0.0, map_error=0.0, tolerance=0.01, map_tolerance=0.01),
        data=DataRecord(),
        training=TrainingRecord(),
        created="2025-01-01T00:00:00+00:00",
        edgead="0.1.0",
    )
    write_bundle(folder, manifest, Golden(frames, scores, np.ascontiguousarray(maps)))
    return folder


def _graph(number: int) -> onnx.ModelProto:
    """The score is the number of the picture plus 65536 K, with the sign of bundle K's mark."""
    weights = np.zeros((SIDE, SIDE, 3, 2), np.float32)
    weights[0, 0, :2, 0] = 1, 256
    weights[0, number, 0, 1] = 1
    constants: dict[str, NDArray[np.float32] | NDArray[np.int64]] = {
        "weights": weights.reshape(-1, 2),
        "flat": np.array([-1, SIDE * SIDE * 3]),
        "own": np.array([NUMBERS * number], np.float32),
        "half": np.array([127.5], np.float32),
        "column": np.array([1]),
        "picture": np.array([1, 2]),
        "size": np.array([1, SIDE, SIDE]),
    }
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["pixels", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["read"]),
        helper.make_node("Split", ["read"], ["number", "mark"], axis=1),
        helper.make_node("Add", ["number", "own"], ["amount"]),
        helper.make_node("Sub", ["mark", "half"], ["above"]),
        helper.make_node("Sign", ["above"], ["sign"]),
        helper.make_node("Mul", ["amount", "sign"], ["signed"]),
        helper.make_node("Squeeze", ["signed", "column"], ["scores"]),
        helper.make_node("Unsqueeze", ["scores", "picture"], ["point"]),
        helper.make_node("Expand", ["point", "size"], ["maps"]),
    ]
    graph = helper.make_graph(
        nodes,
        "simulated",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", SIDE, SIDE]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
