"""NVIDIA's Triton Inference Server, from the wheel of PyTriton, with ONNX Runtime from pip as its backend.

The wheel holds the server itself, which reads `config.pbtxt`, batches, and speaks the protocol. Its ONNX Runtime
backend is not on PyPI; a Python backend of the same name takes its place and runs the same library.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BACKEND = """
import os
from pathlib import Path
import numpy
import onnxruntime
import triton_python_backend_utils as backend

class TritonPythonModel:
    def initialize(self, args):
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self.answer(numpy.from_dlpack(backend.get_input_tensor_by_name(each, "frames"))) for each in requests]

    def answer(self, frames):
        names = ["scores", "maps"]
        outputs = self.session.run(names, {"frames": frames})
        return backend.InferenceResponse([backend.Tensor.from_dlpack(*each) for each in zip(names, outputs)])
"""
INSTALL = "pip install --no-deps nvidia-pytriton tritonclient python-rapidjson"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def _stub() -> Path | None:
    """Return PyTriton's part for this Python; None where it is not installed or does not fit this machine."""
    found = importlib.util.find_spec("pytriton")
    if found is None or found.origin is None:
        return None
    stub = Path(found.origin).parent / "tritonserver" / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    return stub if stub.is_file() else None


needs_triton = pytest.mark.skipif(
    _stub() is None or importlib.util.find_spec("tritonclient") is None, reason=f"no Triton server ({INSTALL})"
)


@contextmanager
def serve(repository: Path, folder: Path) -> Iterator[str]:
    """Serve a model repository; yield host and port of its gRPC service, once all models are ready.

    Args:
        repository: the models.
        folder: a new one, for the backends and the server's log.
    """
    stub = _stub()
    assert stub is not None
    files = stub.parents[2]
    backends = folder / "backends"
    shutil.copytree(files / "backends" / "python", backends / "python")
    (backends / "onnxruntime").mkdir()
    (backends / "onnxruntime" / "model.py").write_text(BACKEND)
    for program in (shutil.copy(stub, backends / "python"), shutil.copy(files / "bin" / "tritonserver", folder)):
        Path(program).chmod(0o755)
    libraries = [files.parents[1] / "nvidia_pytriton.libs", Path(sysconfig.get_config_var("LIBDIR"))]
    paths = [path for path in sys.path if path.endswith("site-packages")]
    variables = {
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "ORT_DISABLE_TELEMETRY": "1",
    }
    grpc, http = _free_ports()
    options = {
        "model-repository": repository,
        "backend-directory": backends,
        "grpc-port": grpc,
        "http-port": http,
        "grpc-address": "127.0.0.1",
        "http-address": "127.0.0.1",
        "allow-metrics": "false",
        "model-control-mode": "none",
    }
    log = folder / "server.log"
    command = [str(folder / "tritonserver"), *(f"--{name}={value}" for name, value in options.items())]
    command.append("--disable-auto-complete-config")  # what config.pbtxt does not say is not guessed
    with log.open("w") as stream:
        server = subprocess.Popen(command, env={**os.environ, **variables}, stdout=stream, stderr=stream)
    try:
        _wait(server, http, log)
        yield f"127.0.0.1:{grpc}"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until the server accepts connections, which it does when its models are loaded and warm."""
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text())
