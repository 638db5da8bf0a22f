"""PatchCore: the memory, distances to it, and what it finds with nothing optimised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgead.errors import ConfigError
from edgead.export.inference import run_reference
from edgead.train import train
from edgead.train.backbones import normalise
from edgead.train.configuration import configure
from edgead.train.fit import fit
from edgead.train.method import TrainingData
from edgead.train.methods.patchcore.method import Patchcore
from edgead.train.methods.patchcore.network import farthest_first

SMALL = ["size=96", "memory=200", "batch_size=2"]


def stripes(count: int) -> NDArray[np.uint8]:
    """Good images ``[count, 96, 96, 3]``: the same stripes at other places, with noise."""
    rng = np.random.default_rng(0)
    phases = rng.uniform(0, 2 * np.pi, (count, 1, 1, 1))
    waves = 127 + 80 * np.sin(np.arange(96)[None, None, :, None] / 4 + phases)
    return np.clip(waves + rng.normal(0, 3, (count, 96, 96, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module", params=["nano", "raw"])
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Patchcore:
    torch.manual_seed(0)
    other = ["cosine=false", "levels=1,2"] if request.param == "raw" else []
    method = Patchcore(configure(Patchcore, "nano", [*SMALL, *other]))  # type: ignore[arg-type]
    stages = method.stages(TrainingData(stripes(6)))
    fit(method, stages, tmp_path_factory.mktemp("run"), seed=0, device="cpu")
    return method


def test_each_feature_in_the_memory_is_the_farthest_from_those_before_it() -> None:
    points = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    chosen = farthest_first(points, 20).tolist()
    assert chosen[0] == int((points - points.mean(dim=0)).norm(dim=1).argmax())
    for number in range(1, 20):
        assert chosen[number] == int(torch.cdist(points, points[chosen[:number]]).amin(dim=1).argmax())
    assert len(set(chosen)) == 20


def test_few_features_are_repeated_and_equal_ones_are_no_trouble() -> None:
    chosen = farthest_first(torch.zeros(3, 2), 8)
    assert len(chosen) == 8
    assert set(chosen.tolist()) == {0, 1, 2}


def test_the_memory_holds_features_of_the_good_images(fitted: Patchcore) -> None:
    network = fitted.network
    with torch.no_grad():
        places = network.features(normalise(torch.from_numpy(stripes(6)))).permute(0, 2, 3, 1).flatten(0, 2)
    assert torch.cdist(network.memory, places).amin(dim=1).max() < 1e-3 * places.norm(dim=1).mean()


def test_scores_are_distances_to_the_nearest_feature(fitted: Patchcore) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    network = fitted.network
    with torch.no_grad():
        places = network.features(normalise(torch.from_numpy(frames))).flatten(2).transpose(1, 2)
    exact = [float(torch.cdist(each.double(), network.memory.double()).amin(dim=1).max()) for each in places]
    for model in (fitted.reference_model(), fitted.export_model()):
        assert run_reference(model, frames).scores == pytest.approx(exact, rel=1e-4)


def test_what_it_remembers_is_no_anomaly_and_a_foreign_patch_is_one_at_its_place(fitted: Patchcore) -> None:
    """The backbone has random weights."""
    good = stripes(12)[6:]
    bad = good.copy()
    bad[:, 30:54, 40:64] = np.random.default_rng(2).integers(0, 256, (6, 24, 24, 3))
    model = fitted.export_model()
    normal, found = run_reference(model, good), run_reference(model, bad)
    assert found.scores.min() > normal.scores.max()
    for anomaly_map in found.maps:
        row, column = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
        assert 16 <= row < 68  # where its features see the patch
        assert 26 <= column < 78


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("levels=3,2", "levels must be some of 1,2,3, ascending"),
        ("levels=2,4", "levels must be some of 1,2,3"),
        ("window=2", "window must be odd"),
        ("backbone=vgg11", "backbone"),
    ],
)
def test_settings_that_make_no_sense(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(Patchcore, "nano", [setting])


def test_there_is_no_schedule_to_scale(parts: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"patchcore optimises nothing.*leave out --budget"):
        train("patchcore", parts, preset="nano", budget="30s", out=tmp_path / "run")
