"""Learning from other products: which are taken, what is kept of it, and what may be taken up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from learned_defects import QUICK, relearned, unfinished, weights
from listener import Listener
from safetensors.numpy import load_file

from edgead.benchmark import benchmark
from edgead.cli import cli
from edgead.console import Console
from edgead.datasets import open_category
from edgead.errors import CheckpointError, ConfigError, DataError
from edgead.export import export
from edgead.files import sha256
from edgead.train import checkpoint, run_config, step_metrics, train
from edgead.train.donors import TRANSFERRED, find_donors
from edgead.train.method import Arrays, TrainingData
from edgead.train.methods.drept.method import Drept
from edgead.train.methods.drept.mixture import pool

Write = Callable[..., Path]


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


@pytest.mark.parametrize(
    ("name", "value"), [("mean", np.nan), ("opacity", np.inf), ("sigma", 0.0), ("correlation", -1.0)]
)
def test_mixtures_of_impossible_values_are_refused(name: str, value: float, transferred: Path) -> None:
    learned = load_file(transferred / "sources" / "tile" / TRANSFERRED)
    assert pool([learned])
    learned[name][-1] = value
    with pytest.raises(CheckpointError, match=f"damaged: values of '{name}'"):
        pool([learned])


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


def test_old_runs_without_sources_are_read(trained: Path, tmp_path: Path) -> None:
    values = json.loads((trained / run_config.CONFIG).read_text())
    del values["sources"]
    (tmp_path / run_config.CONFIG).write_text(json.dumps(values))
    assert run_config.load_run_config(tmp_path).donors == ()
