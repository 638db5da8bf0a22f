"""Frozen networks: names, layers, weights that fit and weights that do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgead.errors import CheckpointError, ConfigError
from edgead.train.backbones import LEVELS, Backbone, centre, fold_normalisation, normalise, torchvision


@pytest.fixture(scope="module")
def real_weights() -> Path:
    root = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("EDGEAD_TEST_DATA", root)) / "weights"
    if not folder.is_dir():
        pytest.skip(f"no weights at {folder}; EDGEAD_TEST_DATA names the folder above it")
    return folder


def full_state(name: str) -> dict[str, Tensor]:
    torch.manual_seed(5)
    network: nn.Module = torchvision().models.get_model(name, weights=None)
    return network.state_dict()


@pytest.mark.long
def test_torchvision_imports_in_a_fresh_process_and_only_there() -> None:
    code = (
        "import sys, edgead.train.backbones as b\n"
        "assert 'torchvision' not in sys.modules\n"
        "assert b.torchvision() is b.torchvision()\n"
        "assert b.torchvision().models.get_model('squeezenet1_1', weights=None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("alexnet", [(64, 31, 31), (192, 15, 15), (256, 7, 7)]),
        ("squeezenet1_1", [(128, 64, 64), (256, 32, 32), (512, 16, 16)]),
        ("resnet18", [(64, 65, 65), (128, 33, 33), (256, 17, 17)]),
        ("resnet50v2", [(256, 65, 65), (512, 33, 33), (1024, 17, 17)]),
    ],
)
def test_levels(name: str, shapes: list[tuple[int, int, int]]) -> None:
    assert Backbone(name, LEVELS[name]).shapes((257, 257)) == shapes


@pytest.mark.parametrize("name", sorted(LEVELS))
def test_levels_come_from_a_relu(name: str) -> None:
    """AAND's student ends with ReLUs, so it cannot follow negative features: image AUROC 45 after 1,500 steps."""
    for level in Backbone(name, LEVELS[name])(torch.randn(1, 3, 64, 64)):
        assert (level >= 0).all()
        assert (level > 0).any()


@pytest.mark.parametrize("levels", [(0, 1, 2), (1, 2), (0, 1), (0,)])
def test_weights_of_runs_on_other_levels_do_not_fit(levels: tuple[int, ...]) -> None:
    """Runs on the sums of resnet50v2's stages would otherwise be exported with features that they never saw."""
    sums = Backbone("resnet50v2", [f"stage{level + 1}" for level in levels])
    now = Backbone("resnet50v2", [LEVELS["resnet50v2"][level] for level in levels])
    assert sums.state_dict().keys() != now.state_dict().keys()


def test_features_are_torchvisions_and_unused_layers_are_gone(tmp_path: Path) -> None:
    state = full_state("resnet18")
    save_file(state, tmp_path / "w.safetensors")
    backbone = Backbone("resnet18", ("layer1", "layer2"))
    backbone.load_pretrained(tmp_path / "w.safetensors")
    network = torchvision().models.get_model("resnet18", weights=None).eval()
    network.load_state_dict(state)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        stem = network.maxpool(network.relu(network.bn1(network.conv1(image))))
        first = network.layer1(stem)
        expected = [first, network.layer2(first)]
    assert all(torch.equal(got, want) for got, want in zip(backbone(image), expected))
    assert set(backbone.state_dict()) == {key for key in state if not key.startswith(("layer3", "layer4", "fc"))}


def test_it_never_trains() -> None:
    backbone = Backbone("resnet18", ("layer1",))
    holder = nn.Sequential(backbone)
    before = backbone.state_dict()["bn1.running_mean"].clone()
    holder.train()
    backbone(torch.randn(2, 3, 32, 32))
    assert torch.equal(backbone.state_dict()["bn1.running_mean"], before)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_pth_and_safetensors_are_the_same(tmp_path: Path) -> None:
    state = full_state("squeezenet1_1")
    torch.save(state, tmp_path / "w.pth")
    save_file(state, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        backbone = Backbone("squeezenet1_1", ("features",))
        backbone.load_pretrained(tmp_path / name)
        assert all(torch.equal(value, state[key]) for key, value in backbone.state_dict().items())


def test_other_networks_weights_are_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    save_file(full_state("alexnet"), tmp_path / "alexnet.safetensors")
    with pytest.raises(CheckpointError) as refused:
        Backbone("resnet18", LEVELS["resnet18"]).load_pretrained(tmp_path / "alexnet.safetensors")
    assert "missing: bn1.bias" in str(refused.value)
    assert "unknown: classifier.1.bias" in str(refused.value)
    assert "more" in str(refused.value)


def test_wider_weights_are_refused_by_shape(tmp_path: Path) -> None:
    state = full_state("squeezenet1_1")
    state["features.0.weight"] = torch.zeros(32, 3, 3, 3)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"reshaped: features\.0\.weight\."):
        Backbone("squeezenet1_1", ("features",)).load_pretrained(tmp_path / "w.safetensors")


class Surprise:
    """What a pickle could carry beside weights."""


@pytest.mark.parametrize("content", [b"", b"not weights", {"model": Surprise()}, [torch.zeros(1)]])
def test_damaged_files_and_pickles_are_refused(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"w\.pth"):
        Backbone("squeezenet1_1", ("features",)).load_pretrained(path)
    with pytest.raises(CheckpointError, match=r"absent\.pth does not exist"):
        Backbone("squeezenet1_1", ("features",)).load_pretrained(tmp_path / "absent.pth")


def test_without_network_the_error_says_which_file_goes_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(CheckpointError) as refused:
        Backbone("alexnet", ("features",)).load_pretrained(None)
    assert "alexnet-owt-7be5be79.pth" in str(refused.value)
    assert str(tmp_path) in str(refused.value)
    assert "--weights" in str(refused.value)
    with pytest.raises(CheckpointError, match="--weights"):
        Backbone("resnet50v2", ("stage1",)).load_pretrained(None)


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match=r"Unknown backbone 'alexnot'\. Did you mean 'alexnet'"):
        Backbone("alexnot", ("features",))
    with pytest.raises(ConfigError, match=r"no layer layer9\. It has: .*features\.12"):
        Backbone("squeezenet1_1", ("layer9",))


@pytest.mark.parametrize(("name", "folds"), [("squeezenet1_1", True), ("resnet18", True), ("resnet50v2", False)])
def test_the_folded_normalisation_is_the_same_function(name: str, folds: bool) -> None:
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 65, 65, 3), dtype=np.uint8))
    backbone = Backbone(name, LEVELS[name][:1])
    [expected] = backbone(normalise(frames))
    planes = fold_normalisation(backbone)
    assert planes is (centre if folds else normalise)
    [found] = backbone(planes(frames))
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))


def test_normalise_is_imagenets() -> None:
    frame = np.zeros((1, 1, 1, 3), np.uint8)
    frame[..., 2] = 255  # red, the last of BGR
    red, green, blue = normalise(torch.from_numpy(frame)).flatten().tolist()
    assert red == pytest.approx((1 - 0.485) / 0.229)
    assert green == pytest.approx(-0.456 / 0.224)
    assert blue == pytest.approx(-0.406 / 0.225)


def test_real_weights_load(real_weights: Path) -> None:
    for name, file in (("squeezenet1_1", "squeezenet1_1_imagenet"), ("resnet50v2", "resnet50v2_imagenet_stem_l1_l3")):
        backbone = Backbone(name, LEVELS[name])
        fresh = {key: value.clone() for key, value in backbone.state_dict().items()}
        backbone.load_pretrained(real_weights / f"{file}.pth")
        changed = [key for key, value in backbone.state_dict().items() if not torch.equal(value, fresh[key])]
        assert len(changed) > 0.75 * len(fresh)
        levels = backbone(torch.randn(1, 3, 65, 65))
        assert all(torch.isfinite(level).all() for level in levels)
        assert all((level >= 0).all() for level in levels)
