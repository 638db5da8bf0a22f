"""An aarch64 machine in user space: qemu runs the programs of a Debian root, in which there is Python alone.

It shows that the runtime's packages exist for a Jetson's processor and compute the same there. It cannot show speed, a
GPU, or JetPack's own packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import edgead

RELEASE, PYTHON = "bookworm", "3.11"
MIRROR = "http://deb.debian.org/debian"
QEMU = "qemu-aarch64-static"
PACKAGES = ("numpy", "click", "onnxruntime", "opencv-python-headless", "simplejpeg")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
MINUTES = 10
"""Longest for one step."""


@dataclass(frozen=True)
class Machine:
    """The folders of the root and of pip's packages."""

    root: Path
    packages: Path

    def run(self, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run ``python -m edgead ARGUMENT…`` of this tree in a folder."""
        tree = Path(edgead.__file__).parents[1]
        variables = {
            "QEMU_LD_PREFIX": str(self.root),
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONPATH": os.pathsep.join(map(str, (tree, self.packages))),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_STATE_HOME": str(folder / "state"),
            "ORT_DISABLE_TELEMETRY": "1",
        }
        python = self.root / "usr" / "bin" / f"python{PYTHON}"
        command = [_tool(QEMU) or QEMU, str(python), "-m", "edgead", *map(str, arguments)]
        return subprocess.run(
            command, env={**os.environ, **variables}, cwd=folder, capture_output=True, text=True, timeout=MINUTES * 60
        )


def make_machine(folder: Path) -> Machine:
    """Install an aarch64 machine into a folder. Skips the test where this machine does not allow it."""
    missing = [name for name in (QEMU, "debootstrap", "dpkg") if _tool(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"no aarch64 here: {', '.join(missing) or 'needs root'} (apt install qemu-user-static debootstrap)")
    machine = Machine(folder / "root", folder / "packages")
    options = ["--foreign", "--arch=arm64", "--variant=minbase", "--include=python3"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", f"--python-version={PYTHON}"]
    pip += [*(f"--platform={name}" for name in PLATFORMS), f"--target={machine.packages}", *PACKAGES]
    for step in ([_tool("debootstrap"), *options, RELEASE, str(machine.root), MIRROR], pip):
        done = subprocess.run(step, capture_output=True, text=True, timeout=MINUTES * 60)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
            pytest.skip(f"no aarch64 here: {said[-1]}")
    for package in sorted((machine.root / "var" / "cache" / "apt" / "archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(machine.root)], check=True)
    return machine


def _tool(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"]))
