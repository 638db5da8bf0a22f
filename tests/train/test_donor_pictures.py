"""Learned defects as pictures: chosen, drawn by any method, and visible."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from learned_defects import QUICK
from listener import Listener
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from edgead.errors import ConfigError, DataError
from edgead.train import resume, run_config, step_metrics, train
from edgead.train.donors import TRANSFERRED
from edgead.train.synthesise import synthesise


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
        with pytest.raises(DataError, match="already holds files"):
            synthesise(run, out)
        again = synthesise(run, tmp_path / f"{config.method}-again", count=1, seed=1)
        assert again[0].read_bytes() == paths[0].read_bytes()


def test_photographs_and_bundles_are_no_place_for_pictures(trained: Path, tmp_path: Path) -> None:
    for name in ("007.jpg", "manifest.json"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_bytes(b"kept")
        with pytest.raises(DataError, match="already holds files"):
            synthesise(trained, folder, count=1)
        assert [path.name for path in folder.iterdir()] == [name]
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / ".DS_Store").touch()
    assert synthesise(trained, empty, count=1)


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


@pytest.mark.long
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
