"""examples/: every program runs, with what a test has instead of a camera."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import program
from level_bundle import frame_of, make_level_bundle
from ports import free_port

from edgead.bundle import MODEL, Bundle
from edgead.images import encode_png

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = ["steps=2", "size=64", "reconstructive_width=4", "discriminative_width=4", "batch_size=2"]


def run(name: str, *arguments: object) -> str:
    """Run an example; return what it prints."""
    return program(EXAMPLES / name, *arguments)


def test_photographs_are_collected(tmp_path: Path) -> None:
    assert "3 of 3" in run("collect_photographs.py", "synthetic:?fps=25&frames=20", tmp_path / "photos", 3, 0)
    first, _, last = sorted((tmp_path / "photos").glob("*.png"))
    kept = last.read_bytes()
    first.unlink()  # somebody has looked at them: the next photograph took the place of the last one
    run("collect_photographs.py", "synthetic:?fps=25&frames=20&seed=2", tmp_path / "photos", 3, 0)
    assert len(list((tmp_path / "photos").glob("*.png"))) == 3
    assert last.read_bytes() == kept


def test_an_output_is_high_only_while_parts_pass(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    images = parts / "test" / "good"
    printed = run("custom_sink.py", bundle.path, images, tmp_path / "pin")
    counts = [int(word) for word in printed.split() if word.isdigit()]
    assert sum(counts) == len(list(images.iterdir()))
    assert (tmp_path / "pin").read_text() == "0"  # at the end the output is low


def test_what_edgead_decides_can_be_computed_without_it(bundle: Bundle, parts: Path) -> None:
    images = sorted((parts / "test" / "chip").iterdir())
    lines = [line for line in run("inspect_folder.py", bundle.path, images[0].parent).splitlines() if line[0] != " "]
    assert len(lines) == len(images)
    limit = bundle.manifest.threshold.value
    for path, line in zip(images, lines):
        verdict, score, _ = line.split()
        again, plain_score = run("plain_onnxruntime.py", bundle.path, path).split()
        assert float(plain_score) == pytest.approx(float(score), abs=0.01)
        assert again == verdict or float(plain_score) == pytest.approx(limit, abs=0.01)


def test_what_is_computed_without_edgead_is_no_pass_where_there_is_no_score(tmp_path: Path) -> None:
    bundle, image = make_level_bundle(tmp_path / "level.edgead"), tmp_path / "good.png"
    image.write_bytes(encode_png(frame_of(50)))
    assert run("plain_onnxruntime.py", bundle.path, image).split() == ["PASS", "50.0"]
    graph = onnx.load(bundle.path / MODEL)
    [offset] = [each for each in graph.graph.initializer if each.name == "offset"]
    offset.CopyFrom(onnx.numpy_helper.from_array(np.float32(np.nan), "offset"))
    onnx.save(graph, bundle.path / MODEL)
    assert run("plain_onnxruntime.py", bundle.path, image).split() == ["UNKNOWN", "nan"]


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


def test_each_part_has_one_answer(bundle: Bundle) -> None:
    *answers, counts = run("triggered_line.py", bundle.path).splitlines()
    assert [line.split()[0] for line in answers] == ["A-0", "A-1", "A-2"]
    assert answers[1] == "A-1 UNKNOWN no_frame"
    assert "'triggered': 3, 'answered': 3" in counts


def test_a_plc_takes_each_result(bundle: Bundle, parts: Path) -> None:
    pytest.importorskip("pymodbus", reason="no pymodbus (pip install 'edgead[modbus]')")
    images = parts / "test" / "good"
    port = free_port()
    command = [sys.executable, "-m", "edgead", "run", str(bundle.path), "--source", str(images)]
    line = subprocess.Popen([*command, "--sink", f"modbus-server:127.0.0.1:{port}?hold_ms=10000"])
    printed = run("plc.py", "127.0.0.1", port, len(list(images.iterdir()))).splitlines()
    assert line.wait(20) == 0  # every result was acknowledged
    assert len({row.split()[1] for row in printed}) == len(list(images.iterdir()))
    assert {row.split()[0] for row in printed} <= {"PASS", "FAIL", "UNKNOWN"}


@pytest.mark.long
def test_two_precisions_are_compared(trained: Path, tmp_path: Path) -> None:
    assert "fp32.edgead: " in run("int8.py", trained, tmp_path)


@pytest.mark.long
def test_a_model_is_trained_and_measured(parts: Path, tmp_path: Path) -> None:
    assert str(tmp_path / "report") in run("train.py", parts, tmp_path, *TINY)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: str(path.name))
def test_without_arguments_one_line_says_how_to_call_it(path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        program(path)
    assert re.fullmatch(rf"Usage: python examples/{re.escape(path.name)} [A-Z].*", str(ended.value.code))


def test_every_example_is_run_or_needs_what_no_test_has() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    needs_more = {
        "draw_parts.py": "run by tests/test_docs_pages.py",
        "rtsp_to_mqtt.py": "a camera and a broker",
        "pycuda_camera.py": "run by tests/runtime/test_device_frames.py",
        "import_anomalib.py": "a model that anomalib exported",
        "triton_client.py": "run by tests/export/test_triton.py",
    }
    present = {path.name for path in EXAMPLES.glob("*.py")}
    assert present == {name for name in present if f'run("{name}"' in text} | needs_more.keys()
