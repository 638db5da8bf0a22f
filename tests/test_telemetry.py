"""No library that edgead uses reports to its maker, whichever way edgead is entered."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgead.bundle import Bundle

LOADED = """
import sys, time
import numpy as np
import edgead
for engine in sys.argv[2:]:
    with edgead.load(sys.argv[1], engine=engine) as inspector:
        inspector.inspect(np.zeros((64, 64, 3), np.uint8))
time.sleep(SECONDS)  # uploads wait for a moment of rest
"""
REPORTS = """
import sys, time
import numpy, onnxruntime
onnxruntime.InferenceSession(sys.argv[1]).run(None, {"frames": numpy.zeros((1, 64, 64, 3), numpy.uint8)})
time.sleep(SECONDS)
"""
TRAINED = """
import sys, time
import edgead.train.training, edgead.benchmark
import edgead.export.imports.onnx_model, edgead.export.imports.published_checkpoint
import huggingface_hub, accelerate, onnxruntime
from edgead.cli import main
try:
    main(["methods"])
except SystemExit:
    time.sleep(SECONDS)
"""
ON_RAY = """
import os, sys, time
from pathlib import Path
from edgead.cluster import connected
with connected() as ray:
    print(ray.get(ray.remote(lambda: os.getpid()).remote()))
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    listening = {line[1].partition(":")[0] for line in lines if line[3] == "0A"}
    time.sleep(SECONDS)
loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
assert len(lines) > 5 and listening <= loopback, listening
"""
LISTENER = """
import select, socket, sys
names, web = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.create_server(("127.0.0.1", 443))
names.bind(("127.0.0.1", 53))
print("ready", flush=True)
while True:
    for ready in select.select([names, web], [], [])[0]:
        print("asked", ready.recvfrom(512)[0] if ready is names else "web", flush=True)
"""


def left_in(home: Path) -> list[str]:
    """Files that are not ours."""
    files = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    return [file for file in files if not file.startswith(".cache/edgead/")]


def engines() -> list[str]:
    from edgead.runtime.engines.opening import installed_engines

    return [name for name in installed_engines() if name in ("onnxruntime", "openvino")]


@pytest.fixture(scope="module")
def apart() -> list[str]:
    """A command that runs another in a network of its own, whose only computer is this one."""
    command = ["unshare", "--net", "--mount"]
    if sys.platform != "linux" or not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("a network of its own needs Linux with unshare and ip")
    if subprocess.run([*command, "ip", "link"], capture_output=True, check=False).returncode:
        pytest.skip("a network of its own needs root")
    return command


def start(
    apart: list[str], code: str, folder: Path, *arguments: str, seconds: float, **variables: str
) -> subprocess.Popen[str]:
    """Start Python code as a user with an empty home."""
    folder.mkdir()
    for name, text in {"use.py": code.replace("SECONDS", str(seconds)), "listen.py": LISTENER}.items():
        (folder / name).write_text(text)
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    home = folder / "home"
    home.mkdir()
    script = f"""
        set -e; ip link set lo up; mount --bind resolv.conf /etc/resolv.conf
        {sys.executable} listen.py > heard & trap "kill $!" EXIT
        until grep -q ready heard; do sleep 0.1; done
        {sys.executable} use.py {" ".join(arguments)}"""
    # ONNX Runtime reports nothing where CI is set: the tests would see nothing either way.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CI", "ORT_", "XDG_", "HF_"))}
    environment = {**kept, "HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[1]), **variables}
    command = [*apart, "bash", "-c", script]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, cwd=folder, **pipes)


def end(process: subprocess.Popen[str], folder: Path) -> tuple[str, list[str]]:
    """Wait for it; return what asked for a name or the web, and what it left in its home."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return (folder / "heard").read_text(), left_in(folder / "home")


@pytest.mark.long
def test_nothing_is_reported(apart: list[str], bundle: Bundle, tmp_path: Path) -> None:
    """All at the same time. The last one shows that uploads are seen, where this ONNX Runtime has telemetry."""
    import onnxruntime

    model, seconds = str(bundle.model), 12  # the first upload comes after 9
    processes = {
        "runtime": start(apart, LOADED, tmp_path / "runtime", str(bundle.path), *engines(), seconds=seconds),
        "training": start(apart, TRAINED, tmp_path / "training", seconds=seconds),
        "reports": start(apart, REPORTS, tmp_path / "reports", model, seconds=seconds, ORT_DISABLE_TELEMETRY="0"),
    }
    found = {name: end(process, tmp_path / name) for name, process in processes.items()}
    assert found["runtime"] == ("ready\n", [])
    assert found["training"] == ("ready\n", [])
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 32):
        heard, left = found["reports"]
        assert "asked" in heard
        assert left


@pytest.mark.long
def test_ray_reports_nothing_and_listens_on_loopback_alone(apart: list[str], tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    folder = tmp_path / "ray"
    heard, left = end(start(apart, ON_RAY, folder, seconds=8), folder)
    # Ray looks for the metadata service of a cloud when it starts, whatever its switch says; it sends nothing.
    others = [line for line in heard.splitlines() if "metadata\\x06google\\x08internal" not in line]
    assert (others, left) == (["ready"], [".ray/auth_token"])


def test_a_user_can_turn_it_on(apart: list[str], bundle: Bundle, tmp_path: Path) -> None:
    import onnxruntime

    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 32):
        pytest.skip("this ONNX Runtime reports nothing")
    folders = {value: tmp_path / value for value in ("0", "1")}
    started = {
        value: start(apart, LOADED, folder, str(bundle.path), "onnxruntime", seconds=0, ORT_DISABLE_TELEMETRY=value)
        for value, folder in folders.items()
    }
    left = {value: end(process, folders[value])[1] for value, process in started.items()}
    assert left["0"]
    assert not left["1"]
