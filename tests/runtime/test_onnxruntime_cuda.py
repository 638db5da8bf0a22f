"""ONNX Runtime's CUDA engine without a GPU: buffers, streams, threads, and messages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from tensorrt_on_cpu import environment, make_cuda, needs_compiler

from edgead.errors import BundleError
from edgead.runtime.engines import onnxruntime_cuda
from edgead.runtime.engines.onnxruntime_cuda import load_libraries
from edgead.runtime.engines.onnxruntime_engine import ProviderError, open_session, why_not_loaded

CUDA = "CUDAExecutionProvider"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, line_bundle: Path) -> dict[str, Any]:
    program = Path(__file__).with_name("onnxruntime_on_streams.py")
    libraries = make_cuda(tmp_path_factory.mktemp("cuda"))
    done = subprocess.run(
        [sys.executable, str(program), str(line_bundle)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(libraries=libraries),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@needs_compiler
@pytest.mark.parametrize("how", ["plain", "graph", "sleep"])
def test_batches_of_every_size_give_what_a_plain_run_gives(found: dict[str, Any], how: str) -> None:
    assert found[how]["worst"] < 1e-5
    assert found[how]["recorded"] is (how == "graph")
    assert found[how]["left"] == 0


@needs_compiler
def test_each_size_is_recorded_once_whatever_thread_infers(found: dict[str, Any]) -> None:
    assert found["recordings"] == 2


@needs_compiler
def test_beside_an_open_engine_nothing_is_recorded(found: dict[str, Any]) -> None:
    """A recording would fail, or break the other engine's inference."""
    assert found["second"]["recorded"] is False
    assert found["second"]["worst"] < 1e-5
    assert found["second"]["said"] == [
        "No CUDA graph is recorded: Another engine on this GPU is open in the process. Continuing without one."
    ]
    assert found["third"] is True
    assert found["meanwhile"] == []


@needs_compiler
def test_a_graph_that_cannot_be_recorded_runs_without(found: dict[str, Any]) -> None:
    assert found["refused"]["recorded"] is False
    assert found["refused"]["worst"] < 1e-5
    assert found["refused"]["said"] == [
        "No CUDA graph is recorded: ONNX Runtime failed: This session cannot use the graph capture feature as "
        "requested. Continuing without one."
    ]
    assert found["left"] == 0


@needs_compiler
def test_the_loaders_words_about_a_providers_library_are_shown(tmp_path: Path) -> None:
    """As with a PC that has a driver and no CUDA: the provider's library needs one that is not there."""
    build = ["gcc", "-shared", "-fPIC", "-x", "c", "/dev/null", "-o"]
    subprocess.run([*build, str(tmp_path / "libonnxruntime_providers_shared.so")], check=True)
    subprocess.run([*build, str(tmp_path / "libcublas_of_the_test.so.13")], check=True)
    needs = ["-Wl,--no-as-needed", f"-L{tmp_path}", "-l:libcublas_of_the_test.so.13"]
    subprocess.run([*build, str(tmp_path / "libonnxruntime_providers_cuda.so"), *needs], check=True)
    (tmp_path / "libcublas_of_the_test.so.13").unlink()
    words = why_not_loaded(tmp_path, CUDA)
    assert words == "libcublas_of_the_test.so.13: cannot open shared object file: No such file or directory."
    assert why_not_loaded(tmp_path / "other", CUDA) == "libonnxruntime_providers_cuda.so is not part of this package."


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="onnxruntime-gpu is installed")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_cannot_be_used_is_an_error_with_its_reason(
    line_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ProviderError, match=r"cannot use CUDAExecutionProvider here: libonnxruntime_\w+\.so is not"):
        open_session(line_bundle / "model.onnx", CUDA, {})
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version", ProviderError),
        ("CUDNN failure 1001: CUDNN_STATUS_NOT_INITIALIZED", ProviderError),
        ("Fatal error: com.acme:Swizzle(-1) is not a registered function/op", BundleError),
    ],
)
def test_a_failure_of_cuda_is_no_failure_of_the_graph(
    monkeypatch: pytest.MonkeyPatch, line_bundle: Path, text: str, kind: type[Exception]
) -> None:
    given: dict[str, Any] = {}

    def fails(*_: object, **options: Any) -> None:
        given.update(options)
        raise RuntimeError(text)

    monkeypatch.setattr(onnxruntime, "InferenceSession", fails)
    with pytest.raises(kind, match=text.split(":")[0] if kind is ProviderError else "cannot read"):
        open_session(line_bundle / "model.onnx", CUDA, {})
    assert given["enable_fallback"] == 0  # otherwise a second session on the CPU, and words on standard output


def test_the_libraries_of_pip_are_loaded_once_and_nothing_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcublasLt.so.13"), raising=False)
    load_libraries.cache_clear()
    onnxruntime_cuda.load_libraries()
    onnxruntime_cuda.load_libraries()
    load_libraries.cache_clear()
    assert capsys.readouterr() == ("", "Failed to load libcublasLt.so.13\n")
