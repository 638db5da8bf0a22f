"""One contender in its own interpreter: from a BGR frame in memory to score and map in memory.

    python contender.py NAME MODEL FRAME.npy

It prints the versions of its packages as one line of JSON, then answers each line of JSON on standard input: a number N
with the milliseconds of N calls, ``{"images": [FILE, …], "maps": FILE.npy}`` with the images' scores; their maps, in
256×256, are written to the file. It imports nothing of edgead unless the contender is edgead, so that it runs in the
peer's environment.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIZE = (256, 256)
"""Width and height that every contender's network sees."""
Call = Callable[[Any], tuple[float, Any]]
"""From a frame (H, W, 3) uint8 BGR to score and map."""


def load_edgead(model: Path, engine: str) -> Call:
    """Load a bundle on an engine."""
    from edgead import load

    inspector = load(model, engine=engine)

    def call(frame: Any) -> tuple[float, Any]:
        result = inspector.inspect(frame)
        return result.score, result.anomaly_map

    return call


def load_onnxruntime(model: Path) -> Call:
    """Run a bundle's graph in ONNX Runtime as it comes, without edgead."""
    import cv2
    import onnxruntime

    session = onnxruntime.InferenceSession(model / "model.onnx", providers=["CPUExecutionProvider"])

    def call(frame: Any) -> tuple[float, Any]:
        fitted = cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA)
        scores, maps = session.run(["scores", "maps"], {"frames": fitted[None]})
        return float(scores[0]), maps[0]

    return call


def load_openvino(model: Path) -> Call:
    """Run a bundle's graph in OpenVINO as it comes, without edgead."""
    import cv2
    import openvino

    compiled = openvino.Core().compile_model(str(model / "model.onnx"), "CPU")

    def call(frame: Any) -> tuple[float, Any]:
        fitted = cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA)
        answer = compiled({"frames": fitted[None]})
        return float(answer["scores"][0]), answer["maps"][0]

    return call


def load_torch(model: Path, *, compiled: bool) -> Call:
    """Run the trained network of a run's folder in PyTorch."""
    import cv2
    import torch

    from edgead.train.checkpoint import load_method

    _, method = load_method(model)
    network = method.reference_model()
    infer = torch.compile(network) if compiled else network

    def call(frame: Any) -> tuple[float, Any]:
        fitted = cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA)
        with torch.inference_mode():
            scores, maps = infer(torch.from_numpy(fitted[None]))
        return float(scores[0]), maps[0].numpy()

    return call


def load_anomalib(model: Path, *, openvino: bool) -> Call:
    """Run a model that anomalib exported, by its own inferencer."""
    import cv2
    import torchvision_ops  # noqa: F401  torchvision imports beside a CPU build of torch

    if openvino:
        from anomalib.deploy import OpenVINOInferencer

        inferencer = OpenVINOInferencer(model, device="CPU")
    else:
        from anomalib.deploy import TorchInferencer

        os.environ["TRUST_REMOTE_CODE"] = "1"  # it stores a pickle; this one was made by prepare_anomalib.py
        inferencer = TorchInferencer(model, device="cpu")

    def call(frame: Any) -> tuple[float, Any]:
        image = cv2.cvtColor(cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
        found = inferencer.predict(image.astype(np.float32) / 255 if openvino else image)
        values = (found.pred_score, found.anomaly_map)
        score, heat = (np.asarray(one if openvino else one.detach()).squeeze() for one in values)
        return float(score), heat

    return call


CONTENDERS: dict[str, Callable[[Path], Call]] = {
    "edgead openvino": lambda model: load_edgead(model, "openvino"),
    "edgead onnxruntime": lambda model: load_edgead(model, "onnxruntime"),
    "plain onnxruntime": load_onnxruntime,
    "plain openvino": load_openvino,
    "torch eager": lambda model: load_torch(model, compiled=False),
    "torch compile": lambda model: load_torch(model, compiled=True),
    "anomalib openvino": lambda model: load_anomalib(model, openvino=True),
    "anomalib torch": lambda model: load_anomalib(model, openvino=False),
}
PACKAGES = ("edgead", "anomalib", "torch", "onnxruntime", "openvino", "numpy", "opencv-python-headless")


def measure(call: Call, frame: Any, calls: int) -> list[float]:
    """Return the milliseconds of calls."""
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        call(frame)
        times.append((time.perf_counter() - began) * 1e3)
    return times


def score(call: Call, images: list[str], maps: str) -> list[float]:
    """Return the scores of image files; write their maps ``[N, 256, 256] float32``."""
    import cv2

    scores, found = [], []
    for image in images:
        value, heat = call(cv2.imread(image, cv2.IMREAD_COLOR))
        scores.append(value)
        found.append(cv2.resize(np.asarray(heat, np.float32), SIZE, interpolation=cv2.INTER_LINEAR))
    np.save(maps, np.stack(found))
    return scores


def main() -> None:
    name, model, frame_file = sys.argv[1:]
    out, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not mix with the answers
    call, frame = CONTENDERS[name](Path(model)), np.load(frame_file)
    for _ in range(2):
        found, heat = call(frame)
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    shape = [int(side) for side in np.shape(heat)]
    print(json.dumps({"versions": versions, "score": found, "map": shape}), file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        answer = measure(call, frame, asked) if isinstance(asked, int) else score(call, **asked)
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
