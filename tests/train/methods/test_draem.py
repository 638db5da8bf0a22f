"""DRAEM: the published architecture, its parts, and that it learns."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgead import metrics
from edgead.errors import ConfigError
from edgead.export.inference import run_reference
from edgead.train.fit import fit
from edgead.train.method import TrainingData
from edgead.train.methods.draem.config import DraemConfig
from edgead.train.methods.draem.export_model import ExportModel
from edgead.train.methods.draem.method import Draem
from edgead.train.methods.draem.network import DiscriminativeNetwork, DraemNetwork, ReconstructiveNetwork
from edgead.train.methods.draem.reference_model import ReferenceModel


def settle_batch_norms(network: nn.Module) -> None:
    """Give batch norms statistics that are not the initial ones, as after training."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "width", "tensors", "parameters", "digest"),
    [
        (
            ReconstructiveNetwork,
            128,
            156,
            69_048_579,
            "b2d312a7f1a8dcf3b68433dcfa9c5df95fcf6967ee68be38c333ac580d9921ea",
        ),
        (
            DiscriminativeNetwork,
            64,
            191,
            28_374_146,
            "9148bc61d9f7a34ed1dc593967c871f54c6c48e2608f0aea3d0e8e6446fd00a6",
        ),
    ],
)
def test_names_and_shapes_are_the_published_ones(
    kind: type[nn.Module], width: int, tensors: int, parameters: int, digest: str
) -> None:
    """The digest is that of "name shape" lines, sorted, of the published networks' state dictionaries."""
    with torch.device("meta"):
        network = kind(width)
    state = network.state_dict()
    lines = "\n".join(sorted(f"{name} {tuple(value.shape)}" for name, value in state.items()))
    assert len(state) == tensors
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert hashlib.sha256(lines.encode()).hexdigest() == digest


def test_initialisation() -> None:
    network = DraemNetwork(DraemConfig(reconstructive_width=16, discriminative_width=16))
    convolution = network.reconstructive.encoder.get_submodule("block4.3")
    assert isinstance(convolution, nn.Conv2d)
    assert float(convolution.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    norm = network.reconstructive.encoder.get_submodule("block4.1")
    assert isinstance(norm, nn.BatchNorm2d)
    assert float(norm.weight.detach().mean()) == pytest.approx(1, abs=0.02)
    assert float(norm.bias.detach().abs().max()) == 0


def test_the_focal_loss_reaches_the_reconstructive_network() -> None:
    network = DraemNetwork(DraemConfig(reconstructive_width=2, discriminative_width=2))
    image = torch.rand(2, 3, 32, 32)
    losses = network({"image": image, "augmented": image, "mask": torch.zeros(2, 1, 32, 32)})
    losses["focal"].backward()
    gradient = network.reconstructive.encoder.get_submodule("block1.0").weight.grad
    assert isinstance(gradient, torch.Tensor)
    assert gradient.abs().sum() > 0


class Fixed(nn.Module):
    """Stands for the two networks: gives logits whose anomalous probability is a fixed map."""

    def __init__(self, probability: torch.Tensor) -> None:
        super().__init__()
        self.probability = probability

    def logits(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        p = self.probability.clamp(1e-9, 1 - 1e-9)
        return image, torch.stack([(1 - p).log(), p.log()], dim=1)


def test_score_is_the_maximum_of_the_windowed_mean() -> None:
    ones, single = torch.ones(1, 64, 64), torch.zeros(1, 64, 64)
    single[0, 30, 40] = 1
    frames = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    for probability, expected in ((ones, 1.0), (single, 1 / 441)):
        scores, maps = ReferenceModel(Fixed(probability))(frames)  # type: ignore[arg-type]
        assert float(scores) == pytest.approx(expected, abs=1e-6)
        assert torch.allclose(maps, probability, atol=1e-6)


@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_the_export_model_equals_the_published_inference(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = DraemNetwork(DraemConfig(size=size, reconstructive_width=4, discriminative_width=4)).eval()
    settle_batch_norms(network)
    frames = torch.randint(0, 256, (3, *size, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected, actual = ReferenceModel(network)(frames), ExportModel(network, size)(frames)
    assert expected[1].std() > 0
    for a, b in zip(expected, actual):
        assert torch.allclose(a, b, atol=1e-6)


def test_the_input_is_bgr_in_0_to_1() -> None:
    frames = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    frames[..., 0] = 255
    seen = []

    class Spy(Fixed):
        def logits(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append(image)
            return super().logits(image)

    ReferenceModel(Spy(torch.zeros(1, 64, 64)))(frames)  # type: ignore[arg-type]
    assert seen[0].shape == (1, 3, 64, 64)
    assert seen[0].amax(dim=(0, 2, 3)).tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": (100, 64)}, "multiples of 32"),
        ({"anomaly_share": 1.5}, "from 0 to 1"),
        ({"reconstructive_width": 0}, "from 1 to"),
        ({"learning_rate": -1.0}, "above 0"),
    ],
)
def test_configurations_that_make_no_sense(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DraemConfig(**values)  # type: ignore[arg-type]


def test_the_schedule_of_the_published_code() -> None:
    config = DraemConfig()
    factors = [config.learning_rate_factor(step, 1000) for step in (0, 799, 800, 899, 900, 999)]
    assert factors == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04])


def test_examples_follow_the_configured_shares() -> None:
    normals = np.random.default_rng(0).integers(1, 256, (4, 64, 64, 3), dtype=np.uint8)
    config = DraemConfig(size=(64, 64), reconstructive_width=2, discriminative_width=2)
    sample = Draem(config).stages(TrainingData(normals))[0].sample
    drawn = [sample(np.random.default_rng(number)) for number in range(400)]
    rotated = np.mean([(example["image"] == 0).any() for example in drawn])
    with_anomaly = np.mean([example["mask"].any() for example in drawn])
    assert 0.22 < rotated < 0.38
    assert 0.40 < with_anomaly < 0.55  # half get one, and about one mask in twenty is empty
    for example in drawn[:50]:
        outside = example["mask"][0] == 0
        assert np.array_equal(example["augmented"][:, outside], example["image"][:, outside])
    again = sample(np.random.default_rng(7))
    assert all(np.array_equal(again[name], drawn[7][name]) for name in again)


@pytest.mark.long
def test_it_overfits_a_toy_set(tmp_path: Path) -> None:
    """Eight striped images, a few hundred small steps: it must tell fresh anomalies on them from the rest."""
    rng = np.random.default_rng(0)
    columns = np.arange(64)
    phases = rng.uniform(0, 2 * np.pi, 8)
    stripes = [127 + 90 * np.sin(columns[None, :, None] / 4 + phase + np.zeros((64, 1, 3))) for phase in phases]
    normals = np.stack(stripes).astype(np.uint8)
    config = DraemConfig(
        size=(64, 64),
        reconstructive_width=8,
        discriminative_width=8,
        steps=250,
        batch_size=4,
        learning_rate=1e-3,
        rotate_share=0.0,
    )
    torch.manual_seed(0)
    method = Draem(config)
    fit(method, method.stages(TrainingData(normals)), tmp_path, seed=0, device="cpu")
    rng = np.random.default_rng(1)
    examples = [method.example(TrainingData(normals), rng) for _ in range(16)]
    anomalous = run_reference(method.reference_model(), np.stack([example["frame"] for example in examples]))
    masks = np.stack([example["mask"] for example in examples])
    assert metrics.rank(masks, anomalous.maps).auroc() > 0.9  # 0.92 and 0.94 with one thread and two
    with torch.no_grad():
        images = torch.from_numpy(normals).permute(0, 3, 1, 2) / 255
        reconstruction, _ = method.network.eval().logits(images)
        assert float(F.mse_loss(reconstruction, images)) < 0.01
