"""A run's configuration: runs of every method, as they were written, are read and written byte-identically."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from edgead.errors import CheckpointError
from edgead.train import run_config
from edgead.train.methods import METHODS, get_method

RECORDED = sorted(Path(__file__).with_name("runs").glob("*.json"))


def in_folder(recorded: Path, folder: Path) -> Path:
    shutil.copy(recorded, folder / run_config.CONFIG)
    return folder


def test_every_method_is_recorded() -> None:
    assert {json.loads(path.read_text())["method"] for path in RECORDED} == set(METHODS)


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda path: path.stem)
def test_recorded_runs_are_written_as_they_were_read(recorded: Path, tmp_path: Path) -> None:
    run = run_config.load_run_config(in_folder(recorded, tmp_path))
    assert type(run.config) is get_method(run.method).Config
    run_config.save_run_config(tmp_path, run)
    values, written = json.loads(recorded.read_text()), (tmp_path / run_config.CONFIG).read_bytes()
    if recorded.stem.endswith("-older"):  # what the run did not keep then is written with its default
        assert {name: value for name, value in json.loads(written).items() if name in values} == values
    else:
        assert written == recorded.read_bytes()


def test_settings_that_a_run_is_older_than_stay_out_of_what_is_written(tmp_path: Path) -> None:
    [recorded] = [path for path in RECORDED if path.stem == "transfusion-older"]
    stored = json.loads(recorded.read_text())
    for name in ("depth", "depth_shift", "depth_values", "reverse_steps"):
        del stored["config"][name]
    (tmp_path / run_config.CONFIG).write_text(json.dumps(stored))
    run = run_config.load_run_config(tmp_path)
    assert not run.config.reads_depth  # the default
    run_config.save_run_config(tmp_path, dataclasses.replace(run, seed=7))
    written = json.loads((tmp_path / run_config.CONFIG).read_text())
    assert list(written["config"].items()) == list(stored["config"].items())
    assert "unstored" not in written
    changed = dataclasses.replace(run, config=run.config.replaced(reverse_steps=2))
    assert changed.stored_config == {**stored["config"], "reverse_steps": 2}


def test_configurations_are_typed(tmp_path: Path) -> None:
    by_name = {path.stem: path for path in RECORDED}
    depth = run_config.load_run_config(in_folder(by_name["transfusion-depth"], tmp_path))
    assert (depth.config.reads_depth, depth.config.channels, depth.depth_range) == (True, 4, (312.5, 1840.0))
    masks = run_config.load_run_config(in_folder(by_name["aand-masks"], tmp_path))
    assert (masks.config.foreground, masks.masks_fingerprint) == ("/data/masks", "e" * 64)
    assert masks.shipped_config == {**masks.stored_config, "foreground": "masks"}  # a bundle tells no one's folders
    draem = run_config.load_run_config(in_folder(by_name["draem"], tmp_path))
    assert (draem.config.size, draem.config.foreground, draem.config.backbone) == ((64, 96), "", "")
    assert [
        donor.name for donor in run_config.load_run_config(in_folder(by_name["drept-donors"], tmp_path)).donors
    ] == [
        "tile",
        "wood",
    ]


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("batch_size", "many", 'batch_size is "many"; it must be a whole number'),
        ("batch_size", 0, "batch_size is 0; it must be from 1 to 1000000000"),
        ("widht", 64, "Unknown setting 'widht' of transfusion. Did you mean 'width'"),
    ],
)
def test_a_wrong_setting_is_refused(setting: str, value: object, message: str, tmp_path: Path) -> None:
    [recorded] = [path for path in RECORDED if path.stem == "transfusion-older"]
    values = json.loads(recorded.read_text())
    values["config"][setting] = value
    (tmp_path / run_config.CONFIG).write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=message):
        run_config.load_run_config(tmp_path)
