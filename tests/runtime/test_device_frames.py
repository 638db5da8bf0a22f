"""Frames that are on the GPU already: taken where they are, or refused with the way out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorrt_on_cpu import environment, make_cuda, make_shim, needs_compiler, needs_rtx

from edgead.bundle import Bundle
from edgead.runtime.inspector import load

pytestmark = needs_compiler
HERE = Path(__file__).parent


def run(cuda: Path, folders: list[Path], *arguments: object) -> str:
    command = [sys.executable, str(HERE / "frames_on_gpu.py"), *map(str, arguments)]
    env = environment(*folders, HERE.parent, HERE, libraries=cuda)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def cuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cuda(tmp_path_factory.mktemp("cuda"))


@pytest.fixture(scope="module")
def found(cuda: Path, line_bundle: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(run(cuda, [], line_bundle))
    return result


@pytest.mark.parametrize("how", ["graph", "mapped", "no graph"])
def test_frames_of_both_protocols_give_what_those_of_the_host_give(found: dict[str, Any], how: str) -> None:
    """In turn with frames of the host, and in batches that are full, filled up and cut."""
    assert max(found[how]) < 1e-5
    assert found[f"{how}, one"] < 1e-5


def test_the_stream_that_writes_the_frames_is_waited_for(found: dict[str, Any]) -> None:
    assert found["stream"] < 1e-5


def test_results_are_those_of_frames_of_the_host(found: dict[str, Any]) -> None:
    scores, verdicts, numbers = zip(*found["results"])
    np.testing.assert_allclose(scores, found["on the host"], atol=1e-5)
    assert set(verdicts) <= {"PASS", "FAIL"}
    assert numbers == (7, 8, 9, 10, 11)


def test_whole_frames_are_fitted_on_the_gpu(found: dict[str, Any]) -> None:
    """After a plan that does not load, and in batches that are full, filled up and cut."""
    scores = found["whole"]["found"]
    np.testing.assert_allclose(scores, found["whole"]["on the host"], atol=1e-3)
    assert np.ptp(scores, axis=0)[0] > 1


def test_what_cannot_be_taken_is_refused_with_the_reason(found: dict[str, Any]) -> None:
    refused = found["refused"]
    assert refused.pop("another engine") == (
        "The frames are in the GPU's memory, and the engine onnxruntime-cpu does not read there.\n"
        "Use the engine tensorrt or onnxruntime-cuda, or copy them:  frames.get(), frames.cpu().numpy()"
    )
    assert refused.pop("a size").startswith("The engine takes uint8 frames [N, 64, 64, 3]")
    assert refused == {
        "a type": "Frames on the GPU must be uint8, not <f4.",
        "a packed type": "Frames on the GPU must be uint8, not type 1 of 16 bits.",
        "strides": "Frames on the GPU must be C-contiguous. Those of shape (5, 64, 64, 3) are not: copy them there.",
        "host memory": "The frames are not in the GPU's memory. Pass frames in host memory as NumPy arrays.",
    }


def test_another_context_is_refused_with_the_way_out_and_stays_current(found: dict[str, Any]) -> None:
    assert found["contexts"]["words"] == (
        "The frames belong to another CUDA context than the engine, which uses the GPU's primary one.\n"
        "With pycuda, replace  import pycuda.autoinit  by  import pycuda.autoprimaryctx"
    )
    assert found["contexts"]["kept"] == [1, 1, 1]


@needs_rtx
def test_the_example_decides_as_on_the_host(cuda: Path, first: Bundle, line_parts: Path, tmp_path: Path) -> None:
    """Real builds of the model and of the resize."""
    images = Path(shutil.copytree(line_parts / "test" / "good", tmp_path / "images"))
    (images / "damaged.png").write_bytes(b"\x89PNG")
    printed = run(cuda, [make_shim(tmp_path / "shim", "tensorrt_with_kernels")], first.path, images)
    lines = [line.split() for line in printed.splitlines()]
    (images / "damaged.png").unlink()
    assert [line[1] for line in lines if line[0].endswith("damaged.png")] == ["UNKNOWN"]
    lines = [line for line in lines if not line[0].endswith("damaged.png")]
    import cv2

    with load(first.path, engine="onnxruntime") as inspector:
        expected = {str(path): inspector.inspect(cv2.imread(str(path))).score for path in sorted(images.iterdir())}
    assert [line[0] for line in lines] == list(expected)
    np.testing.assert_allclose([float(line[2]) for line in lines], list(expected.values()), atol=1e-3)
    assert np.ptp(list(expected.values())) > 0.1
