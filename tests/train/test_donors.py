"""Learning from other products: which are taken, what is kept of it, and that it goes on where it stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from listener import Listener
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from edgead.benchmark import benchmark
from edgead.cli import cli
from edgead.console import Console
from edgead.datasets import open_category
from edgead.errors import CheckpointError, ConfigError, DataError, TrainingError
from edgead.export import export
from edgead.files import sha256
from edgead.train import checkpoint, resume, run_config, step_metrics, train, training_state
from edgead.train.donors import TRANSFERRED, find_donors, load_transferred
from edgead.train.method import Arrays, TrainingData
from edgead.train.methods.drept.method import Drept
from edgead.train.synthesise import synthesise

Write = Callable[..., Path]
QUICK = (
    *("size=64", "width=2", "source_width=2", "components=3", "batch_size=2"),
    *("removal_steps=3", "defect_steps=2", "steps=2"),
)


@pytest.fixture(scope="module")
def donor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another product in MVTec AD form: 3 good images to train, 1 to test, 4 defective ones."""
    root = tmp_path_factory.mktemp("sources") / "tile"
    rng = np.random.default_rng(0)
    counts = {"train/good": 3, "test/good": 1, "test/crack": 2, "test/hole": 2}
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True)
        for index in range(count):
            cv2.imwrite(str(root / folder / f"{index}.png"), rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    return root


@pytest.fixture(scope="module")
def transferred(parts: Path, donor: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("transferred") / "run"
    [run] = train("drept", parts, preset="nano", settings=QUICK, donors=[donor], out=out)
    return run


def weights(run: Path) -> bytes:
    return (run / checkpoint.WEIGHTS).read_bytes()


def test_what_was_learned_is_kept_beside_the_run(transferred: Path, donor: Path) -> None:
    run = run_config.load_run_config(transferred)
    [recorded] = run.donors
    assert recorded.name == "tile"
    assert recorded.root == str(donor.resolve())
    assert len(recorded.normals) == 4
    assert set(recorded.anomalies) == {f"test/{kind}/{index}.png" for kind in ("crack", "hole") for index in (0, 1)}
    folder = transferred / "sources" / "tile"
    names = {path.name for path in folder.iterdir()}
    assert names == {"metrics.jsonl", "weights.safetensors", "learned.png", TRANSFERRED}
    assert load_file(folder / TRANSFERRED)["colour"].shape == (4, 3, 3)
    assert cv2.imread(str(folder / "learned.png")).shape == (4 * 64, 4 * 64, 3)
    stages = [entry.stage for entry in step_metrics.read_metrics(folder)]
    assert stages == ["remove"] * 3 + ["describe"] * 2
    assert cv2.imread(str(transferred / "synthetic.png")).shape == (2 * 64, 8 * 64, 3)


@pytest.mark.parametrize("given", ["the run", "its folder", "the file"])
def test_other_targets_take_it_up(transferred: Path, donor: Path, parts: Path, tmp_path: Path, given: str) -> None:
    """Whatever of it is named, the result is that of learning from the images again."""
    folder = transferred / "sources" / "tile"
    path = {"the run": transferred, "its folder": folder, "the file": folder / TRANSFERRED}[given]
    recorder = Listener()
    [run] = train("drept", parts, settings=QUICK, preset="nano", donors=[path], out=tmp_path / "run", console=recorder)
    assert weights(run) == weights(transferred)
    assert {path.name for path in (run / "sources" / "tile").iterdir()} == {TRANSFERRED}
    assert any(line.startswith("Copied: ") for line in recorder.said)
    assert not any(line.startswith("Learning") for line in recorder.said)
    [recorded] = run_config.load_run_config(run).donors
    assert recorded.fingerprint == run_config.load_run_config(transferred).donors[0].fingerprint


def unfinished(transferred: Path, folder: Path) -> Path:
    run = Path(shutil.copytree(transferred, folder))
    (run / checkpoint.WEIGHTS).unlink()
    return run


def test_a_run_that_was_stopped_in_a_pretraining_goes_on(transferred: Path, tmp_path: Path) -> None:
    """At its start; after the training and before what was learned was written; and after the pretraining."""
    for index, absent in enumerate([["weights.safetensors", TRANSFERRED], [TRANSFERRED], []]):
        run = unfinished(transferred, tmp_path / str(index))
        for name in absent:
            (run / "sources" / "tile" / name).unlink()
        resume(run)
        assert weights(run) == weights(transferred)
        kept, made = (load_file(each / "sources" / "tile" / TRANSFERRED) for each in (transferred, run))
        assert all(np.array_equal(kept[name], made[name]) for name in kept)


class Stopper(Listener):
    """Interrupts the run when a stage begins, or when a line begins with `cue`."""

    def __init__(self, stage: str, cue: str = "never") -> None:
        super().__init__()
        self.stage, self.cue = stage, cue

    def say(self, text: str) -> None:
        super().say(text)
        if text.startswith(self.cue):
            raise KeyboardInterrupt

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[str], None]]:
        if label == self.stage:
            raise KeyboardInterrupt
        yield lambda text: None


def test_whoever_stops_a_run_hears_how_to_go_on(parts: Path, donor: Path, tmp_path: Path) -> None:
    stopper = Stopper("remove")
    with pytest.raises(KeyboardInterrupt):
        train("drept", parts, preset="nano", settings=QUICK, donors=[donor], out=tmp_path / "run", console=stopper)
    assert stopper.said[-1] == f"Stopped. Resume with:  edgead train --resume --out {tmp_path / 'run'}"
    assert checkpoint.is_finished(resume(tmp_path / "run", device="cpu"))


class Interrupter(Console):
    """Presses Ctrl-C in the second step of a stage."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[str], None]]:
        steps = iter(range(1, total + 1))
        yield lambda text: signal.raise_signal(signal.SIGINT) if (label, next(steps)) == (self.stage, 2) else None


def test_a_pretraining_that_was_stopped_within_a_stage_goes_on_to_the_same_result(
    parts: Path, donor: Path, tmp_path: Path
) -> None:
    settings = (*QUICK, "removal_steps=5", "defect_steps=5")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train("drept", parts, preset="nano", settings=settings, donors=[donor], out=whole, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train(
            "drept",
            parts,
            preset="nano",
            settings=settings,
            donors=[donor],
            out=cut,
            device="cpu",
            console=Interrupter("remove"),
        )
    assert run_config.load_run_config(cut).donors == run_config.load_run_config(whole).donors
    for number, stop in enumerate(("describe", None)):
        with safe_open(cut / "sources" / "tile" / training_state.STATE, framework="numpy") as state:
            assert (state.metadata()["stage"], state.metadata()["step"]) == (str(number), "3")
        if stop:
            with pytest.raises(KeyboardInterrupt):
                resume(cut, device="cpu", console=Interrupter(stop))
    resume(cut, device="cpu")
    assert weights(cut) == weights(whole)
    for name in (checkpoint.WEIGHTS, step_metrics.METRICS, "learned.png"):
        assert (cut / "sources" / "tile" / name).read_bytes() == (whole / "sources" / "tile" / name).read_bytes()
    kept, made = (load_file(run / "sources" / "tile" / TRANSFERRED) for run in (whole, cut))
    assert all(np.array_equal(kept[name], made[name]) for name in kept)


def test_a_training_that_diverged_goes_on_with_a_lower_rate(parts: Path, donor: Path, tmp_path: Path) -> None:
    run, settings = tmp_path / "run", (*QUICK, "learning_rate=1e20")
    with pytest.raises(TrainingError) as caught:
        train("drept", parts, preset="nano", settings=settings, donors=[donor], out=run, device="cpu")
    message = str(caught.value)
    assert "stage 'remove'" in message
    assert "a learning_rate that is too high" in message
    assert message.endswith(f"edgead train --resume --out {run} --set learning_rate=…")

    with pytest.raises(ConfigError, match=r"steps was fixed when the run was started\. Settings of drept that may"):
        resume(run, settings=("removal_steps=9",))
    recorder = Listener()
    resume(run, settings=("learning_rate=1e-3",), device="cpu", console=recorder)
    assert recorder.said[0] == "Changed: learning_rate 1e+20 -> 0.001"
    assert "No saved state: 'remove' starts from its first step" in recorder.said
    kept = run_config.load_run_config(run)
    assert kept.config.learning_rate == 1e-3
    assert kept.changes == ("learning_rate 1e+20 -> 0.001",)
    assert {line.values["learning_rate"] for line in step_metrics.read_metrics(run)} == {1e-3}
    with pytest.raises(ConfigError, match="is finished: --set learning_rate=1 has no effect"):
        resume(run, settings=("learning_rate=1",))
    assert export(run, out=tmp_path / "x.edgead").manifest.training.changes == kept.changes


def test_changed_sources_are_noticed(transferred: Path, donor: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(donor, tmp_path / "tile"))
    run = unfinished(transferred, tmp_path / "run")
    values = json.loads((run / run_config.CONFIG).read_text())
    values["sources"][0].update(root=str(copy), path=str(copy))
    (run / run_config.CONFIG).write_text(json.dumps(values))
    for name in ("weights.safetensors", TRANSFERRED):
        (run / "sources" / "tile" / name).unlink()
    shutil.copy(copy / "test/crack/0.png", copy / "test/crack/1.png")
    with pytest.raises(CheckpointError, match=r"'tile'.* differs from the one that"):
        resume(run)
    with pytest.raises(CheckpointError, match="has not learned from its donor 'tile' yet"):
        load_transferred(run, run_config.load_run_config(run))


def test_several_categories_and_the_target_among_them(parts: Path, donor: Path, tmp_path: Path) -> None:
    """A folder of several: the target is left out, and so is what has no defects."""
    root = tmp_path / "data"
    shutil.copytree(parts, root / "washer")
    shutil.copytree(donor, root / "tile")
    shutil.copytree(donor / "train", root / "flawless" / "train")
    recorder = Listener()
    [run] = train(
        "drept",
        root,
        category="washer",
        preset="nano",
        settings=QUICK,
        donors=[root],
        out=tmp_path / "run",
        console=recorder,
    )
    assert [each.name for each in run_config.load_run_config(run).donors] == ["tile"]
    refused = [line for line in recorder.said if line.startswith("Not a donor")]
    assert len(refused) == 2
    assert any("flawless has no defective images" in line for line in refused)
    assert any("washer shares images with --data" in line for line in refused)


def test_categories_share_what_they_learned(parts: Path, donor: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ("one", "two"):
        shutil.copytree(parts, root / name)
    recorder = Listener()
    runs = train(
        "drept",
        root,
        category="all",
        preset="nano",
        settings=QUICK,
        donors=[donor],
        out=tmp_path / "runs",
        console=recorder,
    )
    assert [run.name for run in runs] == ["one", "two"]
    assert sum(line.startswith("Learning from 'tile'") for line in recorder.said) == 1
    assert sum(line.startswith("Copied: ") for line in recorder.said) == 1


@pytest.mark.parametrize("stage", ["remove", "segment", ""])
def test_categories_share_what_they_learned_after_a_stop(parts: Path, donor: Path, tmp_path: Path, stage: str) -> None:
    """Stopped in the pretraining of the first, after it, and between the first category and the second."""
    root = tmp_path / "data"
    for name in ("one", "two"):
        shutil.copytree(parts, root / name)

    def attempt(console: Listener) -> list[Path]:
        options = {"category": "all", "donors": [donor], "out": tmp_path / "runs", "console": console}
        return train("drept", root, preset="nano", settings=QUICK, **options)  # type: ignore[arg-type]

    stopper, recorder = Stopper(stage, "two:" if not stage else "never"), Listener()
    with pytest.raises(KeyboardInterrupt):
        attempt(stopper)
    runs = attempt(recorder)
    said = stopper.said + recorder.said
    assert all(checkpoint.is_finished(run) for run in runs)
    assert sum(line.startswith("Learning from 'tile'") for line in recorder.said) == (stage == "remove")
    assert sum(line.startswith("Copied: ") and str(runs[0]) in line for line in said) == 1


def test_sources_that_cannot_be_used(
    parts: Path, donor: Path, transferred: Path, trained: Path, tmp_path: Path, write_image: Write
) -> None:
    def attempt(given: Path, data: Path = parts, method: str = "drept") -> None:
        train(method, data, preset="nano", donors=[given], out=tmp_path / "run")

    with pytest.raises(ConfigError, match="draem learns only from good images; leave out --donor"):
        attempt(donor, method="draem")
    with pytest.raises(DataError, match="does not exist"):
        attempt(tmp_path / "absent")
    with pytest.raises(DataError, match=r"has no defective images \(test/KIND\)"):
        attempt(write_image(tmp_path / "plain" / "0.png").parent)
    shutil.copytree(donor / "test" / "crack", tmp_path / "only" / "test" / "crack")
    with pytest.raises(DataError, match="has no good images"):
        attempt(tmp_path / "only")
    with pytest.raises(DataError, match="shares images with --data"):
        attempt(parts)
    linked = tmp_path / "linked"  # by links, and only in part
    shutil.copytree(donor, linked)
    (linked / "test" / "crack" / "9.png").symlink_to(next((parts / "test" / "good").iterdir()).resolve())
    with pytest.raises(DataError, match="shares images with --data"):
        attempt(linked)
    with pytest.raises(DataError, match="shares images with --data"):
        attempt(transferred, data=donor)  # it learned from what is now the target
    for path in (donor / "train" / "good").iterdir():
        (linked_target := tmp_path / "target" / "train" / "good").mkdir(parents=True, exist_ok=True)
        (linked_target / path.name).symlink_to(path.resolve())
    with pytest.raises(DataError, match="shares images with --data"):
        attempt(transferred, data=tmp_path / "target")  # or from images that it links to
    with pytest.raises(DataError, match="has learned nothing from donors"):
        attempt(trained)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match="does not hold defects transferred"):
        attempt(damaged)
    with pytest.raises(CheckpointError, match="does not hold defects transferred"):
        attempt(trained / checkpoint.WEIGHTS)
    assert not (tmp_path / "run").exists()
    shutil.copytree(donor, tmp_path / "broken")
    for path in (tmp_path / "broken" / "test").glob("[ch]*/*.png"):
        path.write_bytes(b"damaged")
    with pytest.raises(DataError, match="None of the 4 defective images"):
        attempt(tmp_path / "broken")


def relearned(transferred: Path, path: Path, facts: dict[str, str], **arrays: Any) -> Path:
    """Write the learned file again, with other facts or arrays."""
    file = transferred / "sources" / "tile" / TRANSFERRED
    with safe_open(file, framework="numpy") as learned:
        save_file({**load_file(file), **arrays}, path, {**learned.metadata(), **facts})
    return path


def test_a_source_counts_once(transferred: Path, donor: Path, parts: Path, tmp_path: Path) -> None:
    for given in ([donor, donor], [donor, transferred]):
        with pytest.raises(DataError, match="is given twice"):
            train("drept", parts, preset="nano", donors=given, out=tmp_path / "run")
    run = unfinished(transferred, tmp_path / "half")
    values = json.loads((run / run_config.CONFIG).read_text())
    values["sources"].append({**values["sources"][0], "name": "other"})
    (run / run_config.CONFIG).write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"has learned from 1 of its 2 donors\.\nResume it first"):
        train("drept", parts, preset="nano", donors=[run], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["../escaped", "a/b", "..", "", "a\0b"])
def test_a_run_of_others_writes_into_no_other_folder(transferred: Path, tmp_path: Path, name: str) -> None:
    """A run that is resumed copies what was learned into the folder of its donor's name."""
    run = unfinished(transferred, tmp_path / "half")
    values = json.loads((run / run_config.CONFIG).read_text())
    values["sources"][0]["name"] = name
    (run / run_config.CONFIG).write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"sources\[0\]\.name is .*it must be the name of a folder"):
        run_config.load_run_config(run)


def test_what_was_learned_elsewhere_is_not_trusted(transferred: Path, parts: Path, tmp_path: Path) -> None:
    for name in ("../escaped", "..", "", "a/b", "a\0b", "x" * 300):
        given = relearned(transferred, tmp_path / "named.safetensors", {"source": name})
        with pytest.raises(CheckpointError, match="cannot be the name of a folder"):
            train("drept", parts, preset="nano", donors=[given], out=tmp_path / "run")
    learned = load_file(transferred / "sources" / "tile" / TRANSFERRED)
    for arrays in (
        {"mean": learned["mean"].astype(np.float64)},
        {"mean": learned["mean"][:, :2]},
        {name: values[:0] for name, values in learned.items()},
        {"opacity": np.ones((), np.float32)},
    ):
        given = relearned(transferred, tmp_path / "odd.safetensors", {}, **arrays)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        with pytest.raises(CheckpointError, match=r"must hold mixtures; its '\w+' is float"):
            train("drept", parts, preset="nano", settings=QUICK, donors=[given], out=tmp_path / "run")


def test_what_is_taken_up_is_there_from_the_start(transferred: Path, donor: Path, parts: Path, tmp_path: Path) -> None:
    """Another donor's long pretraining comes before it."""
    given = relearned(transferred, tmp_path / "given.safetensors", {"source": "other", "root": "/elsewhere"})
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train("drept", parts, preset="nano", settings=QUICK, donors=[donor, given], out=run, console=Stopper("remove"))
    given.unlink()
    resume(run)
    assert checkpoint.is_finished(run)
    (run / checkpoint.WEIGHTS).unlink()
    (run / "sources" / "other" / TRANSFERRED).unlink()
    with pytest.raises(
        CheckpointError, match=r"The defects transferred from 'other' are missing: .*given\.safetensors"
    ):
        resume(run)


def test_a_pretrainings_damaged_weights_are_named(transferred: Path, tmp_path: Path) -> None:
    run = unfinished(transferred, tmp_path / "run")
    (run / "sources" / "tile" / TRANSFERRED).unlink()
    (run / "sources" / "tile" / checkpoint.WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"tile/weights\.safetensors does not hold the weights"):
        resume(run)


def test_a_copy_of_the_target_is_no_source(donor: Path, transferred: Path, parts: Path, tmp_path: Path) -> None:
    """Under other names, and in part: images are compared by what their files hold, and each is read once at most."""
    copy, moved = tmp_path / "copy", tmp_path / "moved"
    shutil.copytree(parts, copy)
    for path in sorted(copy.rglob("*.png")):
        path.rename(path.with_name(f"renamed-{path.name}"))
    one = Path(shutil.copytree(donor, tmp_path / "one"))
    shutil.copy(next((parts / "train" / "good").iterdir()), one / "test" / "good" / "9.png")
    for given in (copy, one):
        with pytest.raises(DataError, match="shares images with --data"):
            train("drept", parts, preset="nano", donors=[given], out=tmp_path / "run")
    shutil.copytree(donor, moved)  # of what the pretraining was learned from
    with pytest.raises(DataError, match="shares images with --data"):
        train("drept", moved, preset="nano", donors=[transferred], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_only_files_of_equal_size_are_read_to_compare_them(
    donor: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr("edgead.datasets.copies.sha256", lambda path: read.append(path) or sha256(path))
    target = open_category(shutil.copytree(parts, tmp_path / "target"))
    find_donors([donor], target, "drept", {}, Console())
    assert read == []
    same = Path(shutil.copytree(donor, tmp_path / "same"))
    (same / "test" / "good" / "8.png").write_bytes(bytes(target.normals[0].stat().st_size))
    for _ in range(2):
        find_donors([same], target, "drept", {}, Console())
    assert sorted(read) == sorted([same / "test" / "good" / "8.png", target.normals[0]])


def test_files_that_cannot_be_read_are_not_compared(
    donor: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(path)

    same = Path(shutil.copytree(donor, tmp_path / "same"))
    target = open_category(shutil.copytree(parts, tmp_path / "target"))
    shutil.copy(target.normals[0], same / "test" / "good" / "8.png")
    monkeypatch.setattr("edgead.datasets.copies.sha256", refuse)
    [found] = find_donors([same], target, "drept", {}, Console())
    assert found.name == "same"  # training will say that it skips them


def test_the_protocol_stands_where_the_figures_stand(transferred: Path, parts: Path, tmp_path: Path) -> None:
    bundle = export(transferred, out=tmp_path / "drept.edgead")
    assert "cross-category" in bundle.manifest.training.protocol
    assert [each.name for each in bundle.manifest.training.sources] == ["tile"]
    report = benchmark([bundle.path], parts, rounds=1, out=tmp_path / "report")
    assert report.rows[0].protocol == bundle.manifest.training.protocol
    for name in ("results.json", "results.csv", "report.html"):
        assert "cross-category" in (report.folder / name).read_text()
    for command in (["inspect", str(bundle.path)], ["methods"]):
        assert "cross-category" in CliRunner().invoke(cli, command).output


def test_the_export_compares_on_the_defects_that_were_learned(
    transferred: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random mixtures may be invisible at settings at which a donor's are not, and the run would have no bundle."""
    given: list[int] = []

    def example(method: Drept, data: TrainingData, rng: np.random.Generator) -> Arrays:
        given.append(len(data.donors))
        return original(method, data, rng)

    original = Drept.example
    monkeypatch.setattr(Drept, "example", example)
    export(transferred, out=tmp_path / "drept.edgead")
    assert set(given) == {1}


def test_without_sources_it_learns_from_good_images_alone(parts: Path, tmp_path: Path) -> None:
    recorder = Listener()
    [run] = train("drept", parts, preset="nano", settings=QUICK, out=tmp_path / "run", console=recorder)
    assert any("random mixtures" in line for line in recorder.said)
    assert run_config.load_run_config(run).donors == ()
    assert not (run / "sources").exists()
    bundle = export(run, out=tmp_path / "random.edgead")
    assert bundle.manifest.training.protocol is None


def test_a_chosen_defect_is_rendered_on_a_chosen_image(transferred: Path, donor: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.png"
    cv2.imwrite(str(part), np.full((64, 64, 3), 120, np.uint8))
    learned = load_file(transferred / "sources" / donor.name / TRANSFERRED)
    learned = {name: values[:2].copy() for name, values in learned.items()}
    for name, value in (("mean", 0.0), ("sigma", 0.2), ("correlation", 0.0), ("weight", 1.0), ("opacity", 1.0)):
        learned[name][:] = value
    learned["colour"][0], learned["colour"][1] = 1.0, -1.0  # a white one, a black one
    run = Path(shutil.copytree(transferred, tmp_path / "run"))
    with safe_open(run / "sources" / donor.name / TRANSFERRED, framework="numpy") as file:
        facts = file.metadata()
    save_file(learned, run / "sources" / donor.name / TRANSFERRED, facts)
    pictures = [synthesise(run, tmp_path / str(number), image=part, defect=number) for number in (0, 1)]
    assert [len(paths) for paths in pictures] == [1, 1]
    white, black = (cv2.imread(str(paths[0])) for paths in pictures)
    assert (white[32, 32] > 250).all()
    assert (black[32, 32] < 5).all()
    assert (white[0, 0] == 120).all()  # neither turned nor shifted: it is in the middle, as it was learned
    mask = cv2.imread(str(tmp_path / "0" / "0000_mask.png"), cv2.IMREAD_GRAYSCALE)
    assert mask[32, 32] == 255
    assert mask[0, 0] == 0
    assert len(synthesise(run, tmp_path / "three", defect=1, donor=donor.name, count=3)) == 3
    with pytest.raises(ConfigError, match="numbered 0 to 1, not 2"):
        synthesise(run, tmp_path / "two", defect=2)
    with pytest.raises(ConfigError, match=f"donors of this run: {donor.name}"):
        synthesise(run, tmp_path / "two", defect=0, donor="leather")


def test_any_method_draws_on_a_chosen_image(trained: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.png"
    cv2.imwrite(str(part), np.full((64, 64, 3), 120, np.uint8))
    for path in synthesise(trained, tmp_path / "out", image=part, count=2):
        frame, mask = (cv2.imread(str(path.with_name(f"{path.stem}{end}.png"))) for end in ("", "_mask"))
        assert (frame[(mask == 0).all(axis=2)] == 120).mean() > 0.8  # but where a turned picture is black
    with pytest.raises(ConfigError, match="has learned from no donor"):
        synthesise(trained, tmp_path / "none", image=part, defect=0)
    with pytest.raises(DataError, match="can be read"):
        synthesise(trained, tmp_path / "none", image=tmp_path / "absent.png")


def test_synthetic_anomalies_as_pictures(transferred: Path, trained: Path, tmp_path: Path) -> None:
    for run in (transferred, trained):
        config = run_config.load_run_config(run)
        out = tmp_path / config.method
        paths = synthesise(run, out, count=3, seed=1)
        assert [path.name for path in paths] == ["0000.png", "0001.png", "0002.png"]
        for path in paths:
            frame = cv2.imread(str(path))
            mask = cv2.imread(str(path.with_name(f"{path.stem}_mask.png")), cv2.IMREAD_GRAYSCALE)
            assert frame.shape == (*config.config.size, 3)
            assert set(np.unique(mask)) <= {0, 255}
            assert mask.any()
        with pytest.raises(DataError, match="already holds images"):
            synthesise(run, out)
        again = synthesise(run, tmp_path / f"{config.method}-again", count=1, seed=1)
        assert again[0].read_bytes() == paths[0].read_bytes()


def faint(transferred: Path, folder: Path, share: float) -> Path:
    """A copy of what was learned, in which all but a share of the defects are as good as transparent."""
    file = transferred / "sources" / "tile" / TRANSFERRED
    with safe_open(file, framework="numpy") as opened:
        facts = opened.metadata()
    values = load_file(file)
    values = {name: np.repeat(value, 5, axis=0) for name, value in values.items()}
    values["opacity"][:] = 0.01
    values["opacity"][: round(share * len(values["opacity"]))] = 1.0
    folder.mkdir()
    save_file(values, folder / TRANSFERRED, {**facts, "root": str(folder)})
    return folder


def test_defects_that_cannot_be_seen_stop_training_before_it_begins(
    transferred: Path, parts: Path, tmp_path: Path
) -> None:
    given = [transferred, faint(transferred, tmp_path / "faint", 0)]  # the first has enough that can be seen
    message = r"Only 0% of the defects in .*sources/tile-2 can be seen(?s:.*)removal_steps"
    with pytest.raises(DataError, match=message):
        train("drept", parts, preset="nano", settings=QUICK, donors=given, out=tmp_path / "run")
    with pytest.raises(DataError, match=message):
        resume(tmp_path / "run")
    assert not (tmp_path / "run" / step_metrics.METRICS).exists()
    assert not (tmp_path / "run" / "synthetic.png").exists()


def test_few_defects_that_can_be_seen_are_said(transferred: Path, parts: Path, tmp_path: Path) -> None:
    recorder, given = Listener(), faint(transferred, tmp_path / "faint", 0.2)
    train("drept", parts, preset="nano", settings=QUICK, donors=[given], out=tmp_path / "run", console=recorder)
    assert any(re.match(r"Warning: only \d+% of the defects in .*tile can be seen", line) for line in recorder.said)
    recorder.said.clear()
    train("drept", parts, preset="nano", settings=QUICK, out=tmp_path / "random", console=recorder)
    assert not any("can be seen" in line for line in recorder.said)
    hidden = (*QUICK, "seen_change=2")
    with pytest.raises(DataError, match="Only 0% of the synthetic anomalies can be seen"):
        train("drept", parts, preset="nano", settings=hidden, out=tmp_path / "hidden", console=recorder)


def test_old_runs_without_sources_are_read(trained: Path, tmp_path: Path) -> None:
    values = json.loads((trained / run_config.CONFIG).read_text())
    del values["sources"]
    (tmp_path / run_config.CONFIG).write_text(json.dumps(values))
    assert run_config.load_run_config(tmp_path).donors == ()


SHARED = """
import atexit
import sys
from pathlib import Path

def count() -> None:
    print("threads", sum("gloo" in name.read_text() for name in Path("/proc/self/task").glob("*/comm")), flush=True)

atexit.register(count)
from edgead.train import train

train("drept", sys.argv[1], preset="nano", settings=sys.argv[4:], donors=[sys.argv[2]], out=sys.argv[3], device="cpu")
"""


@pytest.mark.slow
def test_two_processes_learn_from_a_source_and_then_from_the_target(parts: Path, donor: Path, tmp_path: Path) -> None:
    """Turns and two trainings in one command: the group must outlive the first, and end before its processes do."""
    script, out = tmp_path / "shared.py", tmp_path / "run"
    script.write_text(SHARED)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, str(script), str(parts), str(donor), str(out), *QUICK],
        **{"capture_output": True, "text": True, "check": False, "timeout": 240},
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("threads 0") == 2, done.stdout
    stages = [entry.stage for entry in step_metrics.read_metrics(out / "sources" / "tile")]
    assert stages == ["remove"] * 3 + ["describe"] * 2
    assert len(step_metrics.read_metrics(out)) == 2
    checkpoint.load_method(out)
