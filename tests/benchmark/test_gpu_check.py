"""The GPU check runs on a CPU as far as one can, and its table holds what it found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CHECK, PAGE = ROOT / "benchmarks" / "gpu_check", ROOT / "benchmarks" / "README.md"
STEPS = {"machine": 3, "cuda": 7, "graphs": 2, "ort": 21}
"""Step ↦ its results with --cpu. `pipeline` and `train` take minutes; what they call has tests of its own."""

Results = dict[str, Any]


def run(script: str, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CHECK / script), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("gpu_check")
    words = ("--cpu", "--limit", "120", "--out", folder / "out", *STEPS)
    done = run("check.py", *words, EDGEAD_GPU_FOLDER=str(folder / "work"))
    assert done.returncode == 0, done.stdout + done.stderr
    results: Results = json.loads((folder / "out" / "gpu_check.json").read_text())
    return results


@pytest.mark.long
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc for a CUDA on the host")
def test_every_step_ends_by_itself_with_all_results_ok(checked: Results) -> None:
    assert {name: step["ended"] for name, step in checked["steps"].items()} == dict.fromkeys(STEPS, "by itself")
    results = [each for step in checked["steps"].values() for each in step["results"]]
    assert not [each for each in results if not each["ok"]]
    assert {name: len(step["results"]) for name, step in checked["steps"].items()} == STEPS
    assert checked["device"]
    assert checked["cpu_test"]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc for a CUDA on the host")
def test_the_table_has_a_column_for_a_device_and_none_for_a_test(checked: Results, tmp_path: Path) -> None:
    page = shutil.copy(PAGE, tmp_path / "page.md")
    words = ("--results", tmp_path, "--page", page)
    file = tmp_path / "gpu-check-card.json"
    file.write_text(json.dumps(checked))
    assert "measure no GPU" in run("table.py", *words).stderr
    slow = {"what": "draem-edge, fp16", "ok": True, "ms": {"p50": 1.234}}
    steps = {**checked["steps"], "torch": {"ended": "stopped after 5 s", "results": [slow]}}
    file.write_text(json.dumps({**checked, "steps": steps, "device": "A Card, 580.1", "cpu_test": False}))
    assert run("table.py", *words).returncode == 0
    text = Path(page).read_text(encoding="utf-8")
    assert "| what | A Card, 580.1 |\n" in text
    assert "| step `cuda` | 7 of 7 ok |\n" in text
    assert "| step `torch` | 1 of 1 ok, stopped after 5 s |\n" in text
    assert "ms | – / – / 1.23 |\n" in text
    assert "| step `rtx` | not measured |\n" in text


SWEEP = """
data = "{data}"
engine = "onnxruntime"
rounds = 3
mixed_precision = "no"
code = "test"

[[methods]]
label = "A tiny DRAEM"
method = "draem"
preset = "nano"
settings = ["size=64", "reconstructive_width=4", "discriminative_width=4", "steps=2"]
categories = ["{name}"]

[[methods]]
label = "no such data"
method = "drept"
preset = "nano"
categories = ["absent"]
"""


@pytest.mark.long
def test_chosen_cells_of_a_sweep_run_without_ray(parts: Path, tmp_path: Path) -> None:
    file, out, ready = tmp_path / "sweep.toml", tmp_path / "out", tmp_path / "ready"
    file.write_text(SWEEP.format(data=parts.parent, name=parts.name))
    ready.touch()
    words = (file, "--out", out, "--wait", ready, "--workers", "0", "--label", "A tiny DRAEM")
    done = run("cells.py", *words, EDGEAD_GPU_FOLDER=str(tmp_path / "work"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"A tiny DRAEM, {parts.name}, seed 0: done" in done.stdout
    [row] = json.loads((out / f"a-tiny-draem-{parts.name}-0.json").read_text())["rows"]
    assert row["engine"] == "onnxruntime-cpu"
    assert "Trained" in (out / f"a-tiny-draem-{parts.name}-0.log").read_text()
    assert "no cell" in run("cells.py", *words, "--label", "another", "--category", "another").stderr


def test_the_page_holds_what_the_command_writes(tmp_path: Path) -> None:
    page = Path(shutil.copy(PAGE, tmp_path / "page.md"))
    text = PAGE.read_text(encoding="utf-8")
    page.write_text(text.replace("not measured |\n", "1.00 |\n"), encoding="utf-8")
    done = run("table.py", "--page", page)
    assert done.returncode == 0, done.stderr
    assert page.read_text(encoding="utf-8") == text
