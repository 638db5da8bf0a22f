"""`edgead train --track`: what reaches an experiment tracker, and what is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgead import errors
from edgead.errors import ConfigError, MissingDependencyError
from edgead.train.step_metrics import read_metrics
from edgead.train.tracking import Tracking, check_trackers
from edgead.train.training import resume, train

TINY = ("size=32", "reconstructive_width=2", "discriminative_width=2", "steps=3", "batch_size=2")


def read_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars of TensorBoard's files: name ↦ steps and values."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    assert not any(events.Tags()[kind] for kind in ("images", "audio", "histograms", "tensors"))
    return {name: [(each.step, each.value) for each in events.Scalars(name)] for name in events.Tags()["scalars"]}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of TensorBoard's own
def test_tensorboard_gets_losses_and_learning_rates(parts: Path, tmp_path: Path) -> None:
    [run] = train("draem", parts, preset="nano", settings=TINY, out=tmp_path / "run", track=["tensorboard"])
    written = read_metrics(run)
    found = read_events(run / "tensorboard")
    logged = {name: values for name, values in found.items() if name.startswith("train/")}
    assert set(logged) == {f"train/{name}" for name in written[0].values}
    assert {"train/total", "train/learning_rate"} < set(logged)
    steps = {entry.step: entry.values for entry in written}
    for name, values in logged.items():
        assert [step for step, _ in values][-1] == 3  # the last one is always there
        for step, value in values:
            assert value == pytest.approx(steps[step][name.partition("/")[2]], rel=1e-5)


class Listener:
    """A tracker with accelerate's interface."""

    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, float], int]] = []
        self.finished = False

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((values, step))

    def finish(self) -> None:
        self.finished = True


def test_steps_are_thinned_out_and_the_last_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener()
    monkeypatch.setattr(Tracking, "_start", lambda self, name: listener)
    tracking = Tracking(["mlflow"], tmp_path)
    for step in range(1, 101):
        tracking.log_step("train", step, {"total": float(step)}, last=step == 100)
    tracking.close()
    assert [step for _, step in listener.logged] == [1, 100]
    assert listener.logged[1][0] == {"train/total": 100.0}
    assert listener.finished


def test_without_trackers_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tracking, "_start", lambda self, name: pytest.fail("started"))
    tracking = Tracking([], tmp_path)
    tracking.log_step("train", 1, {"total": 1.0}, last=True)
    tracking.close()


def test_a_tracker_that_is_missing_or_unknown_is_reported_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "is_installed", lambda module: False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgead\[mlflow\]'"):
        train("draem", tmp_path / "absent", track=["mlflow"])
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgead\[tensorboard\]'"):
        resume(tmp_path / "absent", track=["tensorboard"])
    with pytest.raises(ConfigError, match="Did you mean 'mlflow'"):
        check_trackers(["mlflo"])
