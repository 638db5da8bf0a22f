"""What the TensorRT tests need where there is no GPU.

`tensorrt-rtx`, which carries TensorRT 11's API and builds engines on a CPU, under the name of TensorRT; and a driver
and a CUDA runtime in C that do on the host what the real ones do on a device, so that our calls really are made. The
runtime that is looked for first is too new for the driver, as on many a PC.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import edgead

HERE = Path(__file__).parent
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="no tensorrt-rtx, which builds without a GPU"
)
needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc for a CUDA on the host")


def make_shim(folder: Path, module: str = "tensorrt_rtx") -> Path:
    """Make a folder in which ``import tensorrt`` finds tensorrt-rtx, or another module that stands for TensorRT."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tensorrt.py").write_text(
        f"import sys, warnings, {module}\n"
        "warnings.filterwarnings('ignore', category=DeprecationWarning)\n"
        f"sys.modules[__name__] = {module}\n"
    )
    return folder


def make_cuda(folder: Path) -> Path:
    """Compile the driver and the CUDA runtime on the host into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for library, flags in (("libcuda.so.1", []), ("libcudart.so.13", ["-DTOO_NEW"])):
        source, target = str(HERE / "cuda_on_host.c"), str(folder / library)
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-pthread", *flags, "-o", target, source], check=True)
    (folder / "libcudart.so.12").symlink_to("libcuda.so.1")  # driver and runtime share their state
    return folder


def environment(*folders: Path, libraries: Path | None = None, **variables: object) -> dict[str, str]:
    """Return the environment of a process that runs this tree with these folders and libraries before all others."""
    paths = [*map(str, folders), str(Path(edgead.__file__).parents[1])]
    values = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    if libraries:
        values["LD_LIBRARY_PATH"] = str(libraries)
    return values | {name: str(value) for name, value in variables.items()}
