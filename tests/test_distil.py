"""`edgead distil`: a bundle teaches a small network, which is measured, trained, exported and compared."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from level_bundle import SIDE, frame_of, make_level_bundle
from listener import Listener
from safetensors.torch import load_file

from edgead import images
from edgead.benchmark.disturbance import ProcessorTimes
from edgead.bundle import Bundle, read_bundle
from edgead.bundle.manifest import Manifest
from edgead.cli import cli
from edgead.console import Console
from edgead.distil import architecture, distil, resume
from edgead.distil.architecture import LEARNED, PRETRAINED, Size, Timing, choose, measure_family
from edgead.errors import CheckpointError, ConfigError, DataError, DeviceError, EdgeadError
from edgead.files import write_json
from edgead.geometry import Geometry
from edgead.reports.build import build_report
from edgead.runtime.inspector import load
from edgead.train import run_config, train

TINY = ("stem=4", "widths=16,16", "pictures=60", "rounds=2", "batch_size=8", "steps=200")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose map is the grey level: what a student has learned can be seen."""
    return make_level_bundle(tmp_path_factory.mktemp("teacher") / "level.edgead")


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good images of one grey level each, up to the teacher's threshold; defective ones beyond it."""
    folder = tmp_path_factory.mktemp("data") / "grey"
    levels = {"train/good": range(60, 110, 4), "test/good": range(61, 110, 12), "test/bright": range(150, 240, 20)}
    for place, each in levels.items():
        (folder / place).mkdir(parents=True)
        for level in each:
            (folder / place / f"{level}.png").write_bytes(images.encode_png(frame_of(level)))
    return folder


@pytest.fixture(scope="module")
def distilled(teacher: Bundle, grey: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Folder of the run, the bundle, and what the verb said."""
    folder = tmp_path_factory.mktemp("student")
    settings = [f"--set={each}" for each in TINY]
    given = ["distil", teacher.path, "--data", grey, "--target", "5ms", "--precision", "fp32", "--json", *settings]
    outputs = ["--out", folder / "run", "--bundle-out", folder / "student.edgead", "--mixed-precision", "no"]
    done = CliRunner().invoke(cli, [str(each) for each in (*given, *outputs)])
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert made == {
        "run": str(folder / "run"),
        "bundle": str(folder / "student.edgead"),
        "report": str(folder / "run" / "distillation" / "report.html"),
    }
    return folder / "run", folder / "student.edgead", done.stderr


def test_a_student_gives_what_its_teacher_gives(distilled: tuple[Path, Path, str], teacher: Bundle, grey: Path) -> None:
    run, path, _ = distilled
    student = read_bundle(path)
    assert student.manifest.method == "student"
    assert student.manifest.config["teacher_digest"] == teacher.manifest.digest
    assert student.manifest.config["teacher"] == teacher.path.name  # not its folder on this machine
    assert student.manifest.threshold.normals == len(run_config.load_run_config(run).held_out)
    with load(path, engine="onnxruntime") as inspector:
        results = [inspector.inspect(frame_of(level)) for level in (70, 90, 160, 230)]
    scores = [result.score for result in results]
    assert scores == sorted(scores)
    assert results[-1].verdict.value == "FAIL"
    assert results[0].anomaly_map is not None
    assert results[0].anomaly_map.shape == (SIDE, SIDE)


def test_the_report_shows_teacher_against_student(distilled: tuple[Path, Path, str]) -> None:
    run, _, said = distilled
    results = json.loads((run / "distillation" / "results.json").read_text())
    assert results["agreement"]["scores"] > 0.7
    assert results["agreement"]["maps"] > 0.8
    assert (results["held_out"], results["jittered"], results["anomalies"]) == (3, 60, 100)
    assert results["labelled"]["image_auroc"] == [1.0, 1.0]
    assert results["labelled"]["images"] == 10
    assert results["time"]["teacher"]["median"] >= results["time"]["teacher"]["undisturbed"] > 0
    pictures = json.loads((run / "distillation" / "pictures.json").read_text())
    assert [group["moments"] for group in pictures["groups"]] == [["image alone", "teacher", "student"]] * 2
    page = build_report(run / "distillation").read_text()
    assert (
        "Image AUROC on 10 labelled images, which were not used for any choice: teacher 100.0, student 100.0." in page
    )
    assert "which were not used for any choice" in said


class Recording(Console):
    """Records messages."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


class Stopping(Recording):
    """Stops a training after some steps, as Ctrl-C does."""

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[str], None]]:
        left = iter(range(20))

        def advance(_: str) -> None:
            if next(left, None) is None:
                signal.raise_signal(signal.SIGINT)

        yield advance


@pytest.mark.long
def test_a_stopped_distillation_is_finished(
    distilled: tuple[Path, Path, str], teacher: Bundle, grey: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    console = Stopping()
    with pytest.raises(KeyboardInterrupt):
        distil(
            teacher.path,
            grey,
            target_ms=5,
            precision="fp32",
            settings=TINY,
            out=run,
            mixed_precision="no",
            console=console,
        )
    assert f"edgead distil {teacher.path} --target TIME --resume --out {run}" in console.said[-1]

    def finish(*words: object) -> Result:
        given = ("distil", teacher.path, "--target", "5ms", "--precision", "fp32", "--resume", "--out", run, *words)
        return CliRunner().invoke(cli, [str(each) for each in (*given, "--bundle-out", tmp_path / "student.edgead")])

    assert "--seed cannot be given with --resume: the run keeps its own" in finish("--seed", 1).output
    for _ in range(2):  # also what was stopped after the training
        done = finish()
        assert done.exit_code == 0, done.output
        assert (run / "distillation" / "report.html").is_file()
    assert read_bundle(tmp_path / "student.edgead").manifest.threshold == read_bundle(distilled[1]).manifest.threshold


def test_a_distillation_is_finished_with_a_teacher_that_was_moved(grey: Path, tmp_path: Path) -> None:
    """The bundle that the command names was checked, and then the one was looked for that the first command named."""
    bundle, moved, run = make_level_bundle(tmp_path / "old.edgead"), tmp_path / "new.edgead", tmp_path / "run"
    made = {"target_ms": 5, "precision": "fp32", "out": run, "bundle_out": tmp_path / "student.edgead"}
    few = (*TINY[:2], "pictures=16", "rounds=2", "batch_size=8", "steps=60")
    with pytest.raises(KeyboardInterrupt):
        distil(bundle.path, grey, settings=few, mixed_precision="no", console=Stopping(), **made)  # type: ignore[arg-type]
    rows = run / "features-0" / "round1" / "rows.json"
    kept = rows.read_text()
    bundle.path.rename(moved)
    console = Stopping()
    with pytest.raises(KeyboardInterrupt):
        resume(moved, console=console, **made)  # type: ignore[arg-type]
    assert f"edgead distil {moved} --target TIME --resume --out {run}" in console.said[-1]
    assert rows.read_text() == kept  # the teacher was not asked again
    resume(moved, **made)  # type: ignore[arg-type]
    assert read_bundle(tmp_path / "student.edgead").manifest.config["teacher"] == "new.edgead"


def test_a_run_that_is_no_students_is_not_finished_here(
    distilled: tuple[Path, Path, str], teacher: Bundle, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="not a run of a student"):
        resume(teacher.path, target_ms=5, out=trained)
    with pytest.raises(ConfigError, match="trained already"):
        resume(teacher.path, target_ms=5, out=distilled[0], data=tmp_path)
    other = make_level_bundle(tmp_path / "other.edgead", offset=1.0)
    with pytest.raises(CheckpointError, match="does not learn from"):
        resume(other.path, target_ms=5, out=distilled[0])


def test_a_damaged_report_says_so(distilled: tuple[Path, Path, str], tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", {"kind": "distillation"})
    with pytest.raises(DataError, match="Run `edgead distil` again"):
        build_report(tmp_path)


@pytest.mark.long
def test_the_family_is_measured_in_int8(teacher: Bundle) -> None:
    family = LEARNED + PRETRAINED
    times = measure_family(teacher, family, "onnxruntime", "int8")
    assert list(times) == list(family)
    assert all(timing.median >= timing.undisturbed > 0 for timing in times.values())


def test_the_largest_network_that_meets_the_target_is_taken(teacher: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    milliseconds = dict(zip(LEARNED, (1.0, 2.0, 3.0, 5.0, 4.0, 8.0, 9.0)))
    times = {size: Timing(10 * value, value) for size, value in milliseconds.items()}
    monkeypatch.setattr(architecture, "measure_family", lambda *_: times)
    assert choose(teacher, LEARNED, 4.5, "onnxruntime", "int8", Console()) == LEARNED[4]
    assert choose(teacher, LEARNED, 1.0, "onnxruntime", "int8", Console()) == LEARNED[0]
    with pytest.raises(ConfigError, match=r"No student takes 0\.5 ms or less on onnxruntime.*1\.00 ms"):
        choose(teacher, LEARNED, 0.5, "onnxruntime", "int8", Console())


@pytest.mark.parametrize(("largest", "warned"), [(1.0, False), (9.0, True)])
def test_a_smaller_network_for_a_busy_machine_is_said(
    teacher: Bundle, monkeypatch: pytest.MonkeyPatch, largest: float, warned: bool
) -> None:
    """Other programs make a network slow that meets the target alone."""
    times = {size: Timing(20.0, largest if size is LEARNED[-1] else 1.0) for size in LEARNED}
    readings = [ProcessorTimes(0.0, 0.0, 0.0, 0.0), ProcessorTimes(busy=9.0, stolen=0.0, all=10.0, own=5.0)]
    monkeypatch.setattr(architecture, "measure_family", lambda *_: times)
    monkeypatch.setattr(architecture, "processor_times", lambda: readings.pop(0))
    console = Listener()
    choose(teacher, LEARNED, 4.5, "onnxruntime", "int8", console)
    assert any("other processes took" in line and "larger network" in line for line in console.said) is warned


def _offered(monkeypatch: pytest.MonkeyPatch, chosen: Size) -> list[Sequence[Size]]:
    """Record the families that are measured; `chosen` is taken from each."""
    offered: list[Sequence[Size]] = []

    def choose_at_once(_: Bundle, family: Sequence[Size], *__: Any) -> Size:
        offered.append(family)
        return chosen

    monkeypatch.setattr(architecture, "choose", choose_at_once)
    return offered


def test_a_student_is_built_on_a_backbone(
    teacher: Bundle, grey: Path, squeezenet_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = _offered(monkeypatch, PRETRAINED[1])
    made = distil(
        teacher.path,
        grey,
        target_ms=5,
        weights=squeezenet_weights,
        settings=("pictures=24", "rounds=2", "batch_size=4", "steps=4"),
        precision="fp32",
        mixed_precision="no",
        out=tmp_path / "run",
        bundle_out=tmp_path / "student.edgead",
    )
    assert offered == [LEARNED + PRETRAINED]
    assert made.bundle.manifest.config["backbone"] == "squeezenet1_1"
    assert run_config.load_run_config(made.run).weights == str(squeezenet_weights)
    trained = load_file(made.run / "weights.safetensors")
    stored = torch.load(squeezenet_weights, weights_only=True)
    frozen = {name.partition(".backbone.")[2]: value for name, value in trained.items() if ".backbone." in name}
    assert frozen
    assert all(torch.equal(value, stored[name]) for name, value in frozen.items())


@pytest.mark.usefixtures("offline")
def test_without_weights_a_student_learns_its_encoder(
    teacher: Bundle, grey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered, console, empty = _offered(monkeypatch, LEARNED[0]), Recording(), tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="empty"):  # the next thing that is looked at
        distil(teacher.path, empty, target_ms=5, out=tmp_path / "run", console=console)
    assert offered == [LEARNED]
    assert "Fetch squeezenet1_1-b8a52dc0.pth from https://download.pytorch.org/models/" in console.said[0]
    assert "Without them the student learns its encoder, and decides less like its teacher." in console.said[0]
    with pytest.raises(CheckpointError, match="is not a file"):
        distil(teacher.path, grey, target_ms=5, weights=grey, out=tmp_path / "run")


def test_a_student_that_its_engine_does_not_run_is_no_success(
    distilled: tuple[Path, Path, str], teacher: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was said to meet the target on that engine, which then refused it."""
    monkeypatch.setattr(Manifest, "failed_engines", property(lambda _: {"onnxruntime": "scores differ."}))
    with pytest.raises(DeviceError, match=r"was written, but onnxruntime does not run it correctly .* scores differ"):
        resume(
            teacher.path,
            target_ms=5,
            out=distilled[0],
            bundle_out=tmp_path / "again.edgead",
            precision="fp32",
            engine="onnxruntime:threads=1",
        )
    assert read_bundle(tmp_path / "again.edgead")


@pytest.mark.parametrize("target", ["10", "ms", "0ms", "-1ms", "10s"])
def test_a_target_is_a_time(teacher: Bundle, grey: Path, target: str) -> None:
    done = CliRunner().invoke(cli, ["distil", str(teacher.path), "--data", str(grey), "--target", target])
    assert done.exit_code == 2
    assert "such as 10ms" in done.output


def test_what_the_teacher_decides_cannot_be_set(teacher: Bundle, grey: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="The teacher decides size"):
        distil(teacher.path, grey, target_ms=5, settings=("size=96",), out=tmp_path / "run")
    with pytest.raises(ConfigError, match="Did you mean 'widths'"):
        distil(teacher.path, grey, target_ms=5, settings=("width=16,16",), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_product_and_one_engine(teacher: Bundle, grey: Path) -> None:
    with pytest.raises(ConfigError, match="one category at a time"):
        distil(teacher.path, grey, target_ms=5, category="all")
    with pytest.raises(ConfigError, match="for one engine: name it"):
        distil(teacher.path, grey, target_ms=5, engine="auto")
    with pytest.raises(ConfigError, match="Did you mean 'onnxruntime'"):
        distil(teacher.path, grey, target_ms=5, engine="onnxruntim")
    with pytest.raises(ConfigError, match="above 0"):
        distil(teacher.path, grey, target_ms=0)


def test_what_the_export_would_refuse_is_refused_before_the_training(
    teacher: Bundle, grey: Path, tmp_path: Path
) -> None:
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"false_reject": 2.0}, "must lie between 0 and 1"),
        ({"precision": "int3"}, "precision is"),
        ({"bundle_out": teacher.path}, "exists already and was kept. Choose another --bundle-out"),
        ({"bundle_out": teacher.path / "manifest.json" / "student.edgead"}, "Not a directory"),
    )
    for options, words in wrong:
        with pytest.raises((EdgeadError, OSError), match=words):
            distil(teacher.path, grey, target_ms=5, settings=("widths=8,8,8",), out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_student_without_a_teacher_says_how_to_get_one(grey: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs a teacher.*edgead distil BUNDLE --data DIR"):
        train("student", grey, preset="nano", settings=("size=64",), out=tmp_path / "run")


def test_a_teacher_with_depth_is_refused(rgbd_bundle: Bundle, grey: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reads depth"):
        distil(rgbd_bundle.path, grey, target_ms=5, out=tmp_path / "run")


@pytest.mark.parametrize("geometry", [Geometry(tiles=(2, 2)), Geometry(fit="letterbox"), Geometry((0.1, 0, 0.5, 1))])
def test_a_teacher_with_a_geometry_is_refused(geometry: Geometry, grey: Path, tmp_path: Path) -> None:
    """Its outputs of stretched images are not its decisions."""
    teacher = make_level_bundle(tmp_path / "teacher.edgead", geometry=geometry)
    with pytest.raises(ConfigError, match="without --align, --crop, --fit and --tiles"):
        distil(teacher.path, grey, target_ms=5, out=tmp_path / "run")


def test_another_bundle_in_the_teachers_place_is_refused(teacher: Bundle, tmp_path: Path) -> None:
    from edgead.train.teacher import Teacher

    other = make_level_bundle(tmp_path / "other.edgead", offset=1.0)
    assert Teacher(other.path, other.manifest.digest).size == (SIDE, SIDE)
    with pytest.raises(CheckpointError, match="is not the bundle that this run learns from"):
        Teacher(other.path, teacher.manifest.digest)
    frames = np.stack([frame_of(level) for level in range(0, 250, 25)])
    scores, maps = Teacher(other.path).outputs(frames)
    assert scores == pytest.approx(np.arange(0, 250, 25) + 1, abs=0.01)
    assert maps.shape == (10, SIDE, SIDE)
