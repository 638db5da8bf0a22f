"""Learning from other products: it goes on where it stopped, to the same result."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from learned_defects import QUICK, Stopper, relearned, unfinished, weights
from listener import Listener
from safetensors import safe_open
from safetensors.numpy import load_file

from edgead.console import Console
from edgead.errors import CheckpointError, ConfigError, TrainingError
from edgead.export import export
from edgead.train import checkpoint, resume, run_config, step_metrics, train, training_state
from edgead.train.donors import TRANSFERRED, load_transferred


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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
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
