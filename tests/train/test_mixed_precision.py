"""When a stage trains in bfloat16; what is kept of the choice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from level_bundle import teaching
from safetensors.torch import load_file

from edgead.console import Console
from edgead.train import checkpoint, estimate, resume, run_config, step_metrics, train, training_state
from edgead.train.configuration import configure
from edgead.train.estimate import Work, measure
from edgead.train.fit import fit
from edgead.train.method import TrainingData
from edgead.train.methods import METHODS, get_method
from edgead.train.methods.draem.config import DraemConfig
from edgead.train.methods.draem.method import Draem
from edgead.train.mixed_precision import FEWEST, MOST, Comparison, compare, has_bfloat16

DATA = TrainingData(np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8))
TINY = ("size=32", "reconstructive_width=2", "discriminative_width=2", "steps=6", "batch_size=2")


class Steps:
    """Steps that take what the test says, by a clock of its own."""

    def __init__(self, float32: float, bf16: float, lowered: Mapping[str, float]) -> None:
        self.now, self.seconds, self.taken = 0.0, {"no": float32, "bf16": bf16}, []
        self.losses: dict[str, Mapping[str, float]] = {"no": {"a": 1.0, "b": 3.0}, "bf16": lowered}

    def __call__(self, precision: str, number: int) -> Mapping[str, float]:
        self.taken.append((precision, number))
        self.now += self.seconds[precision] * (10 if len(self.taken) < 3 else 1)  # slow because it is the first
        return self.losses[precision]

    def compare(self, several: bool = False) -> Comparison:
        return compare(self, several, lambda: self.now)


@pytest.mark.parametrize(
    ("bf16", "losses", "choice"),
    [
        (0.5, {"a": 1.01, "b": 3.0}, "bf16"),
        (0.95, {"a": 1.0, "b": 3.0}, "no"),  # hardly faster
        (0.5, {"a": 1.1, "b": 2.9}, "no"),  # the sums agree, the losses do not
        (0.5, {"a": float("nan"), "b": 3.0}, "no"),
        (0.5, {}, "no"),  # the step failed
    ],
)
def test_bf16_must_be_faster_and_agree(bf16: float, losses: Mapping[str, float], choice: str) -> None:
    found = Steps(1.0, bf16, losses).compare()
    assert found.choice == choice
    assert found.speedup == pytest.approx(1 / bf16)


def test_both_precisions_take_the_same_batches_in_turn() -> None:
    steps = Steps(0.01, 0.005, {"a": 1.0, "b": 3.0})
    steps.compare()
    assert steps.taken[:2] == [("no", 0), ("bf16", 0)]
    assert steps.taken[2:] == [(precision, number) for number in range(MOST) for precision in ("no", "bf16")]


@pytest.mark.parametrize(
    ("seconds", "several", "pairs"), [(60.0, False, 1), (2.0, False, FEWEST), (60.0, True, FEWEST)]
)
def test_slow_steps_are_few_and_processes_take_equally_many(seconds: float, several: bool, pairs: int) -> None:
    steps = Steps(seconds, seconds / 2, {"a": 1.0, "b": 3.0})
    steps.compare(several)
    assert len(steps.taken) == 2 + 2 * pairs


def test_the_processor_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    info = tmp_path / "cpuinfo"
    info.write_text("model name : amx_bf16 inside\nflags : fpu avx512f avx512_bf16\n")
    assert has_bfloat16(info)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")
    assert not has_bfloat16(info)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    info.write_text("model name : amx_bf16 inside\nflags : fpu avx512f\n")
    assert not has_bfloat16(info)
    assert not has_bfloat16(tmp_path / "absent")


def found(choice: str) -> Callable[..., Comparison]:
    comparison = Comparison({"no": 2.0, "bf16": 1.0}, 2.0 if choice == "bf16" else 1.0, 0.0)
    return lambda *arguments: comparison


@pytest.mark.parametrize("name", METHODS)
def test_every_stage_can_be_lowered_and_its_losses_agree(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps are real, in both precisions; only the time is not."""
    monkeypatch.setattr("edgead.train.estimate.has_bfloat16", lambda: True)
    compared: dict[str, float] = {}

    def once(step: Callable[[str, int], Mapping[str, float]], several: bool) -> Comparison:
        result = compare(step, several, iter(range(1000)).__next__)
        compared[len(compared)] = result.difference
        return dataclasses.replace(result, speedup=2.0)

    monkeypatch.setattr(estimate, "compare", once)
    kind = get_method(name)
    smallest = {"transfusion": "32", "draem": "32", "aand": "65"}
    torch.manual_seed(0)
    method = kind(
        configure(kind, "nano", ["batch_size=2", f"size={smallest.get(name, '64')}", *teaching(name, tmp_path)])
    )
    before = {key: value.clone() for key, value in method.network.state_dict().items()}
    defects = (3,) if method.card.reporting_note else ()
    result = measure(method, Work(40, Fraction(3), defects), "cpu", "auto", 0, Console())
    assert all(torch.equal(value, before[key]) for key, value in method.network.state_dict().items())
    if not method.config.step_settings:
        assert (result.precisions, result.why) == ({}, "nothing is optimised")
        return
    assert set(result.precisions.values()) == {"bf16"}
    assert max(compared.values()) < 0.02


def test_a_choice_is_kept_told_and_taken_again(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.train.estimate.has_bfloat16", lambda: True)
    monkeypatch.setattr(estimate, "compare", found("bf16"))
    [whole] = train("draem", parts, preset="nano", settings=TINY, out=tmp_path / "whole", device="cpu")
    run = run_config.load_run_config(whole)
    assert run.stage_precisions == {"train": "bf16"}
    assert (run.mixed_precision, run.trained_precision) == ("auto", "bf16")
    assert dataclasses.replace(run, stage_precisions={"a": "no", "b": "bf16"}).trained_precision == "bf16,no"
    assert dataclasses.replace(run, stage_precisions=None, mixed_precision="no").trained_precision == "no"
    assert "mixed precision bf16 (published: float32)" in run.departures

    monkeypatch.setattr("edgead.train.fit.SAVE_SHARE", 1e9)

    class Stopping(Console):
        def bar(self, label: str, total: int):  # type: ignore[no-untyped-def]
            return stopping(label)

    from contextlib import contextmanager

    @contextmanager
    def stopping(label: str):  # type: ignore[no-untyped-def]
        done: list[str] = []

        def step(text: str) -> None:
            done.append(text)
            if label == "train" and len(done) == 4:
                raise KeyboardInterrupt

        yield step

    def often(*arguments: object, **options: object) -> None:
        fit(*arguments, **options, save_seconds=0.0)  # type: ignore[arg-type]

    monkeypatch.setattr("edgead.train.run.fit", often)
    with pytest.raises(KeyboardInterrupt):
        train("draem", parts, preset="nano", settings=TINY, out=tmp_path / "cut", device="cpu", console=Stopping())
    assert (tmp_path / "cut" / training_state.STATE).exists()
    monkeypatch.setattr(estimate, "compare", found("no"))  # what is found when it goes on does not matter
    resume(tmp_path / "cut", device="cpu")
    assert run_config.load_run_config(tmp_path / "cut").stage_precisions == {"train": "bf16"}
    weights = load_file(whole / checkpoint.WEIGHTS)
    for name, value in load_file(tmp_path / "cut" / checkpoint.WEIGHTS).items():
        assert torch.equal(value, weights[name]), name


def test_the_precision_of_a_stage_reaches_its_steps(tmp_path: Path) -> None:
    losses = {}
    config = DraemConfig(size=(32, 32), reconstructive_width=2, discriminative_width=2, steps=2, batch_size=2)
    for precision in ("no", "bf16"):
        for given in (precision, {"train": precision}):
            torch.manual_seed(3)
            method, folder = Draem(config), tmp_path / f"{precision}{isinstance(given, str)}"
            fit(method, method.stages(DATA), folder, seed=3, device="cpu", mixed_precision=given)
            losses[folder.name] = [entry.values["total"] for entry in step_metrics.read_metrics(folder)]
    assert losses["noTrue"] == losses["noFalse"] != losses["bf16True"] == losses["bf16False"]


@pytest.mark.parametrize("choice", ["no", "bf16"])
def test_a_method_may_refuse(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.train.estimate.has_bfloat16", lambda: choice == "bf16")
    monkeypatch.setattr(Draem, "float32_only", "measured: it does not learn")
    method = Draem(DraemConfig(size=(32, 32), reconstructive_width=2, discriminative_width=2, steps=2, batch_size=2))
    result = measure(method, Work(5, Fraction(3)), "cpu", "auto", 0, Console())
    assert (dict(result.precisions), result.why) == ({}, "measured: it does not learn")
