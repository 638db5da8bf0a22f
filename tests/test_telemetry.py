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
TRAINED = """
import sys, time
import edgead.train.train, edgead.export.imported, edgead.export.official, edgead.benchmark.benchmark
import matplotlib, huggingface_hub, accelerate, onnxruntime
from edgead.cli import main
try:
    main(["methods"])
except SystemExit:
    time.sleep(SECONDS)
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


def run(code: str, home: Path, *arguments: str, seconds: float = 0.0, **variables: str) -> None:
    """Run Python code as a user with an empty home."""
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_", "HF_", "MPL"))}
    program = code.replace("SECONDS", str(seconds))
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        **{"capture_output": True, "text": True, "check": False, "timeout": 120},
        env={**kept, "HOME": str(home), **variables},
    )
    assert done.returncode == 0, done.stderr


def left_in(home: Path) -> list[str]:
    """Files that are neither ours nor a font list of matplotlib's."""
    files = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    return [file for file in files if not file.startswith((".cache/edgead/", ".cache/matplotlib/"))]


def engines() -> list[str]:
    from edgead.runtime.engines.auto import installed_engines

    return [name for name in installed_engines() if name in ("onnxruntime", "openvino")]


def test_nothing_is_left_in_the_home(bundle: Bundle, tmp_path: Path) -> None:
    run(LOADED, tmp_path / "home", str(bundle.path), *engines())
    assert left_in(tmp_path / "home") == []


def test_a_user_can_turn_it_on(bundle: Bundle, tmp_path: Path) -> None:
    """It shows too that the test above can fail, where this ONNX Runtime has telemetry."""
    import onnxruntime

    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 32) or sys.platform != "linux":
        pytest.skip("this ONNX Runtime reports nothing")
    run(
        LOADED,
        tmp_path / "home",
        str(bundle.path),
        "onnxruntime",
        ORT_DISABLE_TELEMETRY="0",
        http_proxy="http://[::1]:9",
    )
    assert left_in(tmp_path / "home")


@pytest.mark.slow
@pytest.mark.parametrize("code", [LOADED, TRAINED], ids=["runtime", "training"])
def test_no_name_is_asked_for(code: str, bundle: Bundle, tmp_path: Path) -> None:
    """In a network of its own, whose only computer is this one: it serves names and the web, and hears no question."""
    apart = ["unshare", "--net", "--mount"]
    if (
        not shutil.which("unshare")
        or not shutil.which("ip")
        or subprocess.run([*apart, "ip", "link"], check=False).returncode
    ):
        pytest.skip("a network of its own needs root, unshare and ip")
    for name, text in {"use.py": code.replace("SECONDS", "12"), "listen.py": LISTENER}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    home = tmp_path / "home"
    home.mkdir()
    script = f"""
        set -e; cd {tmp_path}; ip link set lo up; mount --bind resolv.conf /etc/resolv.conf
        {sys.executable} listen.py > heard & trap "kill $!" EXIT
        until grep -q ready heard; do sleep 0.1; done
        {sys.executable} use.py {bundle.path} {" ".join(engines())}
        [ -z "$CONTROL" ] || getent hosts control.example || true"""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_", "HF_"))}
    environment = {**kept, "HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([*apart, "bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "heard").read_text() == "ready\n"
    assert left_in(home) == []
