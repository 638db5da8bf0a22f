"""Step graphs: every method's ONNX graph in every precision, with its outputs on the CPU.

The weights are random and the calibration frames are noise. Latency hardly depends on them, nor does the agreement of
engines in fp32 and fp16. The differences in INT8 do: read them as a rough indication.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import HERE, TINY, WORK, Options, report
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgead.train.method import Method

GRAPHS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "draem-edge": ("draem", "edge", ()),
    "draem-paper": ("draem", "paper", ()),
    "differnet-edge": ("differnet", "edge", ()),
    "aand-edge": ("aand", "edge", ()),
    "aand-paper": ("aand", "paper", ()),
    "transfusion-edge": ("transfusion", "edge", ("reverse_steps=1",)),
    "drept-paper": ("drept", "paper", ()),
}
"""Name ↦ method, preset and settings."""
SMALL: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "draem-nano": ("draem", "nano", TINY),
    "drept-nano": ("drept", "nano", ("size=64", "width=4")),
}
"""The same for --cpu."""
PRECISIONS = ("fp32", "fp16", "int8", "int8-fp16")
FOLDER = WORK / "graphs"
FRAMES, COMPARED = 4, 2
"""Frames kept with each graph, and those of them whose outputs are compared."""


def graphs(options: Options) -> None:
    """Make all graphs, each in a process of its own, all at once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1" if options.cpu else "4"}
    children = {
        name: subprocess.Popen(
            [sys.executable, str(HERE / "graphs.py"), name], stdout=subprocess.PIPE, text=True, env=environment
        )
        for name in (SMALL if options.cpu else GRAPHS)
    }
    for name, child in children.items():
        out, _ = child.communicate()
        facts = json.loads(out.strip().splitlines()[-1]) if child.returncode == 0 else {"code": child.returncode}
        report(child.returncode == 0, what=name, seconds=round(time.perf_counter() - started, 1), **facts)


def new_method(method: str, preset: str, settings: tuple[str, ...]) -> Method:
    """Return a method with random weights, the same each time."""
    import torch

    from edgead.train.configuration import configure
    from edgead.train.methods import get_method

    method_class = get_method(method)
    torch.manual_seed(0)
    made = method_class(configure(method_class, preset, settings))
    for module in made.network.modules():
        if isinstance(module, torch.nn.Conv2d) and method in ("draem", "drept"):
            torch.nn.init.kaiming_normal_(module.weight)  # with their own small weights all outputs would be alike
    return made


def make(name: str) -> None:
    """Write NAME.PRECISION.onnx and, when all of them are there, NAME.npz with frames and expected outputs."""
    import onnx

    from edgead.bundle import MODEL
    from edgead.console import Console
    from edgead.export.graph.to_onnx import write_network
    from edgead.export.inference import run_singly
    from edgead.export.quantization.calibration import measure_ranges
    from edgead.export.quantization.mixed_precision import IN_HALF, GraphVariants, open_variant
    from edgead.runtime.engines import CPU_MODEL

    made = new_method(*{**GRAPHS, **SMALL}[name])
    size = made.config.size
    paths = {precision: FOLDER / f"{name}.{precision}.onnx" for precision in PRECISIONS}
    write_network(made, paths["fp32"], Console())
    model = onnx.load(paths["fp32"])
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, *size, 3), dtype=np.uint8)
    ranges = measure_ranges(paths["fp32"], frames[:COMPARED], "minmax", iter)
    judged = {"fp32": (CPU_MODEL, model)}
    too_large: frozenset[str] = frozenset()
    for precision in PRECISIONS[1:]:
        variants = GraphVariants(model, ranges, precision)
        too_large |= variants.too_large
        onnx.save(variants.shipped(())[MODEL], paths[precision])
        variant = MODEL if precision == "int8" else IN_HALF
        judged[precision] = variant, variants.judged()[variant](())
    expected = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision, (variant, graph) in judged.items():
            engine = open_variant(variant, graph, Path(folder))
            scores, maps = run_singly(engine, frames[:COMPARED])
            expected[f"{precision}/scores"], expected[f"{precision}/maps"] = scores, maps
            engine.close()
    np.savez(FOLDER / f"{name}.npz", frames=frames, **expected)  # type: ignore[arg-type]
    sizes = {precision: path.stat().st_size for precision, path in paths.items()}
    print(json.dumps({"size": size, "bytes": sizes, "kept_in_fp32_for_range": len(too_large)}))


def graphs_made() -> list[tuple[str, str, Path]]:
    """Return name, precision and path of all complete graphs."""
    names = [path.stem for path in sorted(FOLDER.glob("*.npz"))]
    return [(name, precision, FOLDER / f"{name}.{precision}.onnx") for name in names for precision in PRECISIONS]


def frames_of(name: str) -> NDArray[np.uint8]:
    """Return the frames ``[N, H, W, 3] uint8`` kept with a graph."""
    frames: NDArray[np.uint8] = np.load(FOLDER / f"{name}.npz")["frames"]
    return frames


def differences(name: str, precision: str, infer: Callable[[Any], Any]) -> dict[str, float]:
    """Compare an engine with the graph that the gate would judge, on the CPU.

    Returns:
        For scores and maps: ``…_from_judged``, the engine's largest difference from the judged graph;
        ``…_of_precision``, that of the judged graph from the float32 graph; both as shares of the spread of the float32
        outputs, the measure of docs/adr/0021. ``…_largest`` is the largest float32 value.
    """
    kept = np.load(FOLDER / f"{name}.npz")
    outputs = [infer(frame[None]) for frame in kept["frames"][:COMPARED]]
    found = {}
    for number, kind in enumerate(("scores", "maps")):
        got = np.concatenate([each[number] for each in outputs]).astype(np.float64)
        judged, exact = kept[f"{precision}/{kind}"], kept[f"fp32/{kind}"]
        spread = float(np.ptp(exact)) or 1.0
        found[f"{kind}_from_judged"] = float(np.abs(got - judged).max()) / spread
        found[f"{kind}_of_precision"] = float(np.abs(judged - exact).max()) / spread
        found[f"{kind}_largest"] = float(np.abs(exact).max())
    return {key: float(f"{value:.4g}") for key, value in found.items()}


if __name__ == "__main__":
    make(sys.argv[1])
