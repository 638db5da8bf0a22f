"""Fixtures that several rooms share: small sample parts, a run trained on them, its bundle."""

from __future__ import annotations

import gc
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

# The same kernels on every CPU: what torch and OpenVINO take by themselves depends on the machine (AMX, AVX-512), and
# with it speed, rounding and, in bf16, the result.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")
os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")

# One core for each of several workers: engines and torch take as many threads as there are cores, and those of one
# worker spin while the other's wait.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    cores, number = sorted(os.sched_getaffinity(0)), int(worker.removeprefix("gw"))
    os.sched_setaffinity(0, {cores[number % len(cores)]})

# A shell starts what runs in the background with Ctrl-C ignored, and nohup what it runs with HUP ignored. So would the
# programs be that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

import cv2
import numpy as np
import pytest
from once import copy_of, once
from tiny import TINY

from edgead.bundle import Bundle, read_bundle
from edgead.demo import make_parts
from edgead.images import encode_png


def _turns() -> Iterator[int] | None:
    """Return the cores that this worker's tests take in turn; None where it has one of its own.

    That is for workers that are left over where each core has as many: else the third of three would share one core
    with the first, and the other core would rest whenever the second waits.
    """
    if worker is None or not hasattr(os, "sched_setaffinity"):
        return None
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    return itertools.cycle(cores) if number >= workers - workers % len(cores) else None


_cores_in_turn = _turns()


def pytest_collection_finish() -> None:
    """What is imported is no garbage: else each collection, as after a training, looks through all of it again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup() -> None:
    if _cores_in_turn:
        os.sched_setaffinity(0, {next(_cores_in_turn)})


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the runtime remembers about a machine and a user goes to a folder of the tests."""
    folder = tmp_path_factory.getbasetemp()
    for name in ("cache", "state", "config"):
        os.environ[f"XDG_{name.upper()}_HOME"] = str(folder / name)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of sample parts in MVTec AD form."""
    return once(tmp_path_factory, "data", lambda to: make_parts(to / "washer", train=12, good=4, bad=2)) / "washer"


@pytest.fixture(scope="session")
def trained(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny DRAEM."""

    def make(folder: Path) -> None:
        from edgead.train import train

        train("draem", parts, preset="nano", settings=TINY, out=folder / "tiny")

    return copy_of(tmp_path_factory, "run", make) / "tiny"


@pytest.fixture(scope="session")
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of that run; or the one of another machine in ``EDGEAD_TEST_BUNDLE``, see `runtime/conftest.py`."""
    if made := os.environ.get("EDGEAD_TEST_BUNDLE"):
        return read_bundle(made)
    trained: Path = request.getfixturevalue("trained")

    def make(folder: Path) -> None:
        from edgead.export import export

        export(trained, out=folder / "tiny.edgead")

    return read_bundle(copy_of(tmp_path_factory, "bundle", make) / "tiny.edgead")


def make_rgbd(root: Path, train: int = 10, validation: int = 4, good: int = 3, bad: int = 3) -> Path:
    """Make a category in MVTec 3D-AD form: a dome on a table 0.5 m away. Its dents cannot be seen in the colours."""
    y, x = np.mgrid[-1:1:64j, -1:1:80j]

    def write(kind: str, index: int, dent: bool) -> None:
        rng = np.random.default_rng((len(kind), index, dent))
        radius = np.hypot(y - rng.uniform(-0.1, 0.1), x - rng.uniform(-0.1, 0.1))
        part = radius < 0.6
        z = 0.5 - np.where(part, 0.05 * np.sqrt(np.maximum(0, 1 - (radius / 0.6) ** 2)), 0)
        mask = np.zeros(part.shape, np.uint8)
        if dent:
            at = rng.uniform(-0.25, 0.25, 2)
            mask[np.hypot(y - at[0], x - at[1]) < 0.12] = 255
            z[mask > 0] += 0.02
        z += rng.normal(0, 2e-4, z.shape)
        points = np.stack([x * 0.1, y * 0.1, z], axis=2).astype(np.float32)
        points[rng.random(z.shape) < 0.03] = 0
        points[:, 76:] = 0  # what the depth camera does not see
        colour = np.where(part[:, :, None], (60, 120, 190), (40, 40, 40)) + rng.normal(0, 6, (*part.shape, 3))
        files = {
            "rgb/{:03}.png": np.clip(colour, 0, 255).astype(np.uint8),
            "xyz/{:03}.tiff": points[:, :, ::-1],  # OpenCV turns the channels round
            "gt/{:03}.png": mask,
        }
        for name, picture in files.items():
            path = root / kind / name.format(index)
            if name.startswith("gt") and not kind.startswith("test"):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), picture)

    counts = {"train/good": train, "validation/good": validation, "test/good": good, "test/dent": bad}
    for kind, count in counts.items():
        for index in range(count):
            write(kind, index, kind.endswith("dent"))
    return root


@pytest.fixture(scope="session")
def rgbd_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set with depth, in MVTec 3D-AD form."""
    return once(tmp_path_factory, "rgbd-data", lambda folder: make_rgbd(folder / "dome")) / "dome"


@pytest.fixture(scope="session")
def rgbd_bundle(rgbd_parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with depth whose network is as good as untrained: its decisions mean nothing, its form is right."""
    settings = ("depth=true", "size=32x48", "multipliers=1", "steps=3", "batch_size=2", "reverse_steps=1")

    def make(folder: Path) -> None:
        from edgead.export import export
        from edgead.train import train

        [run] = train("transfusion", rgbd_parts, preset="nano", settings=settings, out=folder / "run")
        export(run, out=folder / "dome.edgead")

    return read_bundle(copy_of(tmp_path_factory, "rgbd", make) / "dome.edgead")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("EDGEAD_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; EDGEAD_TEST_DATA names their folder")
    return folder


@pytest.fixture(scope="session")
def squeezenet_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the form of torchvision's, with random weights."""
    import torch

    from edgead.train.backbones import torchvision

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "squeezenet1_1.pth"
    torch.save(torchvision().models.get_model("squeezenet1_1", weights=None).state_dict(), path)
    return path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing was downloaded before, and nothing listens where downloads go."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """A function that writes a random image of a size (height, width) to a path and returns the path."""

    def write(path: Path, size: tuple[int, int] = (32, 40), seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        path.write_bytes(encode_png(image))
        return path

    return write
