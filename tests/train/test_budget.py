"""--budget: the published schedule, scaled to a time."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from level_bundle import teaching

from edgead.errors import ConfigError
from edgead.train import checkpoint, resume, run_config, step_metrics, train
from edgead.train.budget import RESERVE, fitting_share, read_budget, scale_schedule
from edgead.train.configuration import configure, published_schedule
from edgead.train.estimate import Estimate
from edgead.train.method import TrainingData
from edgead.train.methods import METHODS, get_method

SMALLEST = {"transfusion": "32", "drept": "64", "draem": "32", "differnet": "64", "aand": "65", "student": "64"}


def test_times() -> None:
    assert [read_budget(text) for text in ("90s", "30m", "1.5h", "2D")] == [90.0, 1800.0, 5400.0, 172800.0]
    for text in ("", "30", "m", "-5m", "0s", "5 minutes"):
        with pytest.raises(ConfigError, match="such as 90s"):
            read_budget(text)


@pytest.mark.parametrize("name", [name for name in METHODS if get_method(name).Config.step_settings])
def test_steps_and_milestones_are_scaled_together(name: str, tmp_path: Path) -> None:
    kind = get_method(name)
    method = kind(configure(kind, "nano", [f"size={SMALLEST[name]}", "batch_size=2", *teaching(name, tmp_path)]))
    data = TrainingData(np.random.default_rng(0).integers(0, 256, (6, *method.config.size, 3), dtype=np.uint8))
    epoch = Fraction(3)
    data = dataclasses.replace(data, epoch=epoch)
    method.config = published_schedule(method)
    whole = method.stages(data)
    assert sum(stage.steps for stage in whole) == method.published().total_steps(epoch)
    method.config = scale_schedule(method.config, epoch, 0.5, learning=True)
    half = method.stages(data)
    for long, short in zip(whole, half):
        assert short.steps == pytest.approx(long.steps / 2, abs=2)
        for share in (0.0, 0.3, 0.5, 0.75, 0.85, 0.95, 0.99):
            assert short.schedule(int(share * short.steps) + 1) == pytest.approx(
                long.schedule(int(share * long.steps) + 1), abs=0.003
            )
    if name == "drept":
        assert method.config.removal_steps == method.config.defect_steps == 5000
    assert scale_schedule(method.config, epoch, 1.0, learning=True) == method.config


def test_too_little_time_is_refused() -> None:
    kind = get_method("draem")
    with pytest.raises(ConfigError, match="too short for even a few steps"):
        scale_schedule(configure(kind, "nano"), Fraction(3), 1e-9, learning=False)


def test_what_does_not_shrink_is_taken_off_first() -> None:
    estimate = Estimate(1010.0, 100, "cpu", preparing=10.0, elapsed=30.0)
    assert fitting_share(estimate, 540.0) == pytest.approx((540 * (1 - RESERVE) - 40) / 1000)
    assert fitting_share(estimate, 20.0) == 0


def test_a_run_keeps_its_budget_and_goes_on_with_the_steps_that_it_was_given(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole schedule of 700 epochs would take 4200 s; 12 s of it are asked for, and some have gone by."""
    estimate = Estimate(4200.0, 4200, "cpu", preparing=1.0, elapsed=2.0)
    monkeypatch.setattr("edgead.train.run.measure", lambda *others: estimate)
    settings = ("size=32", "reconstructive_width=2", "discriminative_width=2", "batch_size=2")
    options = {"preset": "nano", "settings": settings, "budget": "12s", "device": "cpu"}
    [folder] = train("draem", parts, out=tmp_path / "run", **options)  # type: ignore[arg-type]
    run = run_config.load_run_config(folder)
    published = run.published_steps
    assert published == 700 * run.steps_in_epoch
    steps = run.config.steps
    assert steps == int(published * (12 * (1 - RESERVE) - 3) / 4199)
    assert f"trained for {steps} of {published:,} published steps (--budget 12s)" in run.departures
    assert not [words for words in run.departures if words.startswith("steps is")]
    assert len(step_metrics.read_metrics(folder)) == steps
    (folder / checkpoint.WEIGHTS).unlink()
    resume(folder, device="cpu")
    assert run_config.load_run_config(folder).config.steps == steps
    with pytest.raises(ConfigError, match="--budget sets the number of steps; leave out --set steps"):
        train("draem", parts, budget="12s", settings=("steps=3",), out=tmp_path / "other")


def test_a_run_without_a_budget_says_nothing_of_one(trained: Path) -> None:
    assert "budget" not in (trained / run_config.CONFIG).read_text()
