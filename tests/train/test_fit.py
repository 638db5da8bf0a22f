"""The loop: stopped, killed or spread over processes, it gives what an undisturbed run gives."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from full_disk import run_on_small_disk
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from waiting import wait_until

from edgead.console import Console
from edgead.errors import CheckpointError, ConfigError, DeviceError, TrainingError
from edgead.train import checkpoint, run_config, step_metrics, training_state
from edgead.train.accelerator import make_accelerator
from edgead.train.configuration import configure
from edgead.train.fit import fit
from edgead.train.method import Arrays, Stage, TrainingData
from edgead.train.methods import get_method
from edgead.train.methods.draem.config import DraemConfig
from edgead.train.methods.draem.method import Draem
from edgead.train.step_metrics import StepMetrics

DATA = TrainingData(np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8))
CONFIG = DraemConfig(size=(32, 32), reconstructive_width=2, discriminative_width=2, steps=8, batch_size=2)

DIE_AT_STEP = """
import json, os, signal, sys
from contextlib import contextmanager
from pathlib import Path
import numpy as np, torch
import torch._dynamo  # as the first step does
from edgead.console import Console
from edgead.train.fit import fit
from edgead.train.method import TrainingData
from edgead.train.methods.draem.config import DraemConfig
from edgead.train.methods.draem.method import Draem

class Killer(Console):
    def __init__(self, step, number):
        self.step, self.number = step, number

    @contextmanager
    def bar(self, label, total):
        done = []
        def step(text):
            done.append(text)
            if len(done) == self.step:
                os.killpg(0, getattr(signal, self.number))  # the workers too
        yield step

def train(folder, number, save_seconds, workers, step):
    normals = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    torch.manual_seed(3)
    config = DraemConfig(size=(32, 32), reconstructive_width=2, discriminative_width=2, steps=8, batch_size=2)
    method = Draem(config)
    options = {"save_seconds": save_seconds, "workers": workers, "console": Killer(step, number)}
    fit(method, method.stages(TrainingData(normals)), Path(folder), seed=3, device="cpu", **options)

codes = []
for case in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        os.setsid()
        train(*case)
        sys.exit()  # it was not stopped
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""
"""Trains in a process for each case: copies of one that has imported torch, which takes longer than the training."""
STOPS = [
    *[("SIGKILL", 0.0, 0, 5), ("SIGKILL", 1e9, 0, 5), ("SIGINT", 1e9, 0, 5), ("SIGTERM", 1e9, 0, 5)],
    *[("SIGTERM", 1e9, 2, 5), ("SIGTERM", 1e9, 0, 8)],  # with workers; in the last step
]
"""Signal, seconds between two saved states, workers and step."""


def run(folder: Path, workers: int = 0) -> dict[str, Tensor]:
    """Start or resume the small run, to its end."""
    torch.manual_seed(3)
    method = Draem(CONFIG)
    fit(method, method.stages(DATA), folder, seed=3, device="cpu", workers=workers)
    return load_file(folder / checkpoint.WEIGHTS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], list[dict[str, object]]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return run(folder), step_metrics.read_metrics(folder)


def assert_same(
    folder: Path, weights: dict[str, Tensor], expected: tuple[dict[str, Tensor], list[dict[str, object]]]
) -> None:
    assert weights.keys() == expected[0].keys()
    assert all(torch.equal(weights[name], expected[0][name]) for name in weights)
    assert step_metrics.read_metrics(folder) == expected[1]
    assert not (folder / training_state.STATE).exists()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, int]]:
    """The folder and the exit code of each of `STOPS`."""
    folders = [tmp_path_factory.mktemp("stopped") for _ in STOPS]
    cases = json.dumps([[str(folder), *stop] for folder, stop in zip(folders, STOPS)])
    done = subprocess.run([sys.executable, "-c", DIE_AT_STEP, cases], capture_output=True, text=True, check=True)
    return list(zip(folders, json.loads(done.stdout.splitlines()[-1])))


@pytest.mark.slow
@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_a_stopped_run_goes_on_to_the_same_result(
    stop: tuple[str, float, int, int],
    stopped: list[tuple[Path, int]],
    undisturbed: tuple[dict[str, Tensor], list[dict[str, object]]],
) -> None:
    """Killed with and without a saved state; asked to stop, where the state is saved in any case."""
    number, save_seconds, _, _ = stop
    folder, code = stopped[STOPS.index(stop)]
    assert code in ((-signal.SIGKILL,) if number == "SIGKILL" else (1, -signal.SIGINT))
    assert (folder / training_state.STATE).exists() == (number != "SIGKILL" or save_seconds == 0)
    assert not (folder / checkpoint.WEIGHTS).exists()
    assert_same(folder, run(folder), undisturbed)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than there are cores
def test_workers_do_not_change_the_result(
    tmp_path: Path, undisturbed: tuple[dict[str, Tensor], list[dict[str, object]]]
) -> None:
    assert_same(tmp_path, run(tmp_path, workers=2), undisturbed)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_end_with_an_error(tmp_path: Path) -> None:
    """They ignore a request to stop, and Python waited for them at its end: the command never ended."""
    method = Draem(CONFIG)

    def fail(rng: np.random.Generator) -> Arrays:
        raise ZeroDivisionError("in a worker")

    stages = [dataclasses.replace(stage, sample=fail) for stage in method.stages(DATA)]
    with pytest.raises(ZeroDivisionError, match="in a worker") as failure:
        fit(method, stages, tmp_path, seed=3, device="cpu", workers=2)
    try:
        wait_until(lambda: not multiprocessing.active_children(), seconds=20)
    finally:
        traceback.clear_frames(failure.tb)  # which hold them


LITTLE_SHARED_MEMORY = """
import sys
from pathlib import Path
import numpy as np
from edgead.errors import DeviceError
from edgead.train.fit import fit
from edgead.train.method import TrainingData
from edgead.train.methods.draem.config import DraemConfig
from edgead.train.methods.draem.method import Draem

method = Draem(DraemConfig(size=(128, 128), reconstructive_width=2, discriminative_width=2, steps=8, batch_size=2))
data = TrainingData(np.zeros((5, 128, 128, 3), np.uint8))
try:
    fit(method, method.stages(data), Path(FOLDER), seed=3, device="cpu", workers=1)
except DeviceError as error:
    print(error)
"""


@pytest.mark.slow
def test_too_little_shared_memory_is_said(tmp_path: Path) -> None:
    """A container has 64 MB of it. It was an internal error, to be reported."""
    code = LITTLE_SHARED_MEMORY.replace("FOLDER", repr(str(tmp_path)))
    done = run_on_small_disk(code, Path("/dev/shm"), 300)
    assert "no room in /dev/shm" in done.stdout, done.stderr
    assert "--workers 0" in done.stdout


def test_metrics_hold_every_step(undisturbed: tuple[dict[str, Tensor], list[StepMetrics]]) -> None:
    entries = undisturbed[1]
    assert [entry.step for entry in entries] == list(range(1, 9))
    for entry in entries:
        assert entry.values["total"] == pytest.approx(
            entry.values["l2"] + entry.values["ssim"] + entry.values["focal"], rel=1e-5
        )
    rates = [entry.values["learning_rate"] for entry in entries]
    assert rates == pytest.approx([1e-4] * 7 + [2e-5])  # 0.8·8 = 6.4 and 0.9·8 = 7.2: the second decay has no effect


def test_the_schedule_reaches_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(3)
    method = Draem(CONFIG)
    [stage] = method.stages(DATA)
    before = {name: weight.detach().clone() for name, weight in method.network.named_parameters()}
    fit(method, [dataclasses.replace(stage, schedule=lambda step: 0.0)], tmp_path, seed=3, device="cpu")
    assert all(torch.equal(weight, before[name]) for name, weight in method.network.named_parameters())


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / training_state.STATE).write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match="cannot be resumed from"):
        run(tmp_path)
    save_file({"network/x": torch.zeros(1)}, tmp_path / training_state.STATE)  # which does not say where it stopped
    with pytest.raises(CheckpointError, match="cannot be resumed from"):
        run(tmp_path)


def test_a_state_of_another_network_is_refused_in_a_few_words(tmp_path: Path) -> None:
    place = {name: json.dumps(value) for name, value in {"stage": 0, "step": 1, "scaler": {}}.items()}
    save_file({f"network/x{number}": torch.zeros(1) for number in range(200)}, tmp_path / training_state.STATE, place)
    with pytest.raises(CheckpointError, match="is of another network") as caught:
        run(tmp_path)
    assert "unknown: x0, x1" in str(caught.value)
    assert len(str(caught.value)) < 600


class Diverging(nn.Module):
    """Loss is finite for three steps, then not."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.calls = network, 0

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.calls += 1
        losses: dict[str, Tensor] = self.network(batch)
        return {**losses, "ssim": losses["ssim"] * (math.inf if self.calls > 3 else 1)}


def test_a_loss_that_is_not_finite_stops_with_the_step_and_keeps_the_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.train.fit.SAVE_SHARE", 1e9)  # save after every step
    torch.manual_seed(3)
    method = Draem(CONFIG)
    stage = dataclasses.replace(method.stages(DATA)[0], module=Diverging(method.network))
    with pytest.raises(TrainingError, match=r"(?s)step 4 of stage 'train' \(ssim\).*saved state, .* kept") as caught:
        fit(method, [stage], tmp_path, seed=3, device="cpu", save_seconds=0.0)
    assert "fp16" not in str(caught.value)
    saved = training_state.load_state(tmp_path, method)
    assert saved is not None
    assert saved[0].step == 2  # what gives a loss that is not finite is not kept
    assert all(torch.isfinite(value).all() for value in method.network.state_dict().values())


def test_the_advice_on_a_loss_names_what_counts_for_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "mixed_precision", "fp16")
    method = Draem(CONFIG)
    module = Diverging(method.network)
    module.calls = 3
    stage = dataclasses.replace(method.stages(DATA)[0], module=module, rate="defect_learning_rate")
    with pytest.raises(TrainingError, match=r"a defect_learning_rate that is too high, or fp16 overflow \(--mixed"):
        fit(method, [stage], tmp_path, seed=3, device="cpu")


@pytest.mark.parametrize(
    ("name", "size", "setting", "rate"),
    [
        ("drept", 64, "width=2", 1e6),
        ("transfusion", 32, "multipliers=1", 10.0),  # some steps until a number overflows
        ("transfusion", 32, "multipliers=1", 1e6),
    ],
)
def test_a_training_that_diverges_goes_on_from_where_it_was_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, size: int, setting: str, rate: float
) -> None:
    monkeypatch.setattr("edgead.train.fit.SAVE_SHARE", 1e9)  # save after every step
    kind = get_method(name)
    data = TrainingData(np.random.default_rng(0).integers(0, 256, (5, size, size, 3), dtype=np.uint8))

    def train(steps: int, factor: float) -> None:
        torch.manual_seed(3)
        settings = (f"size={size}", f"steps={steps}", "batch_size=2", "learning_rate=1e-3", setting)
        method = kind(configure(kind, "nano", settings))
        [stage] = method.stages(data)
        stage = dataclasses.replace(stage, schedule=lambda step: 1.0 if step < 10 else factor)
        fit(method, [stage], tmp_path, seed=3, device="cpu", save_seconds=0.0)

    with pytest.raises(
        TrainingError, match=r"not finite(?s:.*)a learning_rate that is too high\. The last saved state"
    ):
        train(100, rate / 1e-3)
    saved = training_state.load_state(tmp_path, kind(configure(kind, "nano", (f"size={size}", setting))))
    assert saved is not None
    assert saved[0].step == 10
    assert not (tmp_path / training_state.NEXT).exists()
    train(30, 1.0)
    losses = [entry.values["total"] for entry in step_metrics.read_metrics(tmp_path)]
    assert len(losses) == 30
    assert max(losses) < 1.5 * losses[0]


def test_a_loss_that_goes_up_and_down_keeps_nothing_until_it_is_calm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.train.fit.SAVE_SHARE", 1e9)
    monkeypatch.setattr("edgead.train.fit.CALM", 3)
    run = Contest()
    far = iter([False, False, True, False, True, False, False, False, False])
    kept: list[int] = []

    def is_far(self: object, loss: float) -> bool:
        saved = training_state.load_state(tmp_path, Contest())
        kept.append(saved[0].step if saved else 0)
        return next(far)

    monkeypatch.setattr("edgead.train.fit.StageLoop._is_far", is_far)
    fit(run, [run.stage(9)], tmp_path, seed=5, device="cpu", save_seconds=0.0)
    assert kept == [0, 0, 1, 1, 1, 1, 1, 1, 7]


def test_a_stage_that_ends_with_a_loss_that_ran_away_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.train.fit.StageLoop._is_far", lambda self, loss: True)
    run = Contest()
    with pytest.raises(TrainingError, match=r"The loss ran away, to \S+ in the last step of stage 'contest'"):
        fit(run, [run.stage(3)], tmp_path, seed=5, device="cpu")
    assert not (tmp_path / checkpoint.WEIGHTS).exists()


@pytest.mark.parametrize("save_seconds", [0.0, 1e9])
def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, save_seconds: float) -> None:
    """A step may break them while its loss is finite; at the last step no loss would tell."""
    torch.manual_seed(3)
    method = Draem(CONFIG)

    def breaking(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=math.inf)

    stage = dataclasses.replace(method.stages(DATA)[0], optimizer=breaking, steps=1)
    with pytest.raises(TrainingError, match=r"not finite after step 1(?s:.*)No state had been saved"):
        fit(method, [stage], tmp_path, seed=3, device="cpu", save_seconds=save_seconds)
    assert not (tmp_path / training_state.STATE).exists()
    assert not (tmp_path / checkpoint.WEIGHTS).exists()


def test_two_stages_run_in_order_and_go_on_after_the_first(tmp_path: Path) -> None:
    def stages(method: Draem) -> list[Stage]:
        [stage] = method.stages(DATA)
        return [dataclasses.replace(stage, name="one", steps=3), dataclasses.replace(stage, name="two", steps=4)]

    def start() -> Draem:
        torch.manual_seed(3)
        return Draem(CONFIG)

    method = start()
    fit(method, stages(method), tmp_path / "whole", seed=3, device="cpu")
    entries = step_metrics.read_metrics(tmp_path / "whole")
    assert [(entry.stage, entry.step) for entry in entries] == [("one", n) for n in (1, 2, 3)] + [
        ("two", n) for n in (1, 2, 3, 4)
    ]
    first = start()
    fit(first, stages(first)[:1], tmp_path / "cut", seed=3, device="cpu")
    (tmp_path / "cut" / checkpoint.WEIGHTS).unlink()
    training_state.save_next_state(
        tmp_path / "cut", first, [torch.optim.Adam(first.network.parameters())], training_state.State(0, 3, {})
    )
    training_state.keep_next_state(tmp_path / "cut")
    second = start()
    fit(second, stages(second), tmp_path / "cut", seed=3, device="cpu")
    for name, value in load_file(tmp_path / "whole" / checkpoint.WEIGHTS).items():
        assert torch.equal(value, second.network.state_dict()[name]), name


def test_devices_that_are_not_there() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="cuda:3 does not exist"):
            make_accelerator("cuda:3", "no")
    assert make_accelerator("cpu", "no").device.type == "cpu"
    for device in ("gpu", "cuda:x", "cpu:0", ""):
        with pytest.raises(ConfigError, match=r"^Unknown device .* Available: auto, cpu, cuda, cuda:N"):
            make_accelerator(device, "no")


def test_bf16_on_a_cpu_stays_close_to_float32(tmp_path: Path) -> None:
    losses = {}
    for precision in ("no", "bf16"):
        torch.manual_seed(3)
        method = Draem(CONFIG)
        fit(method, method.stages(DATA), tmp_path / precision, seed=3, device="cpu", mixed_precision=precision)
        losses[precision] = [entry.values["total"] for entry in step_metrics.read_metrics(tmp_path / precision)]
    assert losses["bf16"] != losses["no"]
    assert losses["bf16"] == pytest.approx(losses["no"], rel=0.05)


SHARED = """
import os
import sys
from pathlib import Path
import torch
from accelerate import Accelerator
from edgead.errors import TrainingError
from edgead.train import fit
from edgead.train import train

fit.SAVE_SHARE = 1e9
honest = fit.fit
def often(*arguments, **options):
    honest(*arguments, **options, save_seconds=0.0 if os.environ["RANK"] == "0" else 1e9)
import edgead.train.run as module
from edgead.train import estimate
from edgead.train.mixed_precision import Comparison
module.fit = often
speedup = 2.0 if os.environ["RANK"] == "0" else 0.5  # the first decides
estimate.has_bfloat16 = lambda: True
estimate.compare = lambda step, several: Comparison({}, speedup, 0.0)
settings = ("size=32", "reconstructive_width=2", "discriminative_width=2", "steps=12", "batch_size=4")
train("draem", sys.argv[1], preset="nano", settings=settings, out=sys.argv[2], device="cpu")
print("processes", Accelerator(cpu=True).num_processes)
"""


@pytest.mark.long
def test_two_processes_share_each_batch_and_save_together(parts: Path, tmp_path: Path) -> None:
    """Saving after every step is a meeting of both; were it each one's own decision, they would wait for ever."""
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    out = tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, str(script), str(parts), str(out)],
        **{"capture_output": True, "text": True, "check": False, "env": environment, "timeout": 240},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("processes 2") == 2
    entries = step_metrics.read_metrics(out)
    assert [entry.step for entry in entries] == list(range(1, 13))
    assert entries[-1].values["total"] < entries[0].values["total"]
    checkpoint.load_method(out)
    assert run_config.load_run_config(out).stage_precisions == {"train": "bf16"}


def test_processes_that_would_each_train_alone_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")  # as torchrun sets it, which does not say that it is for CPUs
    monkeypatch.setattr("edgead.train.accelerator.Accelerator", lambda **_: SimpleNamespace(num_processes=1))
    with pytest.raises(DeviceError, match=r"2 processes .* each would train alone.*\n.*--device cpu"):
        make_accelerator("auto", "no")
    with pytest.raises(ConfigError, match=r"each needs a GPU: pass --device cuda, not cuda:1"):
        make_accelerator("cuda:1", "no")


def test_what_a_kill_left_half_written_goes(tmp_path: Path) -> None:
    left = tmp_path / f".{training_state.NEXT}.0123456789ab.part"
    left.write_bytes(b"half")
    run(tmp_path)
    assert not left.exists()


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "num_processes", 3)
    with pytest.raises(ConfigError, match="batch_size 2 cannot be shared by 3"):
        run(tmp_path)
    method = Draem(CONFIG)
    stage = dataclasses.replace(method.stages(DATA)[0], batch_size=9, in_halves=True)
    with pytest.raises(ConfigError, match="batch_size 9 cannot be shared by 3 processes in even parts"):
        fit(method, [stage], tmp_path, seed=3, device="cpu")


def test_saved_states_are_plain_tensors(tmp_path: Path) -> None:
    torch.manual_seed(3)
    method = Draem(CONFIG)
    state = training_state.State(1, 2, {}, 0.5)
    training_state.save_next_state(tmp_path, method, [torch.optim.Adam(method.network.parameters())], state)
    assert training_state.load_state(tmp_path, method) is None
    training_state.keep_next_state(tmp_path)
    header = (tmp_path / training_state.STATE).read_bytes()
    size = int.from_bytes(header[:8], "little")
    assert json.loads(header[8 : 8 + size])["__metadata__"] == {
        "stage": "1",
        "step": "2",
        "scaler": "{}",
        "first_loss": "0.5",
    }


class Rivals(nn.Module):
    """A miniature of adversarial training: `judge` and `forger` minimise different losses of the same batch."""

    def __init__(self) -> None:
        super().__init__()
        self.judge, self.forger = nn.Linear(3, 1), nn.Linear(3, 3)

    def forward(self, batch: dict[str, Tensor], turn: str) -> dict[str, Tensor]:
        made = self.forger(batch["x"])
        if turn == "judge":
            return {"judge": (self.judge(made.detach()) - self.judge(batch["x"])).square().mean()}
        return {"forger": self.judge(made).square().mean(), "seen": made.mean().detach()}


class Contest:
    """What `fit` trains here; the batch's mean is logged but minimised by nobody."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = Rivals()

    def stage(self, steps: int) -> Stage:
        return Stage(
            name="contest",
            module=self.network,
            sample=lambda rng: {"x": rng.normal(size=3).astype(np.float32)},
            steps=steps,
            batch_size=4,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
            schedule=lambda step: 1.0,
            alternating=("judge", "forger"),
        )


def test_alternating_optimisers_take_turns(tmp_path: Path) -> None:
    contest = Contest()
    fit(contest, [contest.stage(3)], tmp_path, seed=5, device="cpu")
    by_hand = Contest().network
    optimizers = {
        name: torch.optim.Adam(by_hand.get_submodule(name).parameters(), lr=0.01) for name in ("judge", "forger")
    }
    for step, entry in enumerate(step_metrics.read_metrics(tmp_path)):
        numbers = range(4 * step, 4 * step + 4)
        x = torch.stack(
            [torch.from_numpy(contest.stage(3).sample(np.random.default_rng((5, 0, n)))["x"]) for n in numbers]
        )
        total = 0.0
        for turn, optimizer in optimizers.items():
            losses = by_hand({"x": x}, turn)
            optimizer.zero_grad()
            losses[turn].backward()
            optimizer.step()
            total += float(losses[turn].detach())
            assert entry.values[turn] == pytest.approx(float(losses[turn].detach()), abs=1e-6)
        assert entry.values["total"] == pytest.approx(total, abs=1e-6)
        assert entry.values["seen"] == pytest.approx(float(losses["seen"]), abs=1e-6)
    for name, value in by_hand.state_dict().items():
        assert torch.allclose(value, contest.network.state_dict()[name], atol=1e-6), name


def test_a_stopped_contest_goes_on_to_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Contest()
    fit(whole, [whole.stage(8)], tmp_path / "whole", seed=5, device="cpu")
    monkeypatch.setattr("edgead.train.fit.SAVE_SHARE", 1e9)  # save after every step
    first = Contest()
    stage, drawn = first.stage(8), []

    def until_the_fifth_step(rng: np.random.Generator) -> dict[str, np.ndarray]:
        drawn.append(1)
        if len(drawn) > 4 * 4:
            raise KeyboardInterrupt
        return stage.sample(rng)

    stopping = dataclasses.replace(stage, sample=until_the_fifth_step)
    with pytest.raises(KeyboardInterrupt):
        fit(first, [stopping], tmp_path / "cut", seed=5, device="cpu", save_seconds=0.0)
    second = Contest()
    saved = training_state.load_state(tmp_path / "cut", second)
    assert saved is not None
    assert saved[0].step == 3  # the loss of the fourth state was not seen
    assert {name.split("/")[0] for name in saved[1]} == {"0", "1"}
    said: list[str] = []
    console = Console()
    console.say = said.append  # type: ignore[method-assign]
    fit(second, [second.stage(8)], tmp_path / "cut", seed=5, device="cpu", console=console)
    assert said == ["Resuming 'contest' after step 3 of 8"]
    assert step_metrics.read_metrics(tmp_path / "cut") == step_metrics.read_metrics(tmp_path / "whole")
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name
