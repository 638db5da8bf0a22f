"""Write requirements.lock: every package that the tests need, with its hashes. `make lock`; it asks the package index.

It holds for CPython from 3.11.5 to 3.13 on Linux on x86-64, and keeps the versions of constraints.txt. torch,
torchvision and the CUDA libraries are left out: PyPI and PyTorch's own index have different builds of torch under one
number, and with hashes pip takes that of PyPI, which brings gigabytes of CUDA libraries to a machine without a GPU.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from ends import ROOT, TESTED, call, requirements

LOCK = ROOT / "requirements.lock"
EXTRAS = (*TESTED, "docs", "fuzz")
TOOLS = ("setuptools", "wheel", "pip-audit", "nvidia-pytriton", "tritonclient", "python-rapidjson")
"""What `make` installs beside the extras."""
BY_VERSION = ("torch", "torchvision")
"""Left out: `constraints.txt` alone holds them."""
PYTHON = "python_full_version >= '3.11.5' and python_full_version < '3.14'"
MACHINE = "implementation_name == 'cpython' and platform_machine == 'x86_64' and sys_platform == 'linux'"
PROJECT = f"""
[project]
name = "lock"
version = "0"
requires-python = ">=3.11.5,<3.14"

[tool.uv]
environments = ["{PYTHON} and {MACHINE}"]

[[tool.uv.dependency-metadata]]
name = "torch"
requires-dist = ["filelock", "typing-extensions", "setuptools", "sympy", "networkx", "jinja2", "fsspec"]

[[tool.uv.dependency-metadata]]
name = "nvidia-pytriton"  # see TRITON in the Makefile
requires-dist = []

[[tool.uv.dependency-metadata]]
name = "tritonclient"
requires-dist = []
"""
HEAD = """\
# Every package that the tests need but PyTorch, with the hashes of its files. `make locked` installs them, and
# `make lock` writes this file.
# For CPython 3.11.5 to 3.13 on Linux on x86-64.
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        project, wanted, out = (Path(folder) / name for name in ("pyproject.toml", "wanted.txt", "lock.txt"))
        project.write_text(PROJECT)
        wanted.write_text("\n".join([*requirements(EXTRAS), *TOOLS]) + "\n")
        options = ["--quiet", "--universal", "--python-version", "3.11.5", "--generate-hashes", "--no-header"]
        options += ["--no-annotate", "--constraints", ROOT / "constraints.txt", "--output-file", out]
        call("uv", "pip", "compile", "--project", folder, *options, wanted)
        LOCK.write_text(HEAD + finish(out.read_text()))
    print(f"{LOCK.name}: {LOCK.read_text().count('==')} packages")


def finish(text: str) -> str:
    """Leave out what all lines say of the machine, and the packages that are held by version alone."""
    lines, is_left_out = [], False
    for line in text.splitlines():
        if not line.startswith(" "):
            is_left_out = line.partition("==")[0] in BY_VERSION
        for said in (f" and {MACHINE}", " ; python_full_version < '3.14'"):
            line = line.removesuffix(" \\").removesuffix(said) + " \\" * line.endswith(" \\")
        if not is_left_out:
            lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
