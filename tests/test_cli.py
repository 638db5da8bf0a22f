"""The command line as a person uses it: exit codes, words, JSON, Ctrl-C."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from command_line import inside

from edgead.bundle import Bundle, manifest_digest
from edgead.cli import cli
from edgead.datasets import load_frames
from edgead.runtime.result import Result

VERBS = sorted(cli.commands)
Write = Callable[..., Path]
QUICK = [
    *("--preset", "nano", "--set", "size=32", "--set", "reconstructive_width=2", "--set", "discriminative_width=2"),
    *("--set", "batch_size=2"),
]


def edgead(*arguments: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "edgead", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=300)


def error_lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert "Traceback" not in done.stderr
    return done.stderr[done.stderr.index("Error:") :].splitlines()


@pytest.mark.slow
def test_the_defaults_line_up(parts: Path, tmp_path: Path) -> None:
    """train, export, inspect, predict, run and benchmark with nothing but what the README says."""
    trained = inside(
        "train", "--method", "draem", "--data", parts, *QUICK, "--set", "steps=2", "--json", folder=tmp_path
    )
    assert trained.returncode == 0, trained.stderr
    [run] = json.loads(trained.stdout)["runs"]
    assert run.startswith("runs/train/draem-washer-")
    exported = inside("export", "--method", "draem", "--json", folder=tmp_path)
    assert exported.returncode == 0, exported.stderr
    [made] = json.loads(exported.stdout)["bundles"]
    assert made["bundle"] == f"runs/export/{Path(run).name}.edgead"
    assert made["manifest"]["category"] == "washer"
    inspected = inside("inspect", made["bundle"], "--json", folder=tmp_path)
    assert json.loads(inspected.stdout)["golden"]["good"]
    images = parts / "test" / "good"
    predicted = inside("predict", made["bundle"], images, "--save", "overlays", "--json", folder=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    predictions = json.loads(predicted.stdout)
    assert predictions["captured"] == predictions["inferred"] == len(predictions["results"])
    assert [result["path"] for result in predictions["results"]] == sorted(str(path) for path in images.iterdir())
    assert len(list((tmp_path / "overlays").glob("*.overlay.png"))) == 4
    assert len(list((tmp_path / "overlays").glob("*.reconstruction.png"))) == 4
    ran = inside("run", made["bundle"], "--source", images, "--sink", "jsonl:out.jsonl", "--json", folder=tmp_path)
    assert json.loads(ran.stdout)["captured"] == 4
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["score"] for line in lines] == [result["score"] for result in predictions["results"]]
    measured = inside("benchmark", made["bundle"], "--data", parts, "--rounds", "2", "--json", folder=tmp_path)
    assert json.loads(measured.stdout)["rows"][0]["bundle"] == Path(run).name
    assert len(list((tmp_path / "runs" / "benchmark").glob("*/report.html"))) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(verb: str) -> None:
    done = inside(verb, "--help")
    assert done.returncode == 0
    assert "--json" in done.stdout


def test_the_list_of_verbs_cuts_no_sentence() -> None:
    listed = inside("--help").stdout.partition("Commands:")[2]
    assert [line.split()[0] for line in listed.splitlines()[1:]] == sorted(cli.commands)
    assert "..." not in listed


PRECISION = {"calib_samples", "calib_method", "calib_data", "max_auroc_drop", "max_flips"}
"""Gathered in a `PrecisionOptions`."""
VIEW = {"view", "view_token", "view_bundles", "view_folder"}
"""Gathered in the observer, a `edgead.view.view.View`."""

DRIFT = {"drift_window", "drift_alarms", "drift_every"}
"""Gathered in the watch, an `edgead.line.drift.Drift`."""
LINE = {"triggers", "part_rules", "control", "product", "check"}
"""Gathered in the gate, an `edgead.line.parts.Parts`, or decided before the run."""


@pytest.mark.parametrize(
    ("verb", "functions", "more"),
    [
        ("train", ["edgead.train.train", "edgead.train.resume"], {"continue_run", "quick"}),
        ("synthesise", ["edgead.train.synthesise.synthesise"], set()),
        ("distil", ["edgead.distil.distil"], {"continue_run"}),
        ("export", ["edgead.export.export"], {"method", "category", "format"} | PRECISION),
        ("import", ["edgead.export.import_model"], {"data"} | PRECISION),
        (
            "predict",
            ["edgead.load", "edgead.runtime.predict.predict", "edgead.archive.score_archive.score_archive"],
            {"force"},
        ),
        ("run", ["edgead.runtime.run.run", "edgead.runtime.policy.Policy"], VIEW | LINE | DRIFT),
        ("benchmark", ["edgead.benchmark.benchmark"], set()),
        ("inspect", ["edgead.load"], set()),
    ],
)
def test_options_and_parameters_have_the_same_names(verb: str, functions: list[str], more: set[str]) -> None:
    """`more`: what the verb adds, or gathers in a parameter of another name."""
    parameters = set()
    for path in functions:
        module, _, name = path.rpartition(".")
        parameters |= inspect.signature(getattr(importlib.import_module(module), name)).parameters.keys()
    options = {str(option.name) for option in cli.commands[verb].params if option.expose_value}
    assert options - parameters == more | {"as_json"}


def test_text_for_people(bundle: Bundle, parts: Path) -> None:
    inspected = inside("inspect", bundle.path)
    assert inspected.returncode == 0
    assert "hashes correct" in inspected.stdout
    predicted = inside("predict", bundle.path, parts / "test" / "chip")
    assert len(predicted.stdout.splitlines()) == 2
    assert f"0 UNKNOWN; threshold {bundle.manifest.threshold.value:.6g}" in predicted.stderr.splitlines()[-2]
    assert "draem: DRAEM" in inside("methods").stdout
    assert json.loads(inside("methods", "--json").stdout)[0]["settings"]["batch_size"]["presets"]["paper"] == 8
    settings = inside("methods", "transfusion").stdout
    assert "\n  reverse_steps = 18\n      Steps of the reverse" in settings
    assert "Did you mean 'aand'?" in inside("methods", "aamd").stderr


def test_predict_decides_by_the_rules_of_run(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    """The same options, the same verdicts, boxes and lines in a sink."""
    rules = ["--threshold", "0", "--roi", "0,0,1,0.3", "--ignore", "0,0,0.4,0.2", "--min-area", "40", "--boxes"]
    rules += ["--batch", "5", "--engine", "onnxruntime"]
    images = parts / "test" / "chip"
    found = {}
    for verb, given in (("predict", [images]), ("run", ["--source", images])):
        out = tmp_path / f"{verb}.jsonl"
        done = inside(verb, bundle.path, *given, *rules, "--sink", f"jsonl:{out}")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        found[verb] = [json.loads(line) for line in out.read_text().splitlines()]
    fields = ("path", "score", "verdict", "reason", "boxes")
    by_predict, by_run = ([[line[name] for name in fields] for line in lines] for lines in found.values())
    assert by_predict == by_run
    assert len(by_predict) == 2
    free = json.loads(inside("predict", bundle.path, images, "--threshold", "0", "--boxes", "--json").stdout)["results"]
    assert [[line[name] for name in fields] for line in free] != by_predict  # the rules had a say


def test_predict_tells_its_results_also_where_a_sink_takes_none(bundle: Bundle, parts: Path) -> None:
    """Hours of verdicts were lost with one of them."""
    full = inside("predict", bundle.path, parts / "test" / "chip", "--json", "--sink", "jsonl:/dev/full")
    assert (full.returncode, "did not take 2 of 2 results" in full.stderr) == (2, True)
    assert len(json.loads(full.stdout)["results"]) == 2


def test_standard_output_can_be_a_sink(bundle: Bundle, parts: Path) -> None:
    done = edgead("run", bundle.path, "--source", parts / "test" / "good", "--sink", "jsonl:-")
    assert [json.loads(line)["frame_id"] for line in done.stdout.splitlines()] == [0, 1, 2, 3]
    assert "\ncaptured 4 =" in done.stderr
    done = edgead("predict", bundle.path, parts / "test" / "good", "--json", "--quiet", "--sink", "jsonl:-")
    assert [json.loads(line)["frame_id"] for line in done.stdout.splitlines()] == [0, 1, 2, 3]
    assert json.loads(done.stderr)["captured"] == 4


def test_predict_keeps_no_results_that_nobody_reads(
    bundle: Bundle, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of an archive, with their outlines, filled the memory."""
    monkeypatch.setattr(Result, "to_dict", lambda _: pytest.fail("made for nobody"))
    done = inside("predict", bundle.path, parts / "test" / "good", "--contours")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 4), done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "EMPTY"], "No images of good parts"),
        (["train", "--data", "EMPTY", "--method", "dream"], "Did you mean 'draem'"),
        (["train"], "Missing option '--data'"),
        (["train", "--data", "PARTS", "--preset", "small"], "Available: paper, edge, nano"),
        (["train", "--data", "PARTS", "--set", "widht=3"], "Unknown setting 'widht'"),
        (["train", "--data", "PARTS", "--device", "cuda:9", "--preset", "nano"], "cuda:9 does not exist"),
        (["train", "--resume"], "No unfinished run"),
        (["train", "--resume", "--preset", "edge"], "--preset cannot be given with --resume"),
        (["train", "--data", "PARTS", "--seed", "-1"], "--seed"),
        (["export"], "No finished run of draem"),
        (["export", "--checkpoint", "EMPTY"], "is not a training run"),
        (["export", "--category", "all", "--out", "x"], "leave out --out"),
        (["export", "--method", "aand", "--checkpoint", "RUN"], "is a run of draem, not of aand"),
        (["export", "--checkpoint", "RUN", "--category", "nut"], "--category has no effect with --checkpoint"),
        (["train", "--resume", "--method", "drept", "--out", "RUN"], "is a run of draem, not of drept"),
        (["export", "--checkpoint", "RUN", "--false-reject", "nan"], "must be a finite number"),
        (["doctor", "--batch", "3"], "--batch has no effect without --build"),
        (["import", "absent.onnx"], "absent.onnx does not exist"),
        (["import", "a.onnx", "--method", "draem", "--bgr"], "--rgb has no effect with --method"),
        (["import", "a.onnx", "--set", "size=3"], "--set has no effect without --method"),
        (["import", "a.onnx", "b.onnx"], "One ONNX file at a time"),
        (["import", "a.onnx", "--size", "big"], "--size takes HEIGHTxWIDTH"),
        (["import", "a.onnx", "--mean", "1,2"], "--mean takes three numbers"),
        (["import", "a.pth", "--method", "draem"], "--threshold-data DIR"),
        (["import", "a.pth", "--method", "dream"], "Did you mean 'draem'"),
        (["predict", "EMPTY", "PARTS"], "is not a bundle"),
        (["predict", "BUNDLE", "absent"], "absent does not exist"),
        (["run", "BUNDLE", "--source", "absent"], "does not exist"),
        (["run", "BUNDLE", "--source", "PARTS", "--sink", "out.txt"], "jsonl:FILE"),
        (["run", "BUNDLE", "--source", "PARTS", "--engine", "gpu"], "Unknown engine 'gpu'"),
        (["run", "BUNDLE", "--source", "PARTS", "--check", "--deadline", "nan"], "deadline must be positive"),
        (["run", "BUNDLE", "--source", "PARTS", "--check", "--metrics", "x"], "--metrics must be a port"),
        (["run", "BUNDLE", "--source", "PARTS", "--check", "--metrics", "0.0.0.0:1"], "need a token"),
        (["run", "BUNDLE", "--source", "PARTS", "--check", "--view", "x"], "--view must be a port"),
        (["run", "BUNDLE", "--source", "PARTS", "--check", "--view", "0.0.0.0:1"], "needs a token"),
        (["run", "BUNDLE", "--source", "PARTS", "--check", "--view", "1", "--view-bundles", "x"], "no such folder"),
        (["run", "BUNDLE", "--source", "PARTS", "--check", "--drift-alarms", "0"], "--drift-alarms must be above 0"),
        (["run", "BUNDLE", "--source", "PARTS", "--check", "--view-token", "x"], "no effect without --view"),
        (["run", "BUNDLE", "--source", "PARTS", "--metrics-token", ""], "no effect without --metrics"),
        (["run", "BUNDLE", "--source", "PARTS", "--drift-window", "0", "--drift-every", "5"], "with --drift-window 0"),
        (["benchmark", "BUNDLE", "--data", "EMPTY"], "No images of good parts"),
        (["inspect", "absent.edgead"], "does not exist"),
        (["frobnicate"], "No such command"),
    ],
)
def test_bad_input_is_reported_in_a_few_lines(
    bundle: Bundle, trained: Path, parts: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"EMPTY": tmp_path / "empty", "PARTS": parts, "BUNDLE": bundle.path, "RUN": trained}
    done = inside(*[places.get(argument, argument) for argument in arguments], folder=tmp_path)
    lines = error_lines(done)
    assert message in done.stderr
    assert len(lines) <= 3
    assert done.returncode == (4 if "cuda:9" in arguments else 2)


def test_a_bundle_with_other_outputs_is_a_device_error(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle.path, tmp_path / "copy.edgead"))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["parity"]["tolerance"] = -1.0
    manifest["digest"] = manifest_digest(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    done = inside("inspect", copy, "--engine", "onnxruntime")
    assert done.returncode == 4
    assert "Use another engine" in error_lines(done)[1]
    done = inside("inspect", copy)
    assert done.returncode == 4
    assert error_lines(done)[0] == "Error: No engine can run this bundle here."
    assert "onnxruntime: On this machine the output of onnxruntime-cpu differs" in error_lines(done)[1]
    for verb in (["predict", copy, parts / "test"], ["run", copy, "--source", parts / "test"]):
        done = inside(*verb, "--engine", "onnxruntime")  # named, it decides nothing either
        assert (done.returncode, done.stdout) == (4, "")
        assert "Use another engine" in error_lines(done)[1]


def test_a_flipped_byte_and_a_newer_format(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle.path, tmp_path / "copy.edgead"))
    data = bytearray((copy / "model.onnx").read_bytes())
    data[1000] ^= 255
    (copy / "model.onnx").write_bytes(data)
    done = inside("run", copy, "--source", parts)
    assert (done.returncode, "damaged" in error_lines(done)[0]) == (2, True)
    (copy / "manifest.json").write_text(json.dumps({"format": 99}))
    done = inside("run", copy, "--source", parts)
    assert (done.returncode, "has format 99" in error_lines(done)[0]) == (2, True)


def test_a_full_disk_is_reported(bundle: Bundle, parts: Path) -> None:
    done = inside("run", bundle.path, "--source", parts / "test", "--sink", "jsonl:/dev/full")
    assert done.returncode == 2
    assert "did not take 12 of 12 results: No space left" in done.stderr
    assert "captured 12 =" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["train", "export", "predict", "benchmark"])
def test_a_disk_that_fills_up_leaves_nothing_half_written(
    verb: str, bundle: Bundle, trained: Path, parts: Path, tmp_path: Path
) -> None:
    """No file may grow beyond a few kilobytes: the system's own refusal, as on a full disk or quota."""
    out = tmp_path / "out"
    arguments = {
        "train": ["--data", parts, "--out", out, *QUICK, "--set", "steps=1"],
        "export": ["--checkpoint", trained, "--out", out / "x.edgead"],
        "predict": [bundle.path, parts / "test", "--save", out],
        "benchmark": [bundle.path, "--data", parts, "--rounds", "1", "--out", out],
    }
    done = subprocess.run(
        [sys.executable, "-m", "edgead", verb, *map(str, arguments[verb])],
        capture_output=True, text=True, check=False, timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    if verb == "predict":  # no overlay, but every result
        assert f"12 overlays could not be written, first {out}/" in error_lines(done)[0]
        assert sum(done.stdout.count(verdict) for verdict in ("PASS", "FAIL", "UNKNOWN")) == 12
    else:
        assert f"Cannot read or write {out}" in error_lines(done)[0]
    left = [path for path in out.rglob("*") if path.is_file()] if out.exists() else []
    assert not [path for path in left if path.name.endswith((".part", ".png", ".onnx", ".safetensors", ".html"))]
    assert not (out / "x.edgead").exists()


def test_a_reader_that_leaves_early_is_no_error(bundle: Bundle, parts: Path) -> None:
    command = f"{sys.executable} -m edgead predict {bundle.path} {parts / 'test'} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=120)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def interrupt(
    arguments: list[str | Path], folder: Path, ready: Callable[[int], bool], sent: int = signal.SIGINT
) -> tuple[int, str]:
    """Start a verb, press Ctrl-C when it is `ready` (given its pid); return its exit code in a shell, and its words."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "edgead", *map(str, arguments)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": folder, "env": environment},
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and not ready(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(sent)
    said, _ = process.communicate(timeout=120)
    # CPython ends itself by the signal if it came while code in a string was executed, as some imports do.
    return 128 - process.returncode if process.returncode < 0 else process.returncode, said


@pytest.fixture(scope="module")
def many(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set large enough to be interrupted."""
    root = tmp_path_factory.mktemp("many")
    for kind, folder in (("train/good", "train/good"), ("test/good", "train/good"), ("test/bad", "test/chip")):
        (root / kind).mkdir(parents=True)
        sources = sorted((parts / folder).iterdir())
        for index in range(1500):
            (root / kind / f"{index:04}.png").symlink_to(sources[index % len(sources)])
    return root


def has_loaded(library: str) -> Callable[[int], bool]:
    """Tell whether a process has a library in memory, and so is well inside its verb."""
    return lambda pid: library in Path(f"/proc/{pid}/maps").read_text()


def has_child(pid: int) -> bool:
    """Tell whether a process has started another: `doctor` imports packages in processes of their own."""
    return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "sent"),
    [
        *((verb, signal.SIGINT) for verb in ("demo", "train", "export", "predict", "run", "benchmark")),
        *((verb, signal.SIGINT) for verb in ("inspect", "methods", "doctor")),
        ("export", signal.SIGTERM),
        ("predict", signal.SIGHUP),
    ],
)
def test_ctrl_c_ends_every_verb_cleanly(
    verb: str, sent: int, bundle: Bundle, trained: Path, parts: Path, many: Path, tmp_path: Path
) -> None:
    """Exit 130 in one line (or 0 for a verb that was faster), and no file left half-written."""
    run = tmp_path / "run"
    if verb == "export":
        shutil.copytree(trained, run)
        values = json.loads((run / "config.json").read_text())
        names = [f"train/good/{index:04}.png" for index in range(1500)]
        fingerprint = load_frames([many / name for name in names], (64, 64)).fingerprint
        values.update(data=str(many), held_out=names, held_out_fingerprint=fingerprint)
        (run / "config.json").write_text(json.dumps(values))
    metrics, lines, overlays = run / "metrics.jsonl", tmp_path / "out.jsonl", tmp_path / "overlays"
    verbs: dict[str, tuple[list[str | Path], Callable[[int], bool]]] = {
        "demo": (["--out", tmp_path / "demo"], lambda _: (tmp_path / "demo/washer/train/good/003.png").exists()),
        "train": (
            ["--data", parts, "--out", run, *QUICK, "--set", "steps=100000"],
            lambda _: metrics.exists() and metrics.read_text().endswith("\n"),
        ),
        "export": (["--checkpoint", run, "--out", tmp_path / "x.edgead"], has_loaded("onnxruntime")),
        "predict": ([bundle.path, many, "--save", overlays], lambda _: overlays.exists()),
        "run": (
            [bundle.path, "--source", many, "--sink", f"jsonl:{lines}"],
            lambda _: lines.exists() and lines.stat().st_size > 500,
        ),
        # Not while modules are imported: some swallow an interrupt together with an ImportError that they expect.
        "benchmark": (
            [bundle.path, "--data", many, "--engine", "openvino", "--out", tmp_path / "report"],
            has_loaded("openvino_intel_cpu_plugin"),
        ),
        "inspect": ([bundle.path], has_loaded("onnxruntime")),
        "methods": ([], has_loaded("libtorch")),
        "doctor": ([], has_child),
    }
    arguments, ready = verbs[verb]
    code, said = interrupt([verb, *arguments], tmp_path, ready, sent)
    assert "Traceback" not in said
    if verb not in ("inspect", "methods", "doctor") or code != 0:
        assert code == 130, said
        clean = verb == "run"  # everything that was captured is decided and written: that is no error
        assert ("captured" if clean else "Error: interrupted.") in said
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".part", ".old"))]
    for path in [*tmp_path.rglob("*.jsonl")]:
        assert all(json.loads(line) for line in path.read_text().splitlines())
    if verb == "train":
        assert (run / "state.safetensors").exists()
        done_before = len(metrics.read_text().splitlines())
        code, _ = interrupt(
            ["train", "--resume", "--out", run], tmp_path, lambda _: len(metrics.read_text().splitlines()) > done_before
        )
        assert code == 130
        steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
        assert steps == list(range(1, len(steps) + 1))


def test_paths_in_commands_are_quoted(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    """Who types the next command has no folder of the first word of its name."""
    out = tmp_path / "the bottle.edgead"
    model = ("import", bundle.model, "--bgr", "--scale", 1, "--threshold-data", parts / "test" / "good", "--out", out)
    done = inside(*map(str, model))
    assert done.returncode == 0, done.stderr
    [command] = [line.removeprefix("Next:") for line in done.stdout.splitlines() if line.startswith("Next:")]
    assert shlex.split(command) == ["edgead", "predict", str(out), "IMAGES"]


def test_no_command_holds_a_path_as_it_is() -> None:
    verbs = "|".join(cli.commands)
    bare = re.compile(rf"""edgead (?:{verbs})\b[^"'\n:]*? \{{(?!typed\(|method\}}|PRESET\}})([^}}]*)\}}""")
    package = Path(__file__).parents[1] / "edgead"
    texts = {path: path.read_text() for path in package.rglob("*.py") if path.name != "demo.py"}
    assert {(path.name, each) for path, text in texts.items() for each in bare.findall(text)} == set()


def test_no_number_is_nan() -> None:
    """Click's ranges take NaN, and every comparison with it is false: a limit that is NaN limits nothing."""
    found = 0
    for verb in cli.list_commands(click.Context(cli)):
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None
        for option in command.params:
            if isinstance(option.type, click.FloatRange):
                found += 1
                with pytest.raises(click.BadParameter, match="nan is not in the range"):
                    option.type.convert("nan", option, None)
    assert found >= 5


@pytest.mark.parametrize(
    "arguments",
    [("predict", "bundle", ""), ("predict", "", "x"), ("train", "--data", ""), ("run", "bundle", "--record", "")],
)
def test_an_empty_path_is_not_the_current_folder(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """``edgead predict B "$IMAGES"`` where the variable is not set."""
    done = inside(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert "the path is empty" in done.stderr
