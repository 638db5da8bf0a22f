"""Check that every package of every extra has a wheel for 64-bit Arm, or is a Jetson's own: `make aarch64-wheels`.

uv resolves the packages by their metadata; none is downloaded. On JetPack, NumPy, OpenCV and TensorRT are the
system's: NumPy stays at the system's version, and the extras for the line are resolved without OpenCV.
"""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class JetPack:
    """What matters of a JetPack: its Python, the platform of its wheels as uv names it, and its NumPy."""

    name: str
    python: str
    platform: str
    numpy: str


JETPACKS = (
    JetPack("JetPack 6", "3.10", "aarch64-manylinux_2_35", "1.21.5"),
    JetPack("JetPack 7", "3.12", "aarch64-manylinux_2_39", "1.26.4"),
)
ON_A_JETSON = (
    *("jpeg", "watch", "mqtt", "modbus", "opcua", "line", "gpio", "sign", "view", "triton"),
    *("rtsp", "genicam", "benchmark"),
)
"""Extras for the line. All of them together must leave the system's packages alone."""
BESIDE_IT = ("cpu", "import", "train", "ray", "tensorboard", "mlflow", "release", "gpu", "tensorrt", "pycuda")
"""The others, each alone. Some bring an OpenCV and a NumPy of their own: they are for other 64-bit Arm machines."""
WITHOUT = {
    ("tensorrt", "3.10"): "TensorRT is a part of JetPack",
    ("tensorrt", "3.12"): "TensorRT is a part of JetPack",
    ("pycuda", "3.10"): "a source package, built with JetPack's CUDA toolkit",
    ("pycuda", "3.12"): "a source package, built with JetPack's CUDA toolkit",
    ("gpu", "3.10"): "onnxruntime-gpu has no such wheel; use TensorRT",
}
"""Extra and Python without a wheel, and why that is so. They must stay so: a wheel that appears is news."""
NOT_THERE = ("docs", "dev", "fuzz")
"""Extras of developers. Some of their tools have no such wheels."""
SYSTEM = ("opencv-python-headless",)


def extras() -> dict[str, list[str]]:
    """Return extra ↦ requirements, as setup.py states them; the base has the name ``""``."""
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    options: dict[str, Any] = setup.call_args.kwargs
    return {"": options["install_requires"], **options["extras_require"]}


def resolve(requirements: list[str], jetpack: JetPack) -> tuple[list[str], str]:
    """Return the packages with their versions, of wheels alone; or none and the reason."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet", "--no-header", "--no-annotate"]
    command += ["--python-version", jetpack.python, "--python-platform", jetpack.platform, "--only-binary", ":all:"]
    lines = "\n".join(requirements)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False, cwd=ROOT / "tests")
    return (done.stdout.split(), "") if done.returncode == 0 else ([], " ".join(done.stderr.split()))


def for_the_line(jetpack: JetPack) -> tuple[list[str], str]:
    """Resolve the base and all extras for the line, with the system's packages in place."""
    stated = extras()
    wanted = [line for extra in ("", *ON_A_JETSON) for line in stated[extra] if name_of(line) not in SYSTEM]
    return resolve([*wanted, f"numpy=={jetpack.numpy}"], jetpack)


def name_of(requirement: str) -> str:
    """``onnxruntime-gpu[cuda]>=1.21`` is ``onnxruntime-gpu``."""
    found = re.match(r"[\w.-]+", requirement)
    assert found, requirement
    return found[0].lower()


def check(jetpack: JetPack) -> list[str]:
    """Print what was found for a JetPack; return what is wrong."""
    wrong, stated = [], extras()
    packages, why = for_the_line(jetpack)
    if why or any(name_of(package) in SYSTEM for package in packages):
        wrong.append(f"{jetpack.name}, the line: {why or 'a package brings an OpenCV of its own'}")
    else:
        print(f"{jetpack.name}, the line: {len(packages)} wheels with NumPy {jetpack.numpy} and the system's OpenCV")
    for extra in BESIDE_IT:
        packages, why = resolve([*stated[""], *stated[extra]], jetpack)
        expected = WITHOUT.get((extra, jetpack.python))
        if expected and packages:
            wrong.append(f"{jetpack.name}, {extra}: has wheels now: {' '.join(packages)}")
        elif why and not expected:
            wrong.append(f"{jetpack.name}, {extra}: {why}")
        else:
            print(f"{jetpack.name}, {extra}: {expected or f'{len(packages)} wheels'}", flush=True)
    return wrong


if __name__ == "__main__":
    faults = [fault for jetpack in JETPACKS for fault in check(jetpack)]
    sys.exit("\n".join(faults))
