"""`make release`: what it builds installs into a fresh environment, and is what it should be."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

import edgead

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / ".ci" / "release.py"


@pytest.fixture
def release() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("release", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
def test_a_release_is_built_and_checked(tmp_path: Path) -> None:
    """In a fast form: with the setuptools that is installed, and without an extra."""
    pytest.importorskip("twine", reason="the extra `release` is not installed")
    command = [sys.executable, SCRIPT, "--out", tmp_path, "--extra", "", "--no-isolation"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if "No matching distribution" in done.stderr or "Could not fetch" in done.stderr:
        pytest.skip("packages are not to be had")
    assert done.returncode == 0, done.stdout + done.stderr
    name = f"edgead-{edgead.__version__}"
    wheel, sdist, bill = (tmp_path / f"{name}{end}" for end in ("-py3-none-any.whl", ".tar.gz", ".cdx.json"))
    assert {path.name for path in tmp_path.iterdir()} == {wheel.name, sdist.name, bill.name, "SHA256SUMS"}
    names = zipfile.ZipFile(wheel).namelist()
    assert {each.partition("/")[0].partition("-")[0] for each in names} == {"edgead"}
    assert {
        "edgead/py.typed",
        "edgead/train/methods/draem/method.py",
        "edgead/runtime/engines/onnxruntime_engine.py",
        "edgead/view/static/index.html",
        "edgead/view/static/page.js",
    } <= set(names)
    with tarfile.open(sdist) as archive:
        held = {each.partition("/")[2] for each in archive.getnames()}
    assert {"setup.py", "LICENSE", "CHANGELOG.md", "examples/inspect_folder.py"} <= held
    assert not [each for each in held if each.startswith(("tests", "train", "runs", "build"))]
    listed = {each["name"]: each["version"] for each in json.loads(bill.read_text())["components"]}
    assert listed["edgead"] == edgead.__version__
    assert listed.keys() == {"edgead", "numpy", "click"}
    lines = (tmp_path / "SHA256SUMS").read_text().splitlines()
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path, check=False).returncode == 0
    assert len(lines) == 3


def test_what_lies_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "edgead-0.0.1.tar.gz").touch()
    done = subprocess.run([sys.executable, SCRIPT, "--out", tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, "edgead-0.0.1.tar.gz" in done.stderr) == (1, True)


def test_the_versions_agree(release: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of package, changelog and citation; if one is forgotten, the release says which."""
    assert release.agreed_version() == edgead.__version__
    for name in ("edgead/__init__.py", "CHANGELOG.md", "CITATION.cff"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    text = (tmp_path / "CITATION.cff").read_text().replace(edgead.__version__, "0.0.9")
    (tmp_path / "CITATION.cff").write_text(text)
    monkeypatch.setattr(release, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match=r"CITATION\.cff 0\.0\.9"):
        release.agreed_version()
