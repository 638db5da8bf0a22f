"""Which network of the family a student gets: the largest that meets the target on the named engine, measured here."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from edgead.benchmark.disturbance import judge, processor_times
from edgead.bundle import MODEL, Bundle, Golden, write_bundle
from edgead.console import Console
from edgead.errors import ConfigError
from edgead.export.graph.normal_form import with_names_and_constants
from edgead.export.graph.to_onnx import write_onnx
from edgead.export.options import AUTO
from edgead.export.quantization.calibration import measure_ranges
from edgead.export.quantization.mixed_precision import GraphVariants
from edgead.runtime.engines import Engine
from edgead.runtime.engines.auto import take_turn
from edgead.runtime.engines.opening import open_engine
from edgead.train.configuration import configure
from edgead.train.methods import get_method

K = TypeVar("K", bound=Hashable)
UNDISTURBED = 0.1
"""Quantile of the times that counts: other programs make an inference slower, never faster."""
ROUNDS = 21
"""Inferences of each network that are timed, in turn."""


@dataclass(frozen=True)
class Size:
    """A network of the family: settings of `StudentConfig`."""

    widths: tuple[int, ...]
    blocks: int = 1
    stem: int = 2
    backbone: str = ""

    @property
    def settings(self) -> tuple[str, ...]:
        """These as ``NAME=VALUE``."""
        encoder = f"backbone={self.backbone}" if self.backbone else f"stem={self.stem}"
        return (encoder, f"widths={','.join(map(str, self.widths))}", f"blocks={self.blocks}")

    def describe(self) -> str:
        """Describe it in half a line."""
        encoder = self.backbone if self.backbone else f"stem {self.stem}"
        return f"{encoder}, widths {'-'.join(map(str, self.widths))}, blocks {self.blocks}"


BACKBONE = "squeezenet1_1"
"""The cheapest of those with listed levels."""
LEARNED = (
    Size((16, 32, 48), stem=8),
    Size((16, 32, 48), stem=4),
    Size((32, 48, 64), stem=4),
    Size((16, 32, 64, 96)),
    Size((32, 64, 96), 2, stem=4),
    Size((32, 48, 64, 96), 2),
    Size((32, 64, 96, 96), 3),
)
"""Without a backbone, from the fewest operations to the most: 0.02 to 1.6 G multiply-adds at 256×256."""
PRETRAINED = (
    Size((32,), backbone=BACKBONE),
    Size((32, 32), backbone=BACKBONE),
    Size((32, 32, 32), backbone=BACKBONE),
    Size((64,) * 5, 2, backbone=BACKBONE),
)
"""On a backbone, in the same order. They agree better with a teacher than learned ones (docs/adr/0048)."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one inference: the median, and the fastest tenth's slowest, which other programs disturb less."""

    median: float
    undisturbed: float


def choose(
    teacher: Bundle, family: Sequence[Size], target_ms: float, engine: str, precision: str, console: Console
) -> Size:
    """Measure a family at the teacher's input size and return its last network that meets the target.

    Raises:
        ConfigError: none does.
        EdgeadError: the engine cannot be opened here.
    """
    console.say(f"measuring {len(family)} networks on {engine}, {precision}, {ROUNDS} inferences each")
    before = processor_times()
    times = measure_family(teacher, family, engine, "int8" if precision == AUTO else precision)
    disturbed = judge((), before, processor_times()).unstable
    for size, timing in times.items():
        console.say(f"  {size.describe()}: {timing.undisturbed:.2f} ms undisturbed, median {timing.median:.2f} ms")
    fitting = [size for size, timing in times.items() if timing.undisturbed <= target_ms]
    if not fitting:
        fastest = min(times.values(), key=lambda timing: timing.undisturbed)
        raise ConfigError(
            f"No student takes {target_ms:g} ms or less on {engine} here; the fastest takes "
            f"{fastest.undisturbed:.2f} ms.\nGive a larger --target, or a teacher with a smaller input."
        )
    console.say(f"Chosen for {target_ms:g} ms: {fitting[-1].describe()}")
    if disturbed and fitting[-1] != family[-1]:
        console.say(f"Warning: {disturbed}. A larger network may meet the target when nothing else runs here.")
    return fitting[-1]


def measure_family(teacher: Bundle, family: Sequence[Size], engine: str, precision: str) -> dict[Size, Timing]:
    """Return the time of each network of the family, untrained: weights do not change how long it takes."""
    frames = teacher.golden().frames
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        engines: dict[Size, Engine] = {}
        for number, size in enumerate(family):
            bundle = _untrained(Path(folder, f"{number}.edgead"), size, teacher, frames, precision)
            engines[size] = open_engine(engine, bundle)
            stack.callback(engines[size].close)
        return time_in_turn(engines, dict.fromkeys(engines, frames))


def _untrained(path: Path, size: Size, teacher: Bundle, frames: NDArray[np.uint8], precision: str) -> Bundle:
    """Write a bundle with a network's graph in a precision; its outputs and limits mean nothing."""
    path.mkdir()
    height, width = teacher.manifest.size
    student = get_method("student")
    with torch.random.fork_rng(devices=[]):
        method = student(configure(student, "paper", (*size.settings, f"size={height}x{width}")))
    write_onnx(method.export_model(), (height, width), path / MODEL, method.sensitive)
    if precision != "fp32":
        ranges = measure_ranges(path / MODEL, frames, "minmax", iter)
        variants = GraphVariants(with_names_and_constants(onnx.load(path / MODEL)), ranges, precision)
        for name, graph in variants.shipped(()).items():
            onnx.save(graph, path / name)
    manifest = dataclasses.replace(
        teacher.manifest,
        precision=precision,
        method="student",
        input=dataclasses.replace(teacher.manifest.input, batch=None),
        origin=None,
        gate=None,
        calibration=None,
        reconstruction=None,
        files={},
        digest="",
    )
    count = len(frames)
    golden = Golden(frames, np.zeros(count, np.float32), np.zeros((count, height, width), np.float32))
    return Bundle(path, write_bundle(path, manifest, golden))


def time_in_turn(
    engines: Mapping[K, Engine], frames: Mapping[K, NDArray[np.uint8]], rounds: int = ROUNDS
) -> dict[K, Timing]:
    """Time engines in turn, each on its frames ``[K, H, W, 3] uint8``, one at a time (see `take_turn`)."""
    taken: dict[K, list[float]] = {name: [] for name in engines}
    for number in range(rounds):
        for name, engine in engines.items():
            frame = frames[name][number % len(frames[name])][None]
            take_turn(engine, frame)
            start = time.perf_counter()
            engine.infer(frame)
            taken[name].append((time.perf_counter() - start) * 1e3)
    return {name: _timing(values) for name, values in taken.items()}


def _timing(values: list[float]) -> Timing:
    return Timing(*(round(float(np.quantile(values, share, method="lower")), 4) for share in (0.5, UNDISTURBED)))
