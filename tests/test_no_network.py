"""Every verb in a network of its own: it asks for no name and no address but those that the user gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from every_verb import calls
from https_folder import make_certificate
from network_apart import RAY, end, skip_without, start

from edgead.bundle import Bundle

DRIVER = """
import functools, json, socket, sys, time
from pathlib import Path
from edgead import demo
from edgead.cli import main
from https_folder import HttpsFolder
from tiny import TINY

def tell(text, sender=socket.socket(socket.AF_INET, socket.SOCK_DGRAM)):
    sender.sendto(text.encode(), ("127.0.0.1", 54))

def small(make, root, console):
    return make(root, train=24, good=4, bad=2, console=console)

demo.TIMING_SECONDS = 0.5
demo.make_parts = functools.partial(small, demo.make_parts)
demo.run_demo = functools.partial(demo.run_demo, settings=TINY)
demo._export_int8 = lambda *_: (None, "left out: import makes an INT8 bundle")
served = HttpsFolder(Path("copy.edgead"), (Path("server.pem"), Path("server.key")))
codes = {}
for name, verb_calls in json.loads(Path("calls.json").read_text()).items():
    tell(name)
    for arguments in verb_calls:
        try:
            main([each.replace("URL", served.url) for each in arguments])
        except SystemExit as ended:
            codes.setdefault(name, []).append(ended.code)
Path("codes.json").write_text(json.dumps(codes))
tell("rest")
time.sleep(12)  # uploads wait for a moment of rest: ONNX Runtime's first one comes after 9 s
"""
"""Runs all calls one after another, as one process: torch and the engines are imported once."""


def run_all(folder: Path, verb_calls: dict[str, list[list[str]]], timeout: float) -> tuple[set[str], list[str]]:
    (folder / "calls.json").write_text(json.dumps(verb_calls))
    return end(start(DRIVER, folder), folder, timeout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    skip_without()
    made = tmp_path / "work"
    made.mkdir()
    make_certificate(made, "server")
    return made


@pytest.mark.long
def test_no_verb_asks_for_anything(bundle: Bundle, parts: Path, trained: Path, folder: Path) -> None:
    """The last cases name a host, or need one: they show that the record sees what is asked for."""
    small, path, images = calls(bundle, parts, trained, folder), str(bundle.path), str(parts / "test")
    small["demo"] = []
    sinks = [
        "jsonl:r.jsonl",
        "sqlite:r.sqlite",
        "rejects:rejects",
        "modbus-server:127.0.0.1:0?ack=off",
        "opcua:127.0.0.1:0",
    ]
    live = [*(part for sink in sinks for part in ("--sink", sink)), "--metrics", "0", "--view", "0"]
    source = ["--source", images]
    verb_calls = {
        "keys": [["new", "key"], ["show", "key.pub"]],
        **{verb: [arguments] for verb, arguments in small.items() if verb not in ("keys", "pull", "sweep")},
        "run": [small["run"], [path, *source, *live, "--trigger", "camera:"], [path, *source, "--engine", "openvino"]],
        "export": [["--checkpoint", str(trained), "--out", "t.edgead", "--format", "triton"]],
        "import": [small["import"]],
        "plc": [["registers"]],
        "doctor": [[], ["--build", path]],
        "train": [[*small["train"], "--track", "tensorboard"]],
        "sweep": [small["sweep"]],
        "pull": [["URL", "--to", "now.edgead", "--trust", "key.pub", "--ca", "server.pem"]],
    }
    verb_calls = {verb: [[verb, *each] for each in arguments] for verb, arguments in verb_calls.items()}
    assert set(verb_calls) == set(small)
    named = {
        "camera": ["run", path, "--check", "--source", "rtsp://camera.example/line"],
        "weights": ["train", "--method", "patchcore", "--data", str(parts), "--preset", "nano", "--out", "w"],
    }
    everything = verb_calls | {name: [call] for name, call in named.items()}
    asked, left = run_all(folder, everything, 900)
    codes = json.loads((folder / "codes.json").read_text())
    expected = {name: [0] * len(each) for name, each in verb_calls.items()}
    assert {**codes, "doctor": codes["doctor"][:1]} == {**expected, "doctor": [0], "camera": [2], "weights": [2]}
    assert asked == {"camera: asked camera.example", "weights: asked download.pytorch.org"}
    assert left == []


@pytest.mark.long
def test_ray_asks_for_the_metadata_of_a_cloud_alone(bundle: Bundle, parts: Path, trained: Path, folder: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    calls(bundle, parts, trained, folder)
    archive = ["predict", str(bundle.path), str(parts / "test"), "--ray", "local", "--out", "archive.parquet"]
    asked, left = run_all(folder, {"predict": [archive], "sweep": [["sweep", "sweep.toml"]]}, 900)
    assert json.loads((folder / "codes.json").read_text()) == {"predict": [0], "sweep": [0]}
    assert {each.partition(": ")[2] for each in asked} <= RAY
    assert left == [".ray/auth_token"]
