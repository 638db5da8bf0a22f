"""edgead beside the system packages of a Jetson: pip leaves them alone, and they work.

A folder plays the system: NumPy and OpenCV of JetPack's versions for JetPack's Python, fetched once into the user's
cache folder. A virtual environment sees it, as one with ``--system-site-packages`` sees the system's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from level_bundle import frame_of, make_level_bundle

from edgead.images import encode_png

ROOT = Path(__file__).parents[1]
JETPACKS = [
    pytest.param("3.10", "1.21.5", "4.7.0.72", id="JetPack 6"),  # pip's OpenCV 4.8 does not import with this NumPy
    pytest.param("3.12", "1.26.4", "4.8.0.76", id="JetPack 7"),
]
"""Python, NumPy and an OpenCV that is built for NumPy 1, as JetPack's own is."""
PLUGIN = """
import numpy as np
from edgead.runtime.engines import EngineSpec

class Level:
    name = "level"

    def infer(self, frames):
        maps = frames.mean(axis=3, dtype=np.float32)
        return maps.max(axis=(1, 2)), maps

    def close(self):
        pass

SPEC = EngineSpec(lambda bundle, opening: Level(), "the grey level, in the place of TensorRT")
"""
pytestmark = pytest.mark.slow


def find_python(version: str) -> str:
    """Return a Python of a version that starts; skip where there is none."""
    pyenv = Path.home() / ".pyenv" / "versions"
    for path in (*map(str, pyenv.glob(f"{version}.*/bin/python")), shutil.which(f"python{version}")):
        if path and subprocess.run([path, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return path
    pytest.skip(f"no Python {version} here")


def pip(python: Path | str, arguments: Sequence[str | Path]) -> None:
    """Call this environment's pip for another Python; skip where no packages are to be had."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install", "-q"]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # or edgead is there already
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False, env=own)
    if "ImpImporter" in done.stderr:
        pytest.skip(f"this environment's pip is too old for {python}")
    if "No matching distribution" in done.stderr or "Could not fetch" in done.stderr:
        pytest.skip(f"packages are not to be had: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


def make_system(python: str, version: str, numpy: str, opencv: str) -> Path:
    """Return the folder with the system's packages."""
    folder = Path.home() / ".cache" / "edgead-tests" / f"jetpack-{version}-{numpy}-{opencv}"
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.{os.getpid()}")
        pip(python, ["--target", part, f"numpy=={numpy}", f"opencv-python-headless=={opencv}"])
        if not folder.is_dir():
            part.rename(folder)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """edgead as a wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    [made] = folder.glob("*.whl")
    return made


@pytest.mark.long
@pytest.mark.parametrize(("version", "numpy", "opencv"), JETPACKS)
def test_the_systems_packages_stay_and_work(version: str, numpy: str, opencv: str, wheel: Path, tmp_path: Path) -> None:
    python = find_python(version)
    system = make_system(python, version, numpy, opencv)
    line = tmp_path / "line"
    subprocess.run([python, "-m", "venv", "--without-pip", str(line)], check=True)
    [packages] = line.glob("lib/python*/site-packages")
    (packages / "system.pth").write_text(str(system))
    pip(line / "bin" / "python", [f"{wheel}[jpeg]"])
    brought = {path.name.partition("-")[0] for path in packages.glob("*.dist-info")}
    assert {"edgead", "click", "simplejpeg"} <= brought
    assert not {"numpy", "opencv_python_headless"} & brought

    (packages / "level_engine.py").write_text(PLUGIN)
    (packages / "level_engine-1.dist-info").mkdir()
    (packages / "level_engine-1.dist-info" / "METADATA").write_text("Name: level-engine\nVersion: 1\n")
    (packages / "level_engine-1.dist-info" / "entry_points.txt").write_text(
        "[edgead.engines]\nlevel = level_engine:SPEC\n"
    )
    bundle = make_level_bundle(tmp_path / "level.edgead")
    (tmp_path / "frame.png").write_bytes(encode_png(frame_of(200)))

    def edgead(*arguments: object) -> Any:
        command = [str(line / "bin" / "edgead"), *map(str, arguments), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    findings = {each["name"]: each for each in edgead("doctor")}
    assert findings["numpy"]["text"] == f"numpy {numpy}, arrays"
    assert findings["cv2"]["text"] == f"opencv-python-headless {opencv}, reading images and cameras"
    predicted = edgead("predict", bundle.path, tmp_path / "frame.png", "--engine", "level")
    [result] = predicted["results"]
    assert (result["verdict"], result["score"], result["engine"]) == ("FAIL", 200.0, "level")
