"""What frozen networks make of images is computed once, kept, and removed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_disk import run_on_small_disk
from torch import nn

from edgead.train import feature_cache, step_metrics
from edgead.train.configuration import configure
from edgead.train.feature_cache import FOLDER, LARGEST, FeatureCache, fingerprint, pays, remove_caches
from edgead.train.fit import fit
from edgead.train.method import TrainingData
from edgead.train.methods import get_method
from edgead.train.methods.aand.losses import Distillation

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 65, 65, 3), dtype=np.uint8)


class Rows:
    """Computes rows and counts them."""

    def __init__(self) -> None:
        self.computed: list[int] = []

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        self.computed.append(number)
        return {"a": np.full((2, 3), number, np.float32), "b": np.full(1, -number, np.float32)}


def test_rows_are_taken_up_with_the_same_key_only(tmp_path: Path) -> None:
    rows = Rows()
    for key in ("one", "one", "two"):
        cache = FeatureCache(tmp_path / "features-0")
        cache.fill(5, key, rows, iter)
    assert rows.computed == [*range(5), *range(5)]
    found = cache.row(3)
    assert found["a"].shape == (2, 3)
    assert (found["a"] == 3).all()
    assert (found["b"] == -3).all()
    remove_caches(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_stopped_computation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "FLUSH_SECONDS", -1.0)

    def stopping(items: Sequence[Any]) -> Iterator[Any]:
        for item in items:
            if item == 3:
                raise KeyboardInterrupt
            yield item

    rows = Rows()
    with pytest.raises(KeyboardInterrupt):
        FeatureCache(tmp_path / "features-0").fill(5, "key", rows, stopping)  # type: ignore[arg-type]
    cache = FeatureCache(tmp_path / "features-0")
    cache.fill(5, "key", rows, iter)
    assert rows.computed == [0, 1, 2, 3, 4]
    assert [float(cache.row(number)["b"][0]) for number in range(5)] == [0, -1, -2, -3, -4]


@pytest.mark.parametrize("damage", ["{", '{"key": "key", "rows": 5, "names": ["gone"]}', "[]"])
def test_a_damaged_cache_is_computed_again(tmp_path: Path, damage: str) -> None:
    rows = Rows()
    FeatureCache(tmp_path / "features-0").fill(5, "key", rows, iter)
    (tmp_path / "features-0" / "rows.json").write_text(damage)
    FeatureCache(tmp_path / "features-0").fill(5, "key", rows, iter)
    assert rows.computed == [*range(5)] * 2


def test_a_cache_that_was_cut_is_computed_again(tmp_path: Path) -> None:
    """As by a copy of the run that was broken off. What was missing was filled up with zeros, and learned."""
    rows = Rows()
    FeatureCache(tmp_path / "features-0").fill(5, "key", rows, iter)
    os.truncate(tmp_path / "features-0" / "a.npy", (tmp_path / "features-0" / "a.npy").stat().st_size - 20)
    cache = FeatureCache(tmp_path / "features-0")
    cache.fill(5, "key", rows, iter)
    assert rows.computed == [*range(5)] * 2
    assert (cache.row(4)["a"] == 4).all()


FILLED = """
import errno, sys
from pathlib import Path
import numpy as np
from edgead.train.feature_cache import FeatureCache

folder = Path(sys.argv[1], "features-0")
try:
    FeatureCache(folder).fill(100, "key", lambda number: {"a": np.ones((64, 64), np.float32)}, iter)
except OSError as error:
    print(error.errno == errno.ENOSPC, error.filename, [path.name for path in folder.iterdir()])
"""


def test_a_cache_that_finds_no_room_is_an_error(tmp_path: Path) -> None:
    """The training ended with a bus error, and no word."""
    done = run_on_small_disk(FILLED, tmp_path / "disk", 400)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"True {tmp_path / 'disk' / 'features-0' / 'a.npy'} []\n"


def test_the_key_depends_on_images_weights_and_settings() -> None:
    network = nn.Linear(2, 2)
    keys = [fingerprint(FRAMES, network, {"views": 8}), fingerprint(FRAMES, network, {"views": 9})]
    keys.append(fingerprint(FRAMES[:3], network, {"views": 8}))
    assert keys[0] == fingerprint(FRAMES.copy(), network, {"views": 8})
    with torch.no_grad():
        network.bias[0] += 1e-6
    keys.append(fingerprint(FRAMES, network, {"views": 8}))
    assert len(set(keys)) == 4


def test_what_is_seldom_drawn_or_too_large_is_not_kept() -> None:
    assert pays(10, 100, 11)
    assert not pays(10, 100, 10)
    assert not pays(10, LARGEST // 10 + 1, 1000)


def test_aands_teacher_looks_at_each_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses are those of a teacher that looks in every step, up to rounding."""
    losses = {}
    for cached in (True, False):
        monkeypatch.setattr("edgead.train.methods.aand.method.pays", lambda *sizes, kept=cached: kept)
        kind = get_method("aand")
        torch.manual_seed(3)
        method = kind(configure(kind, "nano", ["size=65", "batch_size=2", "steps=8"]))
        folder = tmp_path / f"{cached}"
        seen: list[Iterable[str]] = []
        honest = Distillation.forward

        def forward(self: Distillation, batch: Any, seen: Any = seen, honest: Any = honest) -> Any:
            seen.append(set(batch))
            return honest(self, batch)

        monkeypatch.setattr(Distillation, "forward", forward)
        data = TrainingData(FRAMES, cache=folder / f"{FOLDER}-0")
        fit(method, method.stages(data), folder, seed=3, device="cpu")
        monkeypatch.setattr(Distillation, "forward", honest)
        assert all(names == ({"fine", "middle", "coarse"} if cached else {"frames"}) for names in seen)
        assert (folder / f"{FOLDER}-0" / "fine.npy").exists() == cached
        losses[cached] = [entry.values["total"] for entry in step_metrics.read_metrics(folder)]
    assert len(losses[True]) == 8
    assert losses[True] == pytest.approx(losses[False], rel=1e-3)


def test_a_gpu_gets_images_and_not_their_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.train.methods.aand.method.pays", lambda *sizes: True)
    kind = get_method("aand")
    method = kind(configure(kind, "nano", ["size=65", "batch_size=2", "steps=8"]))
    _, distill = method.stages(TrainingData(FRAMES, cache=tmp_path / f"{FOLDER}-0"))
    distill.prepare(torch.device("cuda"), iter)
    assert set(distill.sample(np.random.default_rng(0))) == {"frames"}
    distill.prepare(torch.device("cpu"), iter)
    assert set(distill.sample(np.random.default_rng(0))) == {"fine", "middle", "coarse"}


def test_a_finished_run_keeps_no_cache(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgead.train import train

    kind = get_method("aand")
    monkeypatch.setattr(kind, "load_pretrained", lambda self, weights: None)
    monkeypatch.setattr("edgead.train.methods.aand.method.pays", lambda *sizes: True)
    settings = ("size=65", "batch_size=2", "steps=4")
    [folder] = train("aand", parts, preset="nano", settings=settings, out=tmp_path / "run", device="cpu")
    assert not list(folder.glob(f"{FOLDER}*"))
