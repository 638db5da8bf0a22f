"""Pages of real trainings and exports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from page_reader import HOSTILE, check_alone

from edgead.bundle import Bundle, is_bundle
from edgead.bundle.gate_record import AttemptRecord, GateRecord
from edgead.errors import DataError
from edgead.export import export
from edgead.reports.build import report
from edgead.reports.export_page import gate_in_words, report_folder
from edgead.reports.pictures import read_pictures
from edgead.train import train, watching
from edgead.train.checkpoint import WEIGHTS, load_method

QUICK = ("size=32", "reconstructive_width=2", "discriminative_width=2", "steps=9", "batch_size=2")


def test_a_training_leaves_its_page(trained: Path, bundle: Bundle) -> None:
    text = (trained / "report.html").read_text()
    page = check_alone(text)
    results = json.loads((trained / "results.json").read_text())
    assert len(results["scores"]) == results["held_out"] == 2
    # The exported graph scores alike, up to rounding.
    assert sorted(results["scores"]) == pytest.approx(bundle.manifest.threshold.scores, rel=1e-3)
    assert results["names"][0] in text
    lines = page.all("polyline", "line")
    assert len(lines) >= 3  # the total and DRAEM's losses
    assert all(len((line["points"] or "").split()) == 12 for line in lines)
    highest, animation, examples = read_pictures(trained)
    assert (len(highest.pictures), len(animation.pictures), len(examples.pictures)) == (2, 3, 8)
    assert animation.moments[0] == "image alone"
    assert animation.moments[-1] == "trained"
    assert all(len(each.jpegs) == len(animation.moments) for each in animation.pictures)
    assert len(page.all("img")) == 2 + 3 * len(animation.moments) + 8
    assert "out of 1,000 good parts" in text
    assert not (trained / watching.FOLDER).exists()


def test_a_page_is_rebuilt_from_its_folder_alone(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    page = tmp_path / "run" / "report.html"
    before = page.read_text()
    (tmp_path / "run" / WEIGHTS).unlink()
    page.unlink()
    assert report([tmp_path / "run"]) == page
    assert page.read_text() == before
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    changed = {"category": HOSTILE, "departures": [HOSTILE], "precision": "no", "stage_precisions": {}}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config | changed))
    for name in ("results.json", "pictures.json"):  # as of a run that is not finished
        (tmp_path / "run" / name).unlink()
    text = report([tmp_path / "run"]).read_text()
    check_alone(text)
    assert HOSTILE not in text
    assert "not finished" in text
    assert "<dd>float32</dd>" in text  # and not the word of --mixed-precision
    (tmp_path / "run" / "pictures.json").write_text('{"schema": 1, "groups": [{"title": "x"}]}')
    with pytest.raises(DataError, match=r"pictures\.json is damaged"):
        report([tmp_path / "run"])


@pytest.mark.long
def test_watching_changes_nothing_and_a_broken_report_costs_nothing(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [watched] = train("draem", parts, preset="nano", settings=QUICK, out=tmp_path / "a")
    monkeypatch.setattr("edgead.train.report.Watch", None)  # every step of the report fails from here on
    monkeypatch.setattr("edgead.train.report._score", None)
    [other] = train("draem", parts, preset="nano", settings=QUICK, out=tmp_path / "b")
    assert (watched / WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()
    assert (watched / "report.html").exists()
    assert not (other / "report.html").exists()


def test_a_snapshot_leaves_the_network_as_it_was(trained: Path) -> None:
    _, method = load_method(trained)
    method.network.train()
    frozen = next(iter(method.network.children()))
    frozen.eval()
    before = {name: module.training for name, module in method.network.named_modules()}
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    scores, maps = watching.infer(method, frames)
    assert scores.shape == (2,)
    assert maps.shape == (2, 64, 64)
    assert {name: module.training for name, module in method.network.named_modules()} == before


def test_an_export_leaves_its_page_beside_the_bundle(trained: Path, tmp_path: Path) -> None:
    bundle = export(trained, out=tmp_path / "b.edgead")
    folder = report_folder(bundle.path)
    assert is_bundle(bundle.path)
    text = (folder / "report.html").read_text()
    page = check_alone(text)
    assert len(page.all("img")) == len(bundle.golden().frames)
    assert f"{bundle.manifest.parity.score_error:.3g}" in text
    assert "median while held-out images were scored" in text
    shutil.rmtree(folder)
    assert report([bundle.path]) == folder / "report.html"
    assert "unknown machine" in (folder / "report.html").read_text()
    assert report([folder]) == folder / "report.html"


def test_the_gate_in_words() -> None:
    attempts = tuple(
        AttemptRecord(kept_in_float32=kept, failures=failures, variants={})
        for kept, failures in ((0, ("model.onnx: 3 of 40 verdicts change",)), (2, ()))
    )
    words = gate_in_words(GateRecord(attempts=attempts, layers=20, held_out_normals=30, synthetic_anomalies=40), "int8")
    assert words[1] == "All 20 layers in int8: refused, because model.onnx: 3 of 40 verdicts change."
    assert words[2] == "2 of 20 layers in float32, the others in int8: passed."
    assert "30 held-out good images, 40 synthetic anomalies and no labelled images" in words[0]
