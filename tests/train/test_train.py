"""`edgead train` as a function: splits, layouts, warnings, refusals."""

from __future__ import annotations

import dataclasses
import errno
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
from listener import Listener

from edgead.datasets import Category, open_category
from edgead.errors import CheckpointError, ConfigError, DataError, DeviceError
from edgead.export import export
from edgead.files import new_folder
from edgead.train import checkpoint, run_config, training_state
from edgead.train.fit import fit
from edgead.train.materials import load_textures
from edgead.train.split import MOST_HELD_OUT, split_normals
from edgead.train.training import find_unfinished, resume, train

Write = Callable[..., Path]
QUICK = ("size=32", "reconstructive_width=2", "discriminative_width=2", "steps=1", "batch_size=2")


def fill(folder: Path, write: Write, count: int = 4) -> Path:
    for index in range(count):
        write(folder / f"{index}.png", seed=index)
    return folder


def test_a_run_is_a_folder_that_says_everything(trained: Path, parts: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    files = {"config.json", "metrics.jsonl", "weights.safetensors", "synthetic.png", ".lock"}
    assert names == files | {"results.json", "pictures.json", "report.html"}
    run, method = checkpoint.load_method(trained)
    assert run.method == method.name == "draem"
    assert run.category == "washer"
    assert len(run.normals) + len(run.held_out) == 12
    assert set(run.normals).isdisjoint(run.held_out)
    assert all(name.startswith("train/good/") for name in (*run.normals, *run.held_out))
    assert len(run.fingerprint) == 64
    grid = cv2.imread(str(trained / "synthetic.png"))
    assert grid.std() > 10
    assert grid.shape == (2 * 64, 8 * 64, 3)


def test_normals_are_split_by_seed_alone(parts: Path) -> None:
    category = open_category(parts)
    first, again, other = (split_normals(category, 0.25, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert (len(first[0]), len(first[1])) == (9, 3)
    many = Category("many", parts, "plain", tuple(Path(f"{index}.png") for index in range(3000)))
    assert len(split_normals(many, 0.5, 0)[1]) == MOST_HELD_OUT
    own = Category("own", parts, "mvtec3d", (Path("a"),), (Path("b"), Path("c")))
    assert split_normals(own, 0.2, 0) == ([Path("a")], [Path("b"), Path("c")])


def test_test_images_are_never_read(parts: Path, tmp_path: Path) -> None:
    """With and without its test images, a data set gives the same weights."""
    bare = tmp_path / "washer"
    shutil.copytree(parts / "train", bare / "train")
    [with_test] = train("draem", parts, preset="nano", settings=QUICK, out=tmp_path / "a")
    [without] = train("draem", bare, preset="nano", settings=QUICK, out=tmp_path / "b")
    assert (with_test / checkpoint.WEIGHTS).read_bytes() == (without / checkpoint.WEIGHTS).read_bytes()


def test_a_run_says_what_is_there_twice_and_the_export_counts_it_once(tmp_path: Path, write_image: Write) -> None:
    folder = fill(tmp_path / "photos", write_image, 6)
    for path in sorted(folder.iterdir()):
        shutil.copy(path, folder / f"Copy of {path.name}")
    [run] = train("draem", folder, preset="nano", settings=QUICK, holdout=0.34, out=tmp_path / "run")
    config = run_config.load_run_config(run)
    assert (config.copies, config.near_copies) == (6, 0)
    assert {name.removeprefix("Copy of ") for name in config.normals}.isdisjoint(
        name.removeprefix("Copy of ") for name in config.held_out
    )
    manifest = export(run, out=tmp_path / "b.edgead").manifest
    assert len(config.held_out) == 4
    assert manifest.threshold.normals == 2
    assert (manifest.training.copies, manifest.training.near_copies) == (6, 0)


def test_an_old_run_keeps_its_split(tmp_path: Path, write_image: Write) -> None:
    """Copies are looked for when a run is started; one that began before goes on with the images that it names."""
    folder = fill(tmp_path / "photos", write_image)
    [run] = train("draem", folder, preset="nano", settings=QUICK, out=tmp_path / "run")
    values = json.loads((run / run_config.CONFIG).read_text())
    for name in ("copies", "near_copies"):
        del values[name]
    (run / run_config.CONFIG).write_text(json.dumps(values))
    (run / checkpoint.WEIGHTS).unlink()
    shutil.copy(folder / values["held_out"][0], folder / "copy.png")
    resume(run)
    config = run_config.load_run_config(run)
    assert (list(config.normals), list(config.held_out)) == (values["normals"], values["held_out"])


def test_bad_test_data_is_a_warning_when_training(tmp_path: Path, write_image: Write) -> None:
    fill(tmp_path / "x" / "train" / "good", write_image)
    write_image(tmp_path / "x" / "test" / "dent" / "0.png", seed=50)
    for name in ("0_mask.png", "9_mask.png"):
        write_image(tmp_path / "x" / "ground_truth" / "dent" / name, size=(9, 30))
    console = Listener()
    [run] = train("draem", tmp_path / "x", preset="nano", settings=QUICK, out=tmp_path / "run", console=console)
    assert checkpoint.is_finished(run)
    warnings = "\n".join(line for line in console.said if line.startswith("Warning"))
    assert "belong to no image, for instance 9_mask.png" in warnings
    assert "0_mask.png is 30×9 pixels" in warnings
    assert any("edgead benchmark would refuse" in line for line in console.said)


def test_plain_folder_of_mixed_images(tmp_path: Path, write_image: Write) -> None:
    folder = fill(tmp_path / "photos", write_image)
    grey = np.random.default_rng(0).integers(0, 65536, (50, 60), dtype=np.uint16)
    cv2.imwrite(str(folder / "grey16.tiff"), grey)
    cv2.imwrite(str(folder / "photo.jpg"), np.full((40, 40, 3), 90, np.uint8))
    cv2.imwrite(str(folder / "alpha.webp"), np.full((40, 40, 4), 200, np.uint8))
    [run] = train("draem", folder, preset="nano", settings=QUICK, out=tmp_path / "run")
    config = run_config.load_run_config(run)
    assert len(config.normals) + len(config.held_out) == 7
    assert config.category == "photos"


def test_all_categories_get_a_run_each(tmp_path: Path, write_image: Write) -> None:
    for name in ("bolt", "nut"):
        fill(tmp_path / "data" / name / "train" / "good", write_image)
    runs = train("draem", tmp_path / "data", category="all", preset="nano", settings=QUICK, out=tmp_path / "runs")
    assert [run.name for run in runs] == ["bolt", "nut"]
    assert all(checkpoint.is_finished(run) for run in runs)
    (runs[1] / checkpoint.WEIGHTS).unlink()
    again = train("draem", tmp_path / "data", category="all", preset="nano", settings=QUICK, out=tmp_path / "runs")
    assert again == runs  # the same command goes on where it stopped
    assert checkpoint.is_finished(runs[1])
    for changed, differing in (
        ({"method": "transfusion", "settings": ("size=32",)}, "method, config"),
        ({"seed": 7}, "seed"),
        ({"settings": (*QUICK[:-1], "batch_size=1")}, "config"),
        ({"textures": tmp_path}, "textures"),
        ({"data": shutil.copytree(tmp_path / "data", tmp_path / "other")}, "data"),
        ({"holdout": 0.5}, "holdout"),
    ):
        options: dict[str, Any] = {"method": "draem", "preset": "nano", "settings": QUICK, "data": tmp_path / "data"}
        with pytest.raises(ConfigError, match=f"bolt holds a run with another {differing}\\."):
            train(category="all", out=tmp_path / "runs", **{**options, **changed})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": -1}, "seed is -1; it must be from 0"),
        ({"workers": -1}, "workers is -1; it must be from 0 to 64"),
        ({"workers": 300}, "workers is 300; it must be from 0 to 64"),
        ({"bit_depth": 7}, "bit_depth is 7; it must be from 9 to 16"),
        ({"mixed_precision": "fp8"}, "mixed_precision is .fp8.; it must be one of auto, no, bf16, fp16"),
        ({"holdout": "0.2"}, "holdout is .0.2.; it must be a finite number"),
        ({"scale": "3"}, "scale is .3.; it must be a finite number"),
        ({"device": "tpu"}, "Unknown device 'tpu'"),
    ],
)
def test_a_wrong_argument_leaves_no_run(parts: Path, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    """The next command would be told to resume it."""
    with pytest.raises(ConfigError, match=words):
        train("draem", parts, preset="nano", settings=QUICK, out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_stopped_command_names_the_categories_that_it_has_not_begun(
    tmp_path: Path, write_image: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bolt", "nut", "washer"):
        fill(tmp_path / "data" / name / "train" / "good", write_image)
    monkeypatch.setattr("edgead.train.run.fit", mock.Mock(wraps=fit, side_effect=[mock.DEFAULT, KeyboardInterrupt]))
    monkeypatch.chdir(tmp_path)
    console, options = Listener(), {"category": "all", "preset": "nano", "settings": QUICK}
    with pytest.raises(KeyboardInterrupt):
        train("draem", tmp_path / "data", out=tmp_path / "runs", console=console, **options)  # type: ignore[arg-type]
    assert "nut" in console.said[-2]  # how its run goes on
    assert console.said[-1] == "Not started: washer; repeat the command to resume and train them."
    monkeypatch.setattr("edgead.train.run.fit", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train("draem", tmp_path / "data", console=console, **options)  # type: ignore[arg-type]
    assert console.said[-1] == "Not started: nut, washer; train each with --category NAME."


def test_a_folder_where_another_process_trains_is_refused(parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    hold = (
        "import sys\nfrom pathlib import Path\nfrom edgead.train.training_state import sole_trainer\n"
        "with sole_trainer(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match=f"Another process is training in {out}"):
            train("draem", parts, preset="nano", settings=QUICK, out=out)
        assert not (out / run_config.CONFIG).exists()
        holder.kill()
    [run] = train("draem", parts, preset="nano", settings=QUICK, out=out)
    assert checkpoint.is_finished(run)


def test_a_file_system_without_locks_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.lockf", mock.Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    with training_state.sole_trainer(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()


def test_damaged_images_are_named_and_counted(tmp_path: Path, write_image: Write) -> None:
    folder = fill(tmp_path / "photos", write_image, 6)
    for path in folder.iterdir():
        cut = path.with_name(f"cut-{path.name}")
        cut.write_bytes(path.read_bytes()[:60])
    recorder = Listener()
    train("draem", folder, preset="nano", settings=QUICK, out=tmp_path / "run", console=recorder)
    said = "\n".join(recorder.said)
    assert re.search(r"\d+ of 10 images skipped:", said)
    assert re.search(r"\d of 2 held-out images skipped:", said)
    assert said.count("cut-") == 6
    assert "only" in said  # few images


def test_one_damaged_image_is_one_image(tmp_path: Path, write_image: Write) -> None:
    folder, recorder = fill(tmp_path / "photos", write_image, 6), Listener()
    [run] = train("draem", folder, preset="nano", settings=QUICK, out=tmp_path / "run")
    Path(folder, run_config.load_run_config(run).normals[0]).write_bytes(b"damaged")
    train("draem", folder, preset="nano", settings=QUICK, out=tmp_path / "again", console=recorder)
    assert "Warning: 1 of 5 images skipped:" in recorder.said


def test_images_that_are_all_damaged(tmp_path: Path) -> None:
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(b"damaged")
    with pytest.raises(DataError, match="None of the 2 good images"):
        train("draem", tmp_path, preset="nano", settings=QUICK, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_image_is_too_few(tmp_path: Path, write_image: Write) -> None:
    fill(tmp_path, write_image, 1)
    with pytest.raises(DataError, match="At least two are needed"):
        train("draem", tmp_path, preset="nano", settings=QUICK)


def test_dark_16_bit_images_suggest_the_bit_depth(tmp_path: Path) -> None:
    for index in range(4):
        image = np.random.default_rng(index).integers(0, 4096, (32, 32), dtype=np.uint16)
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    recorder = Listener()
    train("draem", tmp_path, preset="nano", settings=QUICK, out=tmp_path / "a", console=recorder)
    assert any("--bit-depth" in line for line in recorder.said)
    recorder.said.clear()
    train("draem", tmp_path, preset="nano", settings=QUICK, out=tmp_path / "b", bit_depth=12, console=recorder)
    assert not any("--bit-depth" in line for line in recorder.said)


def test_textures(tmp_path: Path, parts: Path, write_image: Write) -> None:
    textures = fill(tmp_path / "textures" / "woven", write_image).parent
    [run] = train("draem", parts, preset="nano", settings=QUICK, out=tmp_path / "run", textures=textures)
    assert run_config.load_run_config(run).textures == str(textures)
    with pytest.raises(DataError, match="holds no images"):
        train("draem", parts, preset="nano", settings=QUICK, out=tmp_path / "other", textures=tmp_path / "absent")
    for seen in (parts / "test", parts):
        with pytest.raises(DataError, match="held-out or labelled images of --data"):
            train("draem", parts, preset="nano", settings=QUICK, out=tmp_path / "other", textures=seen)
    with pytest.raises(ConfigError, match="drept uses no textures; leave out --textures"):
        train("drept", parts, textures=textures)
    (run / checkpoint.WEIGHTS).unlink()
    shutil.copy(textures / "woven" / "0.png", textures / "woven" / "1.png")
    with pytest.raises(CheckpointError, match=r"The textures in .* differ from those that"):
        resume(run)


def test_a_run_is_resumed_with_a_number_of_workers_that_a_new_one_may_have(trained: Path) -> None:
    for workers in (-1, 300):
        with pytest.raises(ConfigError, match=f"workers is {workers}; it must be from 0 to 64"):
            resume(trained, workers=workers)


def test_the_bit_depth_holds_for_textures_too(tmp_path: Path, trained: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((32, 32), 2048, np.uint16))
    run = dataclasses.replace(run_config.load_run_config(trained), textures=str(tmp_path), bit_depth=12)
    assert (load_textures(run, Listener()).frames == 128).all()  # half of 4096; not 8, half of what 16 bits would be


def test_for_want_of_memory_it_says_what_to_lower(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*arguments: object, **options: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("edgead.train.run.fit", fit)
    with pytest.raises(DeviceError, match=r"(?s)Out of memory.*batch_size 2 at 32x32.*--set batch_size=.*--resume"):
        train("draem", parts, preset="nano", settings=QUICK, out=tmp_path / "run")


def test_an_existing_run_is_not_overwritten(trained: Path, parts: Path) -> None:
    with pytest.raises(ConfigError, match="--resume"):
        train("draem", parts, preset="nano", settings=QUICK, out=trained)
    with pytest.raises(ConfigError, match="share between 0 and 1"):
        train("draem", parts, holdout=1.0)


def test_resume_refuses_changed_images(trained: Path, tmp_path: Path, parts: Path) -> None:
    data = Path(shutil.copytree(parts, tmp_path / "washer"))
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    (folder / checkpoint.WEIGHTS).unlink()
    values = json.loads((folder / run_config.CONFIG).read_text())
    values["data"] = str(data)
    (folder / run_config.CONFIG).write_text(json.dumps(values))
    changed, held_out = data / values["normals"][0], data / values["held_out"][0]
    original = held_out.read_bytes()
    shutil.copy(data / values["normals"][1], held_out)
    with pytest.raises(CheckpointError, match="held out for the threshold differ from those"):
        resume(folder, data=data)  # the export would only refuse them after the training
    held_out.write_bytes(original)
    shutil.copy(data / values["normals"][1], changed)
    before = (folder / run_config.CONFIG).read_bytes()
    with pytest.raises(CheckpointError, match="differ from those"):
        resume(folder, data=data, settings=("learning_rate=1e-5",))
    assert (folder / run_config.CONFIG).read_bytes() == before
    assert find_unfinished("draem", tmp_path) == folder
    assert resume(folder, data=parts) == folder  # the right images, elsewhere
    assert checkpoint.is_finished(folder)
    assert run_config.load_run_config(folder).data == str(parts.resolve())
    values["config"]["unheard_of"] = 1
    (folder / run_config.CONFIG).write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="configuration does not fit draem"):
        resume(folder, settings=("learning_rate=1e-5",))


def test_a_finished_run_is_left_alone(trained: Path) -> None:
    before = (trained / checkpoint.WEIGHTS).stat().st_mtime_ns
    assert resume(trained) == trained
    assert (trained / checkpoint.WEIGHTS).stat().st_mtime_ns == before


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"method": "draem"}'])
def test_a_damaged_run_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / run_config.CONFIG).write_text(text)
    with pytest.raises(CheckpointError, match="damaged"):
        run_config.load_run_config(tmp_path)
    with pytest.raises(CheckpointError, match="No unfinished run"):
        find_unfinished("draem", tmp_path)
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        run_config.load_run_config(tmp_path / "absent")


def test_two_runs_in_the_same_second_get_two_folders(tmp_path: Path) -> None:
    first, second = new_folder(tmp_path / "run"), new_folder(tmp_path / "run")
    assert (first.name, second.name) == ("run", "run-2")


def test_large_seeds(tmp_path: Path, parts: Path) -> None:
    [run] = train("draem", parts, preset="nano", settings=QUICK, out=tmp_path / "run", seed=20261122)
    assert run_config.load_run_config(run).seed == 20261122


@pytest.mark.parametrize(
    "wrong", [{"crop": (0, 0, 1, 1)}, {"tiles": 2}, {"budget": 30}, {"device": 0}, {"fit": None}, {"preset": 5}]
)
def test_what_is_not_a_text_is_refused_by_its_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(wrong))} must be a string, written as on the command line"):
        train("draem", "absent", **wrong)


@pytest.mark.parametrize("name", ["settings", "donors", "track"])
def test_a_text_in_place_of_a_list_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be a list, not a string"):
        train("draem", "absent", **{name: "text"})  # type: ignore[arg-type]
