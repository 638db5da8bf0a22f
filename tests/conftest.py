"""Fixtures that several rooms share: small sample parts, a run trained on them, its bundle."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

# The same kernels on every CPU: what torch and OpenVINO take by themselves depends on the machine (AMX, AVX-512), and
# with it speed, rounding and, in bf16, the result.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")
os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")

# One core for each of several workers: engines and torch take as many threads as there are cores, and those of one
# worker spin while the other's wait.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

import numpy as np
import pytest

from edgead.bundle import Bundle
from edgead.demo import make_parts
from edgead.images import encode_png

TINY = ("size=64", "reconstructive_width=4", "discriminative_width=4", "steps=12", "batch_size=2")
"""Settings of a DRAEM that trains in seconds: right in form, useless in accuracy."""


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the runtime remembers about a machine and a user goes to a folder of the tests."""
    folder = tmp_path_factory.getbasetemp()
    os.environ["XDG_CACHE_HOME"], os.environ["XDG_STATE_HOME"] = str(folder / "cache"), str(folder / "state")


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of sample parts in MVTec AD form."""
    return make_parts(tmp_path_factory.mktemp("data") / "washer", train=12, good=4, bad=2)


@pytest.fixture(scope="session")
def trained(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny DRAEM."""
    from edgead.train.train import train

    [run] = train("draem", parts, preset="nano", settings=TINY, out=tmp_path_factory.mktemp("run") / "tiny")
    return run


@pytest.fixture(scope="session")
def bundle(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of that run."""
    from edgead.export.export import export

    return export(trained, out=tmp_path_factory.mktemp("bundle") / "tiny.edgead")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("EDGEAD_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; EDGEAD_TEST_DATA names their folder")
    return folder


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """A function that writes a random image of a size (height, width) to a path and returns the path."""

    def write(path: Path, size: tuple[int, int] = (32, 40), seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        path.write_bytes(encode_png(image))
        return path

    return write
