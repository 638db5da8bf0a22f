"""A sweep on this machine: keys, the store, failures, and what happens after a stop."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import pytest
from listener import Listener
from tiny import TINY
from waiting import wait_until

from edgead import schema
from edgead.benchmark.figures import Stability
from edgead.console import Console
from edgead.errors import ConfigError, EdgeadError, GateError
from edgead.files import write_json
from edgead.images import encode_png
from edgead.reports.points import read_points
from edgead.sweep import fingerprint, stages, worker
from edgead.sweep.cell import Cell, make_cells
from edgead.sweep.file import Entry, read_sweep_file
from edgead.sweep.results import BundleFigures, SeedAverage, SweepRow, average, collect, format_table, write_results
from edgead.sweep.run_sweep import plan, sweep
from edgead.sweep.store import LOG, CellState, Outcome, Store
from edgead.train.checkpoint import WEIGHTS
from edgead.train.configuration import configure
from edgead.train.methods import get_method
from edgead.train.run_config import DonorConfig, load_run_config, save_run_config
from edgead.train.training_state import sole_trainer


def make_file(folder: Path, data: Path, **fields: object) -> Path:
    """Write a sweep file with one method."""
    values = {"data": str(data), "rounds": 5, "engine": "onnxruntime", "cpus": 1, "settings": list(TINY), **fields}
    top = "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
    file = folder / "sweep.toml"
    file.write_text(f'{top}\n[[methods]]\nmethod = "draem"\npreset = "nano"\n')
    return file


def cells_of(folder: Path, data: Path, **fields: object) -> list[Cell]:
    return make_cells(read_sweep_file(make_file(folder, data, **fields)))


# ---- the file


def test_a_table_overrides_the_top_of_the_file(parts: Path, tmp_path: Path) -> None:
    file = make_file(tmp_path, parts, seeds=[0, 1])
    file.write_text(file.read_text() + '[[methods]]\nmethod = "aand"\npreset = "edge"\nseeds = [7]\nsettings = []\n')
    first, second = read_sweep_file(file)
    assert (first.method, first.seeds, first.settings) == ("draem", (0, 1), TINY)
    assert (second.method, second.seeds, second.settings) == ("aand", (7,), ())


def test_files_at_the_top_are_for_the_methods_that_take_them(parts: Path, tmp_path: Path) -> None:
    file = make_file(tmp_path, parts, textures="t", weights="w", donors=["d"])
    methods = ("patchcore", "aand", "drept")
    tables = "".join(f'[[methods]]\nmethod = "{name}"\npreset = "edge"\n' for name in methods)
    own = '[[methods]]\nmethod = "patchcore"\npreset = "edge"\ntextures = "own"\n'
    file.write_text(f"{file.read_text()}{tables}{own}")
    draem, patchcore, aand, drept, refused = read_sweep_file(file)

    def files(entry: Entry) -> list[bool]:
        return [bool(entry.textures), bool(entry.weights), bool(entry.donors)]

    assert files(draem) == [True, False, False]
    assert files(patchcore) == [False, True, False]
    assert files(aand) == [True, True, False]
    assert files(drept) == [False, False, True]
    assert refused.textures == str(tmp_path / "own")  # training says that it uses none


def test_relative_paths_start_at_the_file(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    [entry] = read_sweep_file(make_file(tmp_path / "sub", Path("washer"), align="good.png"))
    assert (entry.data, entry.align) == (str(tmp_path / "sub" / "washer"), str(tmp_path / "sub" / "good.png"))
    [entry] = read_sweep_file(make_file(tmp_path / "sub", Path("washer"), align="auto"))
    assert entry.align == "auto"


def test_a_training_has_the_geometry_of_its_cell(parts: Path, tmp_path: Path) -> None:
    [cell] = cells_of(tmp_path, parts, crop="0,0,1,0.5", fit="letterbox")
    stages.train_cell(cell, tmp_path / "run", 0, Listener())
    geometry = load_run_config(tmp_path / "run").geometry
    assert (geometry.crop, geometry.fit) == ((0.0, 0.0, 1.0, 0.5), "letterbox")


def test_a_cell_goes_on_in_folders_that_were_moved(parts: Path, tmp_path: Path) -> None:
    """They count with their contents alone; but training and export looked for them where they had been."""
    place, run = tmp_path / "first", tmp_path / "run"
    shutil.copytree(parts, place / "washer")
    shutil.copytree(parts / "test", place / "textures")
    for image in (place / "textures").rglob("*.png"):
        image.write_bytes(encode_png(cv2.flip(cv2.imread(str(image)), 0)))
    keys = set()
    for step in ("train", "resume", "export"):
        place = place.rename(tmp_path / step)
        [cell] = cells_of(place, Path("washer"), textures="textures")
        keys.add(cell.key)
        if step == "export":
            stages.export_cell(cell, run, "fp32", tmp_path / "made.edgead", Listener())
        else:
            stages.train_cell(cell, run, 0, Listener())
        if step == "train":
            (run / WEIGHTS).unlink()  # as if it had been stopped before its first state
    assert len(keys) == 1


def test_a_started_run_finds_its_masks_and_donors(parts: Path, trained: Path, tmp_path: Path) -> None:
    run, data = tmp_path / "run", shutil.copytree(parts, tmp_path / "new" / "washer")
    donor, masks = tmp_path / "new" / "donor", tmp_path / "new" / "masks"
    shutil.copytree(parts / "train" / "good", masks)
    for image in shutil.copytree(parts, donor).rglob("*.png"):
        image.write_bytes(encode_png(cv2.flip(cv2.imread(str(image)), 0)))
    of_donor = (DonorConfig("donor", "/old/donor", "/old/donor", ("a",), ("b",), "f"),)
    given: dict[str, tuple[tuple[str, ...], tuple[DonorConfig, ...], dict[str, object]]] = {
        "drept": ((), of_donor, {"donors": [str(donor)]}),
        "transfusion": (("foreground=/old/masks",), (), {"settings": [f"foreground={masks}"]}),
    }
    for name, (settings, donors, fields) in given.items():
        config = configure(get_method(name), "nano", settings)
        old = dataclasses.replace(load_run_config(trained), method=name, config=config, donors=donors)
        run.mkdir(exist_ok=True)
        save_run_config(run, dataclasses.replace(old, data="/old/washer"))
        file = make_file(tmp_path, data, **{"settings": [], **fields})
        file.write_text(file.read_text().replace("draem", name))
        stages.update_paths(make_cells(read_sweep_file(file))[0], run, Listener())
        found = load_run_config(run)
        assert found.data == str(data)
        if name == "drept":
            assert found.donors == (DonorConfig("donor", str(donor), str(donor), ("a",), ("b",), "f"),)
        else:
            assert found.config.foreground == str(masks)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sedes": [1]}, "unknown field 'sedes'"),
        ({"seeds": "all"}, 'seeds is "all"; it must be a list'),
        ({"seeds": []}, "seeds is an empty list"),
        ({"seeds": [-1]}, "at least 0"),
        ({"categories": []}, "categories is an empty list"),
        ({"precisions": ["fp32", "fp32"]}, "precisions names one twice"),
        ({"holdout": 2.0}, "holdout is 2.0; it must be from 0 to 1"),
        ({"false_reject": 2.0}, "false_reject is 2.0; it must be from 0 to 1"),
    ],
)
def test_a_wrong_field_is_named(parts: Path, tmp_path: Path, fields: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.toml") as caught:
        read_sweep_file(make_file(tmp_path, parts, **fields))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mixed_precision": "fp8"}, "mixed_precision is"),
        ({"engine": "onnxruntim"}, "Did you mean 'onnxruntime'"),
        ({"budget": "soon"}, "--budget takes a time"),
        ({"precisions": ["int3"]}, "precision is"),
        ({"holdout": 1.0}, "--holdout must be a share"),
        ({"false_reject": 0.0}, "must lie between 0 and 1"),
        ({"settings": ["stepz=1"]}, "stepz"),
        ({"crop": "0,0,2"}, "--crop"),
        ({"max_shift": 0.1}, "--max-shift is a setting of --align"),
    ],
)
def test_what_a_cell_would_refuse_is_refused_before_any_training(
    parts: Path, tmp_path: Path, fields: dict[str, object], words: str
) -> None:
    file = make_file(tmp_path, parts, **fields)
    for attempt in (plan, sweep):
        with pytest.raises(EdgeadError, match=words):
            attempt(file, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


LIST = '[[methods]]\nmethod = ["x"]\npreset = "nano"\ndata = "d"\n'


@pytest.mark.parametrize("text", ["seeds = [", "seeds = [1]\n", "methods = 3\n", LIST])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"s\.toml"):
        read_sweep_file(tmp_path / "s.toml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_sweep_file(tmp_path / "s.toml")


# ---- the key


GEOMETRIES: tuple[dict[str, object], ...] = (
    {"crop": "0,0,1,0.5"},
    {"fit": "letterbox"},
    {"tiles": "2x2"},
    {"tiles": "2x2", "overlap": 0.25},
    {"align": "auto"},
    {"align": "auto", "max_rotation": 180},
)


def test_a_key_depends_on_configuration_data_and_code(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [cell] = cells_of(tmp_path, parts)
    assert cells_of(tmp_path, parts)[0].key == cell.key
    others = [
        cells_of(tmp_path, parts, seeds=[1])[0].key,
        cells_of(tmp_path, parts, settings=[*TINY[:-1], "batch_size=3"])[0].key,
        cells_of(tmp_path, parts, holdout=0.3)[0].key,
        cells_of(tmp_path, parts, textures=str(parts / "test"))[0].key,
        *(cells_of(tmp_path, parts, **geometry)[0].key for geometry in GEOMETRIES),
        cells_of(tmp_path, parts, align=str(next((parts / "train/good").iterdir())))[0].key,
        cells_of(tmp_path, parts, code="one")[0].key,
        cells_of(tmp_path, parts, code="two")[0].key,
    ]
    monkeypatch.setattr(fingerprint, "code_fingerprint", lambda left_out: "another program")
    others.append(cells_of(tmp_path, parts)[0].key)
    assert len({cell.key, *others}) == 1 + len(others)


def test_a_key_does_not_depend_on_what_cannot_change_the_training(parts: Path, tmp_path: Path) -> None:
    [cell] = cells_of(tmp_path, parts)
    copy = shutil.copytree(parts, tmp_path / "elsewhere" / parts.name)
    same = {"cpus": 2, "gpus": 0, "workers": 1, "device": "cpu", "label": "x", "precisions": ["int8"], "rounds": 9}
    [other] = cells_of(tmp_path, copy, **same)
    assert other.key == cell.key
    assert other.measuring.key != cell.measuring.key  # of other rounds
    assert cells_of(tmp_path, parts, precisions=["int8"])[0].measuring.key == cell.measuring.key


def test_a_number_may_be_written_in_two_ways(parts: Path, tmp_path: Path) -> None:
    [one], [other] = (cells_of(tmp_path, parts, align="auto", max_rotation=angle) for angle in (180, 180.0))
    assert one.key == other.key


def test_a_changed_image_changes_the_key(parts: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(parts, tmp_path / parts.name)
    [cell] = cells_of(tmp_path, copy)
    image = next((copy / "train" / "good").iterdir())
    image.write_bytes(image.read_bytes() + b"x")
    fingerprint.files_fingerprint.cache_clear()
    [changed] = cells_of(tmp_path, copy)
    assert changed.key != cell.key


def test_a_folder_in_a_setting_counts_with_its_content(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other masks of the foreground were the same cell: it stayed done, with the figures of the old ones."""

    def cell() -> Cell:
        table = '[[methods]]\nmethod = "transfusion"\npreset = "nano"\nsettings = ["foreground=masks"]\n'
        (tmp_path / "s.toml").write_text(f"data = {json.dumps(str(parts))}\n{table}")
        return make_cells(read_sweep_file(tmp_path / "s.toml"))[0]

    masks = tmp_path / "masks"
    shutil.copytree(parts / "train" / "good", masks)
    monkeypatch.chdir(parts)  # the folder is beside the file
    first = cell()
    assert first.entry.settings == (f"foreground={masks}",)
    stages.check_cell(first)
    next(masks.iterdir()).write_bytes(b"another mask")
    assert cell().key != first.key


def test_a_link_that_leads_back_is_not_followed(parts: Path, tmp_path: Path) -> None:
    """Two of them in a folder doubled what was read, at each of forty levels."""
    copy = shutil.copytree(parts, tmp_path / parts.name)
    [cell] = cells_of(tmp_path, copy)
    (copy / "train" / "good" / "back").symlink_to("..")
    fingerprint.files_fingerprint.cache_clear()
    assert cells_of(tmp_path, copy)[0].key == cell.key


def test_the_program_of_a_training_is_not_that_of_a_measurement() -> None:
    training = fingerprint.code_fingerprint(fingerprint.NOT_IN_TRAINING)
    assert training != fingerprint.code_fingerprint(fingerprint.NOT_IN_MEASURING)
    assert training != fingerprint.code_fingerprint((*fingerprint.NOT_IN_TRAINING, "train"))
    assert set(fingerprint.NOT_IN_MEASURING) < set(fingerprint.NOT_IN_TRAINING)


def test_the_same_training_twice_is_refused(parts: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="same training"):
        cells_of(tmp_path, parts, seeds=[3, 3])


def test_data_that_changed_since_the_last_sweep_of_a_program_are_other_data(parts: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(parts, tmp_path / "washer"))
    [before] = cells_of(tmp_path, data)
    [again] = cells_of(tmp_path, data)
    assert again.key == before.key
    images = sorted((data / "train" / "good").iterdir())
    images[0].write_bytes(images[1].read_bytes())
    [after] = cells_of(tmp_path, data)
    assert after.key != before.key


def test_tables_of_one_label_may_differ_in_their_seeds_only(parts: Path, tmp_path: Path) -> None:
    def tables(**second: object) -> list[Cell]:
        path = tmp_path / "two.toml"
        table = {"method": "draem", "preset": "nano", "code": "1"}
        lines = [f"data = {str(parts)!r}"]
        for each in (table, {**table, "seeds": [1], **second}):
            lines += ["[[methods]]", *(f"{name} = {value!r}" for name, value in each.items())]
        path.write_text("\n".join(lines))
        return make_cells(read_sweep_file(path))

    assert len(tables()) == len(tables(holdout=0.4, label="more held out")) == 2
    with pytest.raises(ConfigError, match=r"'draem nano' for .* differ in holdout: .*averaged.*\n.*label ="):
        tables(holdout=0.4)
    with pytest.raises(ConfigError, match="differ in rounds"):
        tables(rounds=5)


# ---- the store and the worker


def test_a_record_is_read_as_it_was_written(parts: Path, tmp_path: Path) -> None:
    [cell] = cells_of(tmp_path, parts)
    store = Store(tmp_path / "store")
    outcomes = {"fp32": Outcome("abc", 2.5, size=7), "int8": Outcome("abc", 1.5, "why")}
    record = dataclasses.replace(store.load(cell), train_seconds=3.5, trained=True, outcomes=outcomes)
    store.save(cell, record)
    assert store.load(cell) == record


def test_a_cell_is_worked_on_once(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training, each precision, and new figures for another number of rounds; nothing else twice."""
    calls: list[str] = []
    store = fake_stages(monkeypatch, calls, tmp_path)
    for rounds, precisions in [(5, ["fp32"]), (5, ["fp32"]), (5, ["fp32", "int8"]), (9, ["fp32"])]:
        [cell] = cells_of(tmp_path, parts, rounds=rounds, precisions=precisions)
        worker.work(cell, store.root, 0)
        assert store.is_settled(cell)
    assert calls == ["train", "export fp32", "benchmark 5", "export int8", "benchmark 5", "export fp32", "benchmark 9"]


def fake_stages(monkeypatch: pytest.MonkeyPatch, calls: list[str], tmp_path: Path) -> Store:
    """Stages that only say that they were called; exporting fp16 fails."""

    def export(cell: Cell, run: Path, precision: str, bundle: Path, console: Console) -> None:
        calls.append(f"export {precision}")
        if precision == "fp16":
            raise GateError("It does not pass.")
        bundle.mkdir(exist_ok=True)

    monkeypatch.setattr(worker.stages, "train_cell", lambda *_: calls.append("train"))
    monkeypatch.setattr(worker.stages, "export_cell", export)
    monkeypatch.setattr(
        worker.stages, "benchmark_cell", lambda cell, *_: calls.append(f"benchmark {cell.measuring.rounds}")
    )
    return Store(tmp_path / "store")


def test_a_precision_that_fails_ends_no_other(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    store = fake_stages(monkeypatch, calls, tmp_path)
    [cell] = cells_of(tmp_path, parts, precisions=["fp16", "fp32"])
    worker.work(cell, store.root, 0)
    assert store.state(cell, "fp16") == (CellState.FAILED, "It does not pass.")
    assert store.state(cell, "fp32") == (CellState.DONE, "")
    worker.work(cell, store.root, 0)
    assert calls.count("export fp16") == 1
    assert (store.is_settled(cell), store.is_settled(cell, retry_failed=True)) == (True, False)
    worker.work(cell, store.root, 0, retry_failed=True)
    assert (calls.count("export fp16"), calls.count("export fp32"), calls.count("train")) == (2, 1, 1)


def test_what_failed_in_another_process_is_run_again(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --retry-failed while it worked on the cell, its record of the failure came back, and nothing was retried."""
    calls: list[str] = []
    store = fake_stages(monkeypatch, calls, tmp_path)
    [cell] = cells_of(tmp_path, parts, precisions=["fp16", "fp32"])
    asked: list[threading.Thread] = []
    export = worker.stages.export_cell

    def export_slowly(*given: object) -> None:
        export(*given)  # type: ignore[arg-type]
        if "fp32" in given and not asked:
            asked.append(threading.Thread(target=worker.work, args=(cell, store.root, 0, True)))
            asked[0].start()
            wait_until(lambda: "waiting for another" in store.last_line(cell), 10)

    monkeypatch.setattr(worker.stages, "export_cell", export_slowly)
    worker.work(cell, store.root, 0)
    asked[0].join(10)
    assert calls.count("export fp16") == 2


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_report_that_cannot_be_read_is_a_row(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    """It ended the sweep, and the rows of all other cells were not written."""
    store = fake_stages(monkeypatch, [], tmp_path)
    [cell] = cells_of(tmp_path, parts)
    worker.work(cell, store.root, 0)
    assert store.is_settled(cell)
    report = store.report(cell, "fp32") / "results.json"
    report.unlink(missing_ok=True)
    if content is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(content)
    [row] = collect(store, [cell], {})
    assert row.state is CellState.FAILED
    assert "results.json cannot be read" in row.reason
    assert "Delete the folder of its cell" in row.reason


def test_a_training_that_fails_is_a_row(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fake_stages(monkeypatch, [], tmp_path)
    monkeypatch.setattr(worker.stages, "train_cell", lambda *_: 1 / 0)
    [cell] = cells_of(tmp_path, parts)
    worker.work(cell, store.root, 0)
    [row] = collect(store, [cell], {})
    assert (row.state, row.reason, row.figures) == (CellState.FAILED, "ZeroDivisionError: division by zero", None)
    assert "Traceback" in (store.folder(cell) / LOG).read_text()


def test_a_stopped_training_is_not_failed(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    calls: list[str] = []
    store = fake_stages(monkeypatch, calls, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(worker.stages, "train_cell", stop)
        [cell] = cells_of(tmp_path, parts)
        with pytest.raises(KeyboardInterrupt):
            worker.work(cell, store.root, 0)
    assert store.state(cell, "fp32")[0] is CellState.STARTED
    worker.work(cell, store.root, 0)
    assert store.state(cell, "fp32")[0] is CellState.DONE


def test_an_export_that_was_stopped_leaves_no_figures_of_the_one_before(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the file as before, the cell was done: with the old figures, and the bundle of another threshold."""
    calls: list[str] = []
    store = fake_stages(monkeypatch, calls, tmp_path)
    [before] = cells_of(tmp_path, parts)
    [other] = cells_of(tmp_path, parts, false_reject=0.2)
    worker.work(before, store.root, 0)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker.stages, "benchmark_cell", stop)
        with pytest.raises(KeyboardInterrupt):
            worker.work(other, store.root, 0)
    assert store.state(before, "fp32")[0] is CellState.STARTED
    worker.work(before, store.root, 0)
    assert calls == ["train", "export fp32", "benchmark 5", "export fp32", "export fp32", "benchmark 5"]


def test_the_seconds_of_a_training_that_was_killed_count(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed while another process waits for the cell: what it wrote meanwhile was not looked at."""
    store = fake_stages(monkeypatch, [], tmp_path)
    [cell] = cells_of(tmp_path, parts)
    began: list[float] = []
    monkeypatch.setattr(worker.stages, "train_cell", lambda *_: began.append(store.load(cell).began))
    waiting = threading.Thread(target=worker.work, args=(cell, store.root, 0))
    with store.sole_worker(cell, Console()):
        waiting.start()
        wait_until(lambda: "waiting for another" in store.last_line(cell), 10)
        killed = time.time()
        store.save(cell, dataclasses.replace(store.load(cell), train_seconds=7.0, began=killed - 100))
        os.utime(store.folder(cell) / LOG, (killed, killed))  # its last line
    waiting.join(10)
    record = store.load(cell)
    assert killed <= began[0] <= time.time()
    assert (record.began, record.trained) == (0, True)
    assert 107 <= record.train_seconds < 117


def test_another_program_works_on_nothing(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    store = fake_stages(monkeypatch, calls, tmp_path)
    [cell] = cells_of(tmp_path, parts)
    monkeypatch.setattr(fingerprint, "code_fingerprint", lambda left_out: "another program")
    with pytest.raises(ConfigError, match="another version of edgead than the one that started"):
        worker.work(cell, store.root, 0)
    assert not calls


def test_two_processes_do_not_work_on_one_cell(parts: Path, tmp_path: Path) -> None:
    [cell] = cells_of(tmp_path, parts)
    store = Store(tmp_path / "store")
    store.folder(cell).mkdir(parents=True)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys, time\nfile = open(sys.argv[1], 'w')\nfcntl.lockf(file, fcntl.LOCK_EX)\n"
            "print('held', flush=True)\ntime.sleep(1)",
            str(store.folder(cell) / ".lock"),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    with store.sole_worker(cell, Console()):
        assert holder.wait(5) == 0  # it was waited for
    holder.stdout.close()


@pytest.mark.parametrize("kind", ["cell", "run"])
def test_what_a_killed_process_was_writing_is_deleted(parts: Path, tmp_path: Path, kind: str) -> None:
    """Each kill during the export of a large network left a hidden folder of hundreds of megabytes."""
    [cell] = cells_of(tmp_path, parts)
    store = Store(tmp_path / "store")
    folder = store.folder(cell)
    write_json(folder / "cell.json", {})
    killed = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom edgead.files import atomic_file, atomic_folder\n"
        "bundle, weights = map(Path, sys.argv[1:])\n"
        "with atomic_folder(bundle) as folder, atomic_file(weights) as stream:\n"
        "    (folder / 'model.onnx').write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", killed, folder / "nut.edgead", folder / "state.safetensors"], check=False)
    assert len(list(folder.glob("*.part"))) == 2
    (folder / ".other.part").touch()
    with store.sole_worker(cell, Console()) if kind == "cell" else sole_trainer(folder):
        assert sorted(path.name for path in folder.iterdir()) == [".lock", ".other.part", "cell.json"]


# ---- results


def row(seed: int, auroc: float | None, **fields: object) -> SweepRow:
    figures = None
    if auroc is not None:
        figures = BundleFigures(
            "onnxruntime-cpu", (64, 64), auroc, 0.5, 0.5, None, None, None, None, 0.0, 1.0, {"p50": 2.0}
        )
    state = CellState.FAILED if auroc is None else CellState.DONE
    reason = "" if figures else "out of memory"
    made = SweepRow(
        "k", "tiny", "draem", "nano", (), "nut", seed, "fp32", state, reason, size_bytes=10, figures=figures
    )
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


def test_means_and_spread_are_over_seeds() -> None:
    rows = [row(0, 0.8), row(1, 0.9), row(2, None), row(0, 0.5, precision="int8")]
    first, second = average(rows)
    assert (first.seeds, first.failed) == ((0, 1), 1)
    assert first.image_auroc is not None
    assert first.image_auroc.mean == pytest.approx(0.85)
    assert first.image_auroc.deviation == pytest.approx(0.1 / math.sqrt(2))
    assert first.aupro is None
    assert second.image_auroc is not None
    assert second.image_auroc.deviation is None


def test_the_table_has_what_failed_below() -> None:
    rows = [row(0, 0.8), row(1, 0.9), row(2, None)]
    lines = format_table(rows, average(rows)).splitlines()
    assert lines[2].split()[:4] == ["tiny", "nut", "fp32", "2"]
    assert "85.0 ± 7.1" in lines[2]
    assert lines[-1] == "Failed: tiny, nut, seed 2, fp32: out of memory"


def test_a_latency_of_a_busy_machine_is_none(tmp_path: Path) -> None:
    """Cells that run at once disturb each other: their benchmarks said unstable, and the sweep showed the times."""
    quiet, stability = row(1, 0.9), Stability(0.3, None, None, "the median changed by +30 %")
    assert quiet.figures
    busy = dataclasses.replace(quiet, figures=dataclasses.replace(quiet.figures, stability=stability))
    table = write_results(Store(tmp_path), Path("a.toml"), [row(0, 0.8), busy])
    assert "unstable" in table.splitlines()[2]
    assert table.splitlines()[-1] == "unstable: tiny, nut, fp32: the median changed by +30 %."
    [point] = read_points([tmp_path])
    assert (point.unstable, point.seeds, point.counts) == ("the median changed by +30 %", 2, False)


def test_times_of_several_engines_have_no_mean() -> None:
    """With `auto`, each seed takes the engine that is fastest in its turn; the mean was that of none of them."""
    other = row(1, 0.9)
    assert other.figures
    figures = dataclasses.replace(other.figures, engine="openvino-cpu", latency_ms={"p50": 8.0})
    rows = [row(0, 0.8), dataclasses.replace(other, figures=figures)]
    [mean] = average(rows)
    assert (mean.p50_ms, mean.image_auroc and mean.image_auroc.mean) == (None, pytest.approx(0.85))
    text = "No mean time of tiny, nut, fp32: measured on onnxruntime-cpu and on openvino-cpu."
    assert format_table(rows, average(rows)).splitlines()[-1] == text


def test_results_are_json_that_reads_back(tmp_path: Path) -> None:
    rows = [row(0, 0.8), row(2, None)]
    write_results(Store(tmp_path), Path("a.toml"), rows)
    found = json.loads((tmp_path / "results.json").read_text())
    assert [schema.read(SeedAverage, each) for each in found["averages"]] == average(rows)
    assert [each["state"] for each in found["rows"]] == ["done", "failed"]


# ---- the command line, with Ray


def command(file: Path, store: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "edgead", "sweep", str(file), "--out", str(store), *more]


@pytest.mark.long
def test_a_sweep_is_stopped_and_resumed(parts: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    settings = [*TINY[:3], "steps=60", "batch_size=2"]
    file, folder = make_file(tmp_path, parts, settings=settings), tmp_path / "store"
    [cell] = make_cells(read_sweep_file(file))
    store = Store(folder)
    running = subprocess.Popen(command(file, folder), stderr=subprocess.PIPE, text=True)
    metrics = store.run(cell) / "metrics.jsonl"
    wait_until(lambda: metrics.is_file() and len(metrics.read_text().splitlines()) >= 5, 90, running)
    stopped_at = time.monotonic()
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=30)
    assert time.monotonic() - stopped_at < 15
    assert (running.returncode, "Stopping" in said, "Traceback" in said) == (130, True, False), said
    assert (store.run(cell) / "state.safetensors").is_file()
    assert store.state(cell, "fp32")[0] is CellState.STARTED

    done = subprocess.run(command(file, folder), capture_output=True, text=True, check=True)
    assert store.state(cell, "fp32")[0] is CellState.DONE
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == list(range(1, 61))  # it went on where it stopped
    [found] = json.loads((folder / "results.json").read_text())["rows"]
    assert found["figures"]["image_auroc"] >= 0
    assert (folder / found["bundle"] / "manifest.json").is_file()
    assert (folder / "table.txt").read_text().strip() in done.stdout

    before = {path: path.stat().st_mtime_ns for path in store.folder(cell).rglob("*")}
    subprocess.run(command(file, folder), capture_output=True, check=True)
    assert {path: path.stat().st_mtime_ns for path in store.folder(cell).rglob("*")} == before  # never run twice
