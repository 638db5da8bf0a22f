"""Published schedules, what departs from them, and how long they take: told before a run, kept in it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from level_bundle import teaching
from listener import Listener

from edgead.console import Console
from edgead.datasets import open_category
from edgead.errors import ConfigError
from edgead.export import export
from edgead.train import checkpoint, estimate, resume, run_config, step_metrics, train
from edgead.train.configuration import configure
from edgead.train.describe import as_text, describe
from edgead.train.estimate import NIGHT, Estimate, Work, choose_preset, describe_seconds, measure
from edgead.train.fit import fit
from edgead.train.method_config import steps_in_epoch
from edgead.train.methods import METHODS, get_method
from edgead.train.methods.draem.config import DraemConfig

BOTTLES = 209
"""Good images of MVTec AD's bottle."""
PUBLISHED = {
    "draem": 700 * 27,
    "differnet": 192 * 9,
    "aand": 220 * 14,
    "transfusion": 1500 * 27,
    "drept": 10_000,
    "patchcore": 0,
    "student": 4000,
}
"""Optimiser steps on them: epochs times the batches of a loader that keeps the last, smaller one."""
TWO_EPOCHS = ("size=32", "reconstructive_width=2", "discriminative_width=2", "steps=0", "epochs=2")


@pytest.mark.parametrize("name", METHODS)
def test_paper_takes_the_published_steps_and_is_the_published_configuration(name: str) -> None:
    kind = get_method(name)
    config = configure(kind, "paper")
    epoch = steps_in_epoch(BOTTLES, config.batch_size)
    assert config.total_steps(epoch) == PUBLISHED[name]
    assert f"{PUBLISHED[name]:,} steps" in config.schedule(epoch)
    assert config == kind.Config()


def test_decay_comes_at_the_published_epochs_whatever_the_number_of_images() -> None:
    for images in (1, 7, 60, 209, 391):
        batches = int(steps_in_epoch(images, 8))
        for decay_at, epochs, milestones in (((0.8, 0.9), 700, (560, 630)), ((800 / 1500,), 1500, (800,))):
            for milestone in milestones:
                config, steps = DraemConfig(decay_at=decay_at, decay=0.1), epochs * batches
                factors = [config.learning_rate_factor(milestone * batches + late, steps) for late in (-1, 0)]
                assert factors[1] == pytest.approx(factors[0] / 10)


def test_an_epoch_counts_all_good_images_and_the_run_says_what_departs(parts: Path, tmp_path: Path) -> None:
    console = Listener()
    [folder] = train("draem", parts, preset="nano", settings=TWO_EPOCHS, out=tmp_path / "run", console=console)
    run = run_config.load_run_config(folder)
    assert (len(run.normals), len(run.held_out), run.epoch_images) == (10, 2, 12)
    assert len(step_metrics.read_metrics(folder)) == 2 * 2  # of 12 images in batches of 8
    text = "\n".join(console.said)
    assert "4 steps = 2 epochs of 2; an epoch counts all 12 good images" in text
    for words in ("2 of 12 good images are held out", "procedural textures", "size is 32x32 (published: 256x256)"):
        assert sum(words in line for line in run.departures) == 1, words
        assert words in text
    assert "steps is" not in text  # as published
    assert run.devices == ("cpu",)
    told = next(line for line in console.said if line.startswith("On cpu: about "))
    assert datetime.strptime(told.rpartition("until ")[2], "%Y-%m-%d %H:%M")
    assert console.said.index(told) < console.said.index(f"Trained: {folder}")


def test_images_for_validation_leave_all_good_ones_to_training(parts: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(parts, tmp_path / "washer"))
    (data / "validation").mkdir()
    shutil.copytree(data / "test" / "good", data / "validation" / "good")
    [folder] = train("draem", data, preset="nano", settings=TWO_EPOCHS, out=tmp_path / "run")
    run = run_config.load_run_config(folder)
    assert (len(run.normals), len(run.held_out), run.epoch_images) == (12, 4, 12)
    assert not any("held out" in line for line in run.departures)


def test_unreadable_images_count_for_no_epoch(parts: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(parts, tmp_path / "washer"))
    (data / "train" / "good" / "000.png").write_bytes(b"not an image")
    [folder] = train("draem", data, preset="nano", settings=TWO_EPOCHS, out=tmp_path / "run")
    assert run_config.load_run_config(folder).epoch_images == 11


def test_a_run_from_before_keeps_its_own_number_of_steps(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.train.run.fit", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train("draem", parts, preset="nano", settings=TWO_EPOCHS, out=tmp_path / "run")
    monkeypatch.setattr("edgead.train.run.fit", fit)
    path = tmp_path / "run" / run_config.CONFIG
    values = json.loads(path.read_text())
    for name in ("epoch_images", "devices", "departures", "choice"):
        del values[name]
    path.write_text(json.dumps(values))
    assert run_config.load_run_config(tmp_path / "run").steps_in_epoch == Fraction(10, 8)
    console = Listener()
    resume(tmp_path / "run", console=console)
    assert len(step_metrics.read_metrics(tmp_path / "run")) == 3  # ceil(2 · 10 / 8)
    assert "an epoch counts the 10 that it trains on" in "\n".join(console.said)


@pytest.mark.parametrize("images", [1, 9, 10, 33, 167])
def test_older_schedules_are_those_of_the_formula_that_made_them(images: int) -> None:
    epoch = Fraction(images, 16)
    aand = configure(get_method("aand"), "paper")
    assert aand.stage_steps(epoch) == (-(-100 * images // 16), -(-120 * images // 16))  # type: ignore[attr-defined]
    draem = configure(get_method("draem"), "paper")
    assert draem.total_steps(Fraction(images, 8)) == int(np.ceil(700 * images / 8))


def test_the_bundle_holds_what_departs(parts: Path, tmp_path: Path) -> None:
    [folder] = train("draem", parts, preset="nano", settings=TWO_EPOCHS, out=tmp_path / "run")
    manifest = export(folder, out=tmp_path / "run.edgead").manifest
    assert manifest.training.steps == 4
    assert manifest.training.epoch_images == 12
    assert manifest.training.textures == "procedural"
    assert manifest.training.devices == ("cpu",)
    assert tuple(manifest.training.departures) == run_config.load_run_config(folder).departures


def test_methods_tell_the_published_steps() -> None:
    for entry in describe():
        published = entry.schedules["paper"]
        assert (published.steps > 0) == bool(get_method(entry.name).Config.step_settings)
        assert f"{published.steps:,} steps" in as_text(entry, settings=False)
    [draem] = [entry for entry in describe() if entry.name == "draem"]
    assert draem.schedules["paper"].steps == 700 * 25
    assert "700 epochs of 25" in as_text(draem, settings=False)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_measured_without_being_changed(name: str, tmp_path: Path) -> None:
    kind = get_method(name)
    smallest = {"transfusion": "32", "draem": "32", "aand": "65"}
    method = kind(
        configure(kind, "nano", ["batch_size=2", f"size={smallest.get(name, '64')}", *teaching(name, tmp_path)])
    )
    before = {key: value.clone() for key, value in method.network.state_dict().items()}
    drawn = torch.random.get_rng_state()
    defects = (3,) if method.card.reporting_note else ()
    found = measure(method, Work(40, Fraction(3), defects), "cpu", "no", 0, Console())
    steps = method.config.total_steps(Fraction(3))
    assert found.seconds > 0
    assert found.steps == steps + (900 if defects else 0)  # removal and description
    assert (found.learning > 0) == bool(defects)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(torch.equal(value, before[key]) for key, value in method.network.state_dict().items())
    if steps:
        half = measure(method, Work(40, Fraction(3)), "cpu", "no", 0, Console(), done=(0, 100))
        assert half.steps == steps - 100


def test_the_estimate_is_about_what_it_takes(tmp_path: Path) -> None:
    kind = get_method("draem")
    config = configure(kind, "nano", ["size=64", "steps=30", "batch_size=4"])
    method = kind(config)
    data = estimate.few_images(method, Work(8, Fraction(2)))
    start = datetime.now()
    fit(method, method.stages(data), tmp_path / "run", seed=0, device="cpu")
    taken = (datetime.now() - start).total_seconds()
    found = measure(method, Work(8, Fraction(2)), "cpu", "no", 0, Console()).seconds
    assert taken / 6 < found < taken * 6  # other programs may come and go meanwhile


def test_durations_are_told_with_their_end() -> None:
    found = Estimate(50 * 3600.0, 1000, "cpu").describe(datetime(2026, 1, 1, 12))
    assert found == "about 50 hours (1,000 steps, 1.8e+02 s each), until 2026-01-03 14:00"
    assert Estimate(1e15, 1, "cpu").describe().endswith("until after the year 9999")
    for method in ("draem", "aand", "student", "drept"):
        with pytest.raises(ConfigError, match="it must be from 0 to 1000000000"):
            configure(get_method(method), "nano", ("steps=10000000000",))
    assert [describe_seconds(each) for each in (59, 150, 2 * 3600, 4 * 86400)] == [
        "59 seconds",
        "2 minutes",
        "120 minutes",
        "4 days",
    ]


def test_without_a_preset_the_largest_is_taken_that_trains_in_a_night(
    parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking = {1e-5: 3 * NIGHT, 1e-4: NIGHT / 2, 2e-3: 60.0}  # by the learning rate of each preset
    monkeypatch.setattr(
        estimate,
        "measure",
        lambda method, *others: Estimate(taking[method.config.learning_rate], 10, "cpu"),
    )
    kind, category = get_method("transfusion"), open_category(parts)
    small = ("size=32", "width=32", "multipliers=1", "attention_levels=", "blocks=1")

    def choose(count: int = 1) -> tuple[str, str]:
        return choose_preset(kind, small, [category] * count, "cpu", "no", 0, (), False, Console())

    preset, why = choose()
    assert preset == "edge"
    assert "paper takes about 36 hours here" in why
    assert choose(3)[0] == "nano"  # three products take three times as long
    taking.update({1e-4: 2 * NIGHT, 2e-3: 2 * NIGHT})
    assert choose()[0] == "nano"  # the smallest, however long


def test_what_is_quick_is_trained_as_published_without_being_asked_for(parts: Path, tmp_path: Path) -> None:
    console = Listener()
    [folder] = train(
        "draem", parts, settings=(*TWO_EPOCHS, "batch_size=2"), out=tmp_path / "run", device="cpu", console=console
    )
    run = run_config.load_run_config(folder)
    assert run.preset == "paper"
    assert "paper takes about" in run.choice
    assert any(run.choice in line for line in console.said)


def test_a_chosen_preset_is_told_kept_and_taken_again(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    shutil.copytree(parts, data / "washer")
    options = {"category": "all", "settings": (*TWO_EPOCHS, "batch_size=2"), "out": tmp_path / "runs"}
    chosen = mock.Mock(return_value=("nano", "paper takes about 9 days here"))
    monkeypatch.setattr("edgead.train.request.choose_preset", chosen)
    console = Listener()
    [folder] = train("draem", data, console=console, **options)  # type: ignore[arg-type]
    assert console.said[0] == "Preset 'nano': paper takes about 9 days here."
    run = run_config.load_run_config(folder)
    assert (run.preset, run.choice) == ("nano", "paper takes about 9 days here")
    assert train("draem", data, console=console, **options) == [folder]  # type: ignore[arg-type]
    assert chosen.call_count == 1


def test_what_takes_longer_than_a_night_names_what_is_shorter(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.train.run.measure", lambda *others: Estimate(30 * 86400.0, 4, "cpu"))
    console = Listener()
    settings = (*TWO_EPOCHS, "batch_size=2")
    train("draem", parts, preset="paper", settings=settings, out=tmp_path / "run", console=console)
    told = next(line for line in console.said if line.startswith("On cpu: about 30 days"))
    assert "--preset edge, --preset nano" in told
    assert (tmp_path / "run" / checkpoint.WEIGHTS).is_file()  # it goes on by itself


def test_a_part_that_was_not_found_is_told(parts: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(4):
        cv2.imwrite(str(flat / f"{number}.png"), np.full((32, 32, 3), 100 + number, np.uint8))
    settings = ("size=32", "multipliers=1", "steps=1", "batch_size=2", "reverse_steps=1")
    [folder] = train("transfusion", flat, preset="nano", settings=settings, out=tmp_path / "run")
    told = run_config.load_run_config(folder).departures
    assert "on 3 of 3 images no part was found: anomalies go everywhere there" in told


def test_published_depth_has_its_own_width() -> None:
    kind = get_method("transfusion")
    narrow = kind(configure(kind, "nano", ["depth=true", "size=32"]))
    assert dataclasses.asdict(narrow.published())["width"] == 128
