"""Secrets of every kind in real runs: nothing that is written, served or shown in `ps` holds one."""

from __future__ import annotations

import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from command_line import inside
from level_bundle import frame_of, make_level_bundle
from ports import free_port

import edgead
from edgead.bundle import Bundle
from edgead.cli.visible import holds_secret
from edgead.errors import ConfigError
from edgead.images import encode_png
from edgead.line.outputs.opcua.server import OpcuaServer
from edgead.line.triggers import open_trigger
from edgead.pull import download

SECRETS = {name: f"{name.lower()}-s3cr3t/?#@ä" for name in ("CAMERA", "HOOK", "BROKER", "TRIGGER")}
SECRETS |= {"HOOK_TOKEN": "hook-t0ken-s3cr3t", "METRICS": "metrics-t0ken-s3cr3t", "VIEW": "view-t0ken-s3cr3t"}


def forms(secret: str) -> list[bytes]:
    """A secret as it is, as a URI and JSON have it, and with a user as HTTP sends it."""
    pairs = [base64.b64encode(f"{user}:{secret}".encode()) for user in ("user", "cell-7")]
    return [secret.encode(), quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode(), *pairs]


def leaks(content: bytes) -> list[str]:
    return [name for name, secret in SECRETS.items() if any(form in content for form in forms(secret))]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_level_bundle(tmp_path_factory.mktemp("bundle") / "tiny.edgead")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    for name in ("CACHE", "STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    (tmp_path / "hook").write_text(SECRETS["HOOK"] + "\n")
    return tmp_path


def addresses(folder: Path) -> list[str]:
    """Sources and sinks that nobody answers: errors say the most."""
    return [
        *("--source", "cam=http://user:${CAMERA}@127.0.0.1:1/stream"),
        *("--source", "rtsp=rtsp://user:${CAMERA}@127.0.0.1:1/line"),
        *("--sink", f"http://user:${{file:{folder / 'hook'}}}@127.0.0.1:1/in?token=${{HOOK_TOKEN}}"),
        *("--sink", f"mqtt://cell-7:${{BROKER}}@127.0.0.1:1/cell-7?store={folder / 'store.sqlite'}"),
    ]


@pytest.mark.slow
def test_a_run_shows_no_secret(bundle: Bundle, folder: Path) -> None:
    metrics, view = free_port(), free_port()
    command = [
        *(sys.executable, "-m", "edgead", "run", bundle.path, "--engine", "onnxruntime", "--health", "off"),
        *("--source", "synthetic:?fps=50&width=64&height=64", *addresses(folder)),
        *("--sink", f"jsonl:{folder / 'out.jsonl'}", "--sink", f"sqlite:{folder / 'out.sqlite'}"),
        *("--sink", f"rejects:{folder / 'rejects'}", "--record", folder / "record", "--silence", "0.5"),
        *("--metrics", metrics, "--metrics-token", "${METRICS}", "--json"),
        *("--view", view, "--view-token", "${VIEW}", "--view-folder", folder / "view"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(edgead.__file__).parents[1])}
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 60
        while not (folder / "out.jsonl").exists() or len((folder / "out.jsonl").read_bytes().splitlines()) < 100:
            assert time.monotonic() < until
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes() if Path("/proc/self").exists() else b""
        for port, path, token in ((metrics, "metrics", "METRICS"), (metrics, "healthz", "METRICS"), (view, "", "VIEW")):
            url = f"http://127.0.0.1:{port}/{path}"
            asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {SECRETS[token]}"})
            with urllib.request.urlopen(asked, timeout=10) as answer:
                shown += answer.read()
        with urllib.request.urlopen(f"http://127.0.0.1:{view}/api/events", timeout=10) as answer:
            shown += answer.read1(1 << 20)
        process.send_signal(signal.SIGTERM)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert b"edgead_frames_captured_total" in shown
    assert b'"cam"' in out  # the camera that cannot be opened is named
    assert b"mqtt://127.0.0.1:1/cell-7" in out + err
    assert leaks(shown + out + err) == []
    written = [file for file in folder.rglob("*") if file.is_file() and file != folder / "hook"]
    assert {"out.jsonl", "out.sqlite", "store.sqlite"} <= {file.name for file in written}
    assert {str(file): found for file in written if (found := leaks(file.read_bytes()))} == {}
    with closing(sqlite3.connect(folder / "out.sqlite")) as opened:
        assert leaks("\n".join(opened.iterdump()).encode()) == []


@pytest.mark.slow
def test_errors_show_no_secret(bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks, wrong options and addresses that cannot be used; results that a sink did not take."""
    image = folder / "x.png"
    image.write_bytes(encode_png(frame_of(200)))
    line = folder / "line.toml"
    line.write_text(
        '[cameras.a]\nsource = "rtsp://user:${CAMERA}@127.0.0.1:1/line"\n'
        f'[products.x]\nbundle = "{bundle.path}"\n[run]\nmetrics_token = "{SECRETS["METRICS"]}"\nmetrics = "x"\n'
    )
    run = ["run", bundle.path, "--engine", "onnxruntime"]
    calls: list[list[str | Path]] = [
        [*run, "--check", *addresses(folder), "--trigger", f"http://127.0.0.1:{free_port()}/part?token=${{TRIGGER}}"],
        [*run, *addresses(folder)],
        [*run, "--source", image, "--trigger", f"http://127.0.0.1:{free_port()}/part?token=${{TRIGGER}}&wrong=1"],
        [*run, "--source", image, "--trigger", "mqtt://cell-7:${BROKER}@127.0.0.1:1/#"],
        [*run, "--source", image, "--sink", "opcua:user:${BROKER}@127.0.0.1:1"],
        [*run, "--source", "cam=https://user:${CAMERA}@127.0.0.1:1/x?ca=absent.pem"],
        [*run, "--source", "genicam:${CAMERA}"],
        [*run, "--source", image, "--metrics", "x", "--metrics-token", "${METRICS}"],
        [*run, "--source", image, "--view", "x", "--view-token", "${VIEW}"],
        ["run", "--config", line],
        ["predict", bundle.path, image, "--engine", "onnxruntime", *addresses(folder)[4:]],
        [
            "pull",
            "https://127.0.0.1:1/x",
            "--to",
            folder / "l",
            "--token",
            "${HOOK_TOKEN}",
            "--trust",
            folder / "k.pub",
        ],
    ]
    assert inside("keys", "new", folder / "k").returncode == 0
    monkeypatch.setattr(download, "PAUSE", 0.01)
    for call in calls:
        done = inside(*call, folder=folder)
        assert done.returncode != 0, call
        assert leaks((done.stdout + done.stderr).encode()) == [], call
        assert "Traceback" not in done.stderr


def test_what_ps_would_show(bundle: Bundle, folder: Path) -> None:
    image = folder / "x.png"
    image.write_bytes(encode_png(frame_of(200)))
    run = ["run", bundle.path, "--source", image, "--engine", "onnxruntime"]
    done = inside(*run, "--metrics", "0", "--metrics-token", SECRETS["METRICS"])
    assert "visible in ps" in done.stderr
    assert leaks(done.stderr.encode()) == []
    for option, uri in (
        ("--sink", "mqtt://u:pass-w0rd@127.0.0.1:1/t"),
        ("--source", "rtsp://u:pass-w0rd@127.0.0.1:1/"),
    ):
        done = inside(*run, "--check", option, uri)
        assert f"Warning: ps shows the password in {option}." in done.stderr
        assert "pass-w0rd" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("uri", "holds"),
    [
        ("rtsp://user:word@cam/line", True),
        ("left=rtsp://user:word@cam/line", True),
        ("https://mes/hook?token=word", True),
        ("http://127.0.0.1:8090/part?token=word", True),
        ("rtsp://user:${CAMERA}@cam/line", False),
        ("https://mes/hook?token=${HOOK}", False),
        ("rtsp://cam/line?tcp=1", False),
        ("jsonl:a:b@c", False),
        ("sqlite:/x/token=y", False),
        ("0", False),
        ("C:/images", False),
        ("http://[::1/x", False),
    ],
)
def test_which_addresses_hold_a_secret(uri: str, holds: bool) -> None:
    assert holds_secret(uri) is holds


def test_what_other_machines_reach_is_protected() -> None:
    """Metrics and page: tests/runtime/test_metrics_server.py, tests/view/test_view_server.py."""
    for token in ("", "?token=guessable"):
        with pytest.raises(ConfigError, match=r"needs a token|at least 12"):
            open_trigger(f"http://0.0.0.0:{free_port()}/part{token}")
    pytest.importorskip("asyncua")
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(ConfigError, match=r"(?s)can be reached by other machines.*\?cert=FILE.*open=on"):
            OpcuaServer(host, 0)
