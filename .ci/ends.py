"""Check edgead with the lowest and with the newest versions that setup.py allows: `make ends`.

    python .ci/ends.py [lowest|newest] [--extra cpu …] [--tests]

Each end gets a fresh virtual environment in build/ends. There, the bundle in tests/format_1 is loaded on every CPU
engine that the extras bring, and its reference outputs are re-run; with --tests, the quick tests run as well.
"""

from __future__ import annotations

import argparse
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "tests" / "format_1" / "bundles" / "level.edgead"
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
TESTED = ("cpu", "train", "benchmark", "ray", "dev")
"""Extras that the tests need."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("end", nargs="*", default=[*RESOLUTIONS], help="lowest, newest; both by default")
    parser.add_argument("--extra", action="append", help="extra to install; cpu by default, with --tests all they need")
    parser.add_argument("--tests", action="store_true", help="run the quick tests as well")
    parser.add_argument("--python", default=sys.executable, help="of the environments")
    given = parser.parse_args()
    extras = tuple(given.extra or (TESTED if given.tests else ("cpu",)))
    for end in given.end:
        check(end, extras, given.python, given.tests)


def check(end: str, extras: tuple[str, ...], python: str, tests: bool) -> None:
    """Install one end and use it; end the program if something fails."""
    folder = ROOT / "build" / "ends" / end
    call("uv", "venv", "--quiet", "--clear", "--python", python, folder)
    inside = folder / "bin" / "python"
    listed = folder / "requirements.txt"
    listed.write_text("\n".join(requirements(extras)) + "\n")
    # Wheels only: an old source package does not build with today's tools, so nobody has it either.
    options = ["--resolution", RESOLUTIONS[end], "--only-binary", ":all:", "--python", inside]
    call("uv", "pip", "install", "--quiet", *options, "-r", listed)
    call("uv", "pip", "freeze", "--python", inside, show=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for engine in ("onnxruntime", "openvino") if "cpu" in extras else ():
        call(inside, "-m", "edgead", "inspect", BUNDLE, "--engine", engine, environment=environment, show=True)
    if tests:
        call(inside, "-m", "pytest", "-m", "not slow and not long", environment=environment, show=True)
    print(f"{end}: done", flush=True)


def requirements(extras: tuple[str, ...]) -> list[str]:
    """Return what setup.py asks for, with these extras."""
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    options: dict[str, Any] = setup.call_args.kwargs
    return [*options["install_requires"], *(line for extra in extras for line in options["extras_require"][extra])]


def call(*command: str | Path, environment: dict[str, str] | None = None, show: bool = False) -> None:
    """Run a command; end with its output if it fails."""
    words = list(map(str, command))
    done = subprocess.run(words, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if show or done.returncode:
        print(done.stdout, end="")
    if done.returncode:
        sys.exit(f"failed: {' '.join(words)}")


if __name__ == "__main__":
    main()
