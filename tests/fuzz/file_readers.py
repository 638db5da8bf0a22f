"""Readers of text files: JSON, JSON lines, TOML and tables."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from guard import REPOSITORY
from mutate import change_bytes, change_json, change_lines, change_toml
from reader import Reader

from edgead import schema
from edgead.bundle import GOLDEN, MANIFEST, MODEL, manifest_digest, read_bundle
from edgead.datasets.lookout import find_manifests, open_lookout
from edgead.datasets.tables import open_meta, open_visa, read_meta
from edgead.images import COLOUR, encode_png
from edgead.line.line_file import read_line_file
from edgead.line.triggers.http import read_id
from edgead.machine import describe_machine
from edgead.marks import Marks
from edgead.plan.profile import read_profile
from edgead.redaction import redact, shown
from edgead.reports import page
from edgead.reports.build import build_report
from edgead.reports.comparison import compare
from edgead.runtime.engines import auto
from edgead.runtime.engines.tensorrt_build import BuildRequest, BuildSettings
from edgead.runtime.engines.tensorrt_cache import CachedPlan, PlanFacts
from edgead.runtime.record import open_replay
from edgead.sweep.file import read_sweep_file
from edgead.view.access import Refused
from edgead.view.actions import _read as read_action

TESTS = REPOSITORY / "tests"
PICTURE = encode_png(np.full((4, 4, 3), 90, np.uint8))


def _texts(*values: str) -> list[bytes]:
    return [value.encode() for value in values]


def _stored(*patterns: str) -> list[bytes]:
    return [path.read_bytes() for pattern in patterns for path in sorted(TESTS.glob(pattern))]


def _put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    try:
        path.write_bytes(data)
    except FileNotFoundError:
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    return path


# The manifest of a bundle


@functools.cache
def _small_bundle(folder: Path) -> dict[str, bytes]:
    from level_bundle import make_level_bundle

    made = make_level_bundle(folder / "seed.edgead")
    return {path.name: path.read_bytes() for path in made.path.iterdir()}


def _read_bundle(data: bytes, folder: Path) -> object:
    """Read a bundle with this manifest, sealed again: an attacker can compute the digest too."""
    try:
        values = json.loads(data)
        if isinstance(values, dict):
            values["digest"] = manifest_digest(values)
            data = json.dumps(values).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        pass
    files = _small_bundle(folder)
    for name in (MODEL, GOLDEN):
        if not (folder / "b.edgead" / name).exists():
            _put(folder, f"b.edgead/{name}", files[name])
    _put(folder, f"b.edgead/{MANIFEST}", data)
    bundle = read_bundle(folder / "b.edgead")
    manifest = bundle.manifest
    manifest.threshold.describe()
    if manifest.origin:
        manifest.origin.describe()
    if manifest.gate:
        manifest.gate.describe()
    return bundle.golden().frames, manifest.aspects, manifest.failed_engines, json.dumps(manifest.to_dict())


def _bundle_seeds(folder: Path) -> list[bytes]:
    own = json.loads(_small_bundle(folder)[MANIFEST])
    found = [json.dumps(own).encode()]
    for text in _stored("format_1/manifests/*.json"):  # real ones, over the files of the small bundle
        values = {**json.loads(text), "files": own["files"], "input": own["input"]}
        found.append(json.dumps(values).encode())
    return found


# Recordings


def _read_recording(data: bytes, folder: Path) -> object:
    head, _, events = data.partition(b"\n")
    _put(folder, "recording.json", head)
    _put(folder, "events.jsonl", events)
    _put(folder, "frames/000000000.png", PICTURE)
    with open_replay(f"replay:{folder}", COLOUR) as frames:
        return [frame.error for frame in frames]


RECORDING = (
    '{"format": 1, "bundle": "b", "model_sha256": "0", "engine": "onnxruntime"}\n'
    '{"frame": "frames/000000000.png", "source_id": "a", "frame_id": 0, "verdict": "PASS", "reason": "", "cause": ""}\n'
    '{"frame": null, "source_id": "a", "frame_id": 1, "verdict": "UNKNOWN", "reason": "late", "cause": "stale"}\n'
    '{"dropped": "queue", "source_id": "a", "frame_id": 2, "t_capture": 1.5}\n'
    '{"frame": null, "source_id": "a", "frame_id": null, "verdict": "UNKNOWN", "reason": "lost", "cause": "lost"}\n'
)


# Data sets


def _read_lookout(data: bytes, folder: Path) -> object:
    _put(folder, "train.manifest", data)
    for name in ("a.png", "b.png", "deep/b.png", "mask.png"):
        if not (folder / name).exists():
            _put(folder, name, PICTURE)
    found = find_manifests(folder)
    return open_lookout(folder, found) if found else None


LOOKOUT = (
    '{"source-ref": "s3://bucket/a.png", "l": 1, "l-metadata": {"class-name": "normal", "type": '
    '"groundtruth/image-classification"}}\n'
    '{"source-ref": "s3://bucket/deep/b.png", "l": 1, "l-metadata": {"class-name": "anomaly", "type": '
    '"groundtruth/image-classification"}, "m-ref": "s3://bucket/mask.png", "m-ref-metadata": {"internal-color-map": '
    '{"0": {"class-name": "BACKGROUND", "hex-color": "#ffffff"}, "1": {"class-name": "dent", "hex-color": "#00ff00"}}, '
    '"type": "groundtruth/semantic-segmentation"}}\n'
)


def _read_meta(data: bytes, folder: Path) -> object:
    _put(folder, "meta.json", data)
    _put(folder, "c/1.png", PICTURE)
    return [open_meta(folder, name, rows) for name, rows in read_meta(folder).items()]


META = (
    '{"train": {"c": [{"img_path": "c/1.png", "mask_path": "", "anomaly": 0, "specie_name": ""}]}, "test": {"c": '
    '[{"img_path": "c/1.png", "mask_path": "c/1.png", "anomaly": 1, "specie_name": "dent", "cls_name": "c"}]}}'
)


def _read_visa(data: bytes, folder: Path) -> object:
    _put(folder, "candle/image_anno.csv", data)
    _put(folder, "candle/Data/Images/Normal/0.JPG", PICTURE)
    return open_visa(folder / "candle")


VISA = (
    "image,label,mask\ncandle/Data/Images/Normal/0.JPG,normal,\n"
    "candle/Data/Images/Anomaly/1.JPG,melt,candle/Data/Masks/1.png\n"
)


# Texts that are shown


def _read_text(data: bytes, _folder: Path) -> object:
    """What any error, log or page does with a text of others."""
    text = data.decode("utf-8", "replace")
    return redact(text), shown(text)


TEXTS = (
    "rtsp://user:a/word1@cam-3:554/line?token=word1 failed\nAuthorization: Digest username='u', response='word1'\n",
    "{'Authorization': 'Basic word1=='} api_key=word1 //user:two words@nas/share https://h/x/T0/abcdefghijklmnopqrst1",
    '{"password": "word1", "url": "http://u:word1@[::1]:8080/?a=1&b=word1#word1"} user:a b@host C:\\x\\y:z \x1b[31m',
)


@contextlib.contextmanager
def _unredacted() -> Iterator[None]:
    """Pages as they are: to look for secrets in them takes longer than all else, and is read as ``text``."""
    before, page.redact = page.redact, str  # type: ignore[attr-defined]
    try:
        yield
    finally:
        page.redact = before  # type: ignore[attr-defined]


# Files of the line


def _read_line(data: bytes, folder: Path) -> object:
    (folder / "b.edgead").mkdir(exist_ok=True)
    line = read_line_file(_put(folder, "line.toml", data))
    return line.options(), line.delays


LINE = """product = "bottle"
triggers = ["http://127.0.0.1:8090/part"]
control = ["http://127.0.0.1:8091/product"]
sinks = ["jsonl:out.jsonl"]

[cameras.left]
source = "rtsp://camera/line"
delay = 20

[cameras."right-one"]
source = "0"

[products.bottle]
bundle = "b.edgead"
version = "7"
threshold = 0.5
roi = ["10,10,20,20"]
ignore = []
min_area = 3

[part]
within = 800
frames = 2
fails = "all"
delay = 5.5
min_distance = 10

[run]
engine = "auto"
batch = 2
on_full = "drop-oldest"
deadline = 500
health = "live"
boxes = true
view = "127.0.0.1:8080"
"""
SWEEP = """data = "data"
preset = "nano"
seeds = [0, 1]
categories = ["bottle"]

[[methods]]
method = "draem"
precisions = ["fp32", "int8"]
settings = ["steps=10"]
false_reject = 0.01

[[methods]]
method = "patchcore"
label = "memory"
weights = "w.pth"
cpus = 1
gpus = 0.5
"""


def _read_marks(data: bytes, folder: Path) -> object:
    return Marks(_put(folder, "marks.jsonl", data).parent).all()


MARKS = '{"id": "a-1", "mark": "false reject", "by": "x"}\n{"id": "a-2", "mark": "unsure"}\n'


def _read_action(data: bytes, _folder: Path) -> object:
    try:
        values = read_action(data)
    except Refused:
        values = {}
    try:
        return values, read_id(data or b"{}", "part_id")
    except (ValueError, RecursionError):  # what the trigger answers with 400
        return values


# What edgead itself keeps on this machine


def _read_choice(data: bytes, folder: Path) -> object:
    found = auto._read(_put(folder, "engines.json", data))
    return found.get("key", {}).get("engine") in ["onnxruntime"], json.dumps({**found, "key": {}})


def _read_plan(data: bytes, folder: Path) -> object:
    settings = BuildSettings()
    request = BuildRequest("m.onnx", (4, 4), (1,), str(folder / "p.part"), "", settings, 3, "")
    facts = PlanFacts("0", "10.3", "gpu", "8.7", "550", [1], settings)
    _put(folder, "p.json", data)
    plan = CachedPlan(_put(folder, "p.plan", b"plan"), request, facts, "fp32")
    return plan._load(b""), plan.build_command()


PLAN = '{"sha256": "a", "strong": true, "precision": ["--fp16"], "seconds": 3.5}'


def _read_run(data: bytes, folder: Path) -> object:
    from edgead.train.run_config import load_run_config

    _put(folder, "config.json", data)
    run = load_run_config(folder)
    return run.steps_in_epoch, run.stored_config, run.trained_precision, run.pixels


def _read_metrics(data: bytes, folder: Path) -> object:
    from edgead.train.step_metrics import read_metrics, trim_metrics
    from edgead.train.training_state import State

    _put(folder, "config.json", b'{"method": "draem", "config": {"steps": 3}}')
    _put(folder, "metrics.jsonl", data)
    found = [entry.to_line() for entry in read_metrics(folder)]
    with _unredacted():
        build_report(folder)
    trim_metrics(folder, ["train", "x"], State(0, 2, {}))
    return found


METRICS = (
    '{"stage": "train", "step": 1, "total": 0.5, "l2": 0.25, "learning_rate": 0.001}\n'
    '{"stage": "train", "step": 2, "total": 0.4, "l2": 0.2, "learning_rate": 0.001}\n'
    '{"stage": "x", "step": 1, "total": 0.4}\n'
)


def _read_results(data: bytes, folder: Path) -> object:
    for name in ("config.json", "metrics.jsonl"):
        (folder / name).unlink(missing_ok=True)
    _put(folder, "results.json", data)
    with _unredacted():
        build_report(folder)
    return compare([folder / "results.json"]).page()


def _read_run_results(data: bytes, folder: Path) -> object:
    """A run's configuration, results and pictures, in three lines."""
    lines = [*data.split(b"\n"), b"", b""]
    _put(folder, "metrics.jsonl", METRICS.encode())
    for name, line in zip(("config.json", "results.json", "pictures.json"), lines):
        _put(folder, name, line)
    with _unredacted():
        return build_report(folder)


def _run_results(_folder: Path) -> list[bytes]:
    run = json.dumps(json.loads((TESTS / "train/runs/draem.json").read_text()))
    results = {
        "finished": "2026-01-01T00:00:00+00:00",
        "seconds": 4.0,
        "report_seconds": 1.0,
        "machine": schema.write(describe_machine()),
        "names": ["a.png", "b.png"],
        "scores": [0.1, 0.2],
        "held_out": 2,
        "threshold": {"value": 0.2, "normals": 2, "false_reject_bound": 0.5, "requested_bound": 0.01},
        "kind": "training",
        "schema": 1,
    }
    group = {"title": "t", "pictures": [{"caption": "c", "jpegs": ["QUJD"]}], "note": "", "moments": []}
    return [b"\n".join([run.encode(), json.dumps(results).encode(), json.dumps({"groups": [group]}).encode()])]


def _benchmarks(_folder: Path) -> list[bytes]:
    found = _stored("benchmark/recorded/results.json")
    return [json.dumps(json.loads(text)).encode() for text in found]


def _profile(_folder: Path) -> list[bytes]:
    times: dict[str, Any] = {name: [1.0, 2.5] for name in ("fit", "hand_over", "undisturbed", "disturbed")}
    candidate = {"bundle": "b", "precision": "fp32", "engine": "onnxruntime", "start_seconds": 1.0, "memory_mib": 3.0}
    profile = {
        "format": 1,
        "created": "2026-01-01T00:00:00+00:00",
        "machine": schema.write(describe_machine()),
        "versions": {"numpy": "2"},
        "frame_size": [480, 640],
        "streams": 1,
        "candidates": [{**candidate, "times": times}],
    }
    return [json.dumps(profile).encode()]


def _always(*values: str) -> Any:
    return lambda _folder: _texts(*values)


FILES = (
    Reader("bundle", _read_bundle, _bundle_seeds, change_json),
    Reader("recording", _read_recording, _always(RECORDING), change_lines),
    Reader("lookout", _read_lookout, _always(LOOKOUT), change_lines),
    Reader("meta", _read_meta, _always(META), change_json),
    Reader("visa", _read_visa, _always(VISA), change_bytes),
    Reader("line", _read_line, _always(LINE), change_toml),
    Reader("sweep", lambda data, folder: read_sweep_file(_put(folder, "s.toml", data)), _always(SWEEP), change_toml),
    Reader("profile", lambda data, folder: read_profile(_put(folder, "p.json", data)), _profile, change_json),
    Reader("marks", _read_marks, _always(MARKS), change_lines),
    Reader("request", _read_action, _always('{"who": "x", "threshold": 0.5, "part_id": 7}'), change_json),
    Reader("choice", _read_choice, _always('{"key": {"engine": "onnxruntime", "milliseconds": {}}}'), change_json),
    Reader("plan", _read_plan, _always(PLAN), change_json),
    Reader("run", _read_run, lambda _folder: _stored("train/runs/*.json", "format_1/runs/*.json"), change_json),
    Reader("metrics", _read_metrics, _always(METRICS), change_lines),
    Reader("results", _read_results, _benchmarks, change_json),
    Reader("report", _read_run_results, _run_results, change_lines),
    Reader("text", _read_text, _always(*TEXTS), change_bytes),
)
