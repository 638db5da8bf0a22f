"""examples/: every program runs, with what a test has instead of a camera."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgead.bundle import Bundle

EXAMPLES = Path(__file__).parents[1] / "examples"
ELSEWHERE = {"inspect_folder.py", "plain_onnxruntime.py", "pycuda_camera.py"}
"""Run by tests/test_package.py, and the last one by tests/runtime/test_device_frames.py."""
TINY = ["steps=2", "size=64", "reconstructive_width=4", "discriminative_width=4", "batch_size=2"]


def run(name: str, *arguments: object) -> str:
    """Run an example; return what it prints."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_photographs_are_collected(tmp_path: Path) -> None:
    assert "3 of 3" in run("collect_photographs.py", "synthetic:?fps=25&frames=20", tmp_path / "photos", 3, 0)
    assert len(list((tmp_path / "photos").glob("*.png"))) == 3


def test_an_output_is_high_only_while_parts_pass(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    images = parts / "test" / "good"
    printed = run("custom_sink.py", bundle.path, images, tmp_path / "pin")
    counts = [int(word) for word in printed.split() if word.isdigit()]
    assert sum(counts) == len(list(images.iterdir()))
    assert (tmp_path / "pin").read_text() == "0"  # at the end the output is low


def test_any_function_is_a_source(bundle: Bundle) -> None:
    lines = run("custom_source.py", bundle.path).splitlines()
    assert len(lines) == 20
    assert all(line.startswith("my-camera ") for line in lines)


def test_a_camera_is_decided_in_time(bundle: Bundle) -> None:
    assert "12 captured = " in run("inspect_camera.py", bundle.path, "synthetic:?fps=25&frames=12")


def test_several_cameras_have_an_account_each(bundle: Bundle) -> None:
    camera = "synthetic:?fps=25&frames=5"
    last = run("several_cameras.py", bundle.path, f"left={camera}", f"right={camera}").splitlines()[-2:]
    assert sorted(line.split()[0] for line in last) == ["left", "right"]


@pytest.mark.slow
def test_two_precisions_are_compared(trained: Path, tmp_path: Path) -> None:
    assert "fp32.edgead: " in run("int8.py", trained, tmp_path)


@pytest.mark.slow
def test_a_model_is_trained_and_measured(parts: Path, tmp_path: Path) -> None:
    assert str(tmp_path / "report") in run("train.py", parts, tmp_path, *TINY)


def test_every_example_is_run_or_needs_what_no_test_has() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    needs_more = {"rtsp_to_mqtt.py": "a camera and a broker", "import_anomalib.py": "a model that anomalib exported"}
    present = {path.name for path in EXAMPLES.glob("*.py")}
    assert present == ELSEWHERE | {name for name in present if f'run("{name}"' in text} | needs_more.keys()
