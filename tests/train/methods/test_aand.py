"""AAND: gate and generator, both stages' losses, the exact rewriting of the graph."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from edgead.errors import ConfigError
from edgead.export.graph.to_onnx import write_onnx
from edgead.export.inference import run_reference
from edgead.export.parity import check_parity
from edgead.metrics import rank
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.train.backbones import normalise
from edgead.train.configuration import configure
from edgead.train.fit import fit
from edgead.train.foreground import foreground_mask
from edgead.train.maps import upsampling
from edgead.train.method import Arrays, TrainingData
from edgead.train.methods.aand.config import AandConfig
from edgead.train.methods.aand.losses import Amplification, amplify_loss, distill_loss, gate_loss
from edgead.train.methods.aand.method import Aand
from edgead.train.methods.aand.network import AandNetwork, Amplifier, position_table

SMALL = ["size=65x97", "keys=4", "steps=4", "batch_size=2"]


def small(seed: int = 0, *settings: str) -> Aand:
    torch.manual_seed(seed)
    return Aand(configure(Aand, "nano", [*SMALL, *settings]))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (4, 65, 97, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def fitted(frames: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Aand:
    method = small()
    fit(method, method.stages(TrainingData(frames)), tmp_path_factory.mktemp("run"), seed=0, device="cpu")
    return method


def amplifier(channels: int = 16, side: int = 4, keys: int = 5) -> Amplifier:
    torch.manual_seed(0)
    return Amplifier((channels, side, side), AandConfig(keys=keys))


def test_the_gate_is_a_sigmoid_of_two_log_sums() -> None:
    module, features = amplifier(), torch.randn(2, 16, 4, 4)
    query = module.projs[0](features + module.positions)
    cosines = F.cosine_similarity(query[:, None], module.K_list[0][0][None, :, :, None, None], dim=2) / 0.2
    expected = torch.sigmoid(cosines[:, 5:].logsumexp(1) - cosines[:, :5].logsumexp(1))
    assert torch.allclose(module.gate(features)[:, 0], expected, atol=1e-6)


def test_equal_prototypes_leave_the_gate_half_open() -> None:
    module = amplifier()
    with torch.no_grad():
        module.K_list[0][0, 5:] = module.K_list[0][0, :5]
    assert torch.allclose(module.gate(torch.randn(1, 16, 4, 4)), torch.full((1, 1, 4, 4), 0.5), atol=1e-6)


def test_the_residual_is_bounded_by_gate_and_features() -> None:
    module, features = amplifier(), torch.randn(2, 16, 4, 4) * 10
    gate, value = module.gate(features), module.value(features)
    assert ((gate * value).abs() <= gate * features.abs()).all()
    assert torch.isfinite(module.gate(torch.zeros(1, 16, 4, 4))).all()


def test_the_position_table() -> None:
    table = position_table(8, 5, 7)
    assert table.shape == (8, 5, 7)
    assert torch.allclose(table[0], torch.arange(7.0).sin().expand(5, 7))
    assert torch.allclose(table[1], torch.arange(7.0).cos().expand(5, 7))
    assert torch.allclose(table[4], torch.arange(5.0).sin()[:, None].expand(5, 7))
    assert torch.allclose(table[2], (torch.arange(7.0) * 1e4**-0.5).sin().expand(5, 7))


def test_the_teacher_is_the_pretrained_network_and_the_next_level_sees_plain_features() -> None:
    method = small()
    teacher = method.network.encoder_AT
    image = torch.randn(1, 3, 65, 97)
    plain = teacher(image)
    for each in teacher.amplifiers():
        nn.init.zeros_(each.projs2[0][4].weight)
        nn.init.zeros_(each.projs2[0][4].bias)
    assert all(torch.equal(a, b) for a, b in zip(teacher.amplified(image), plain))  # tanh(0) adds nothing
    with torch.no_grad():
        for each in teacher.amplifiers():
            each.projs2[0][4].bias.fill_(50.0)  # tanh is 1: features grow by the gate
    for f, p, each in zip(teacher.amplified(image), plain, teacher.amplifiers()):
        assert torch.allclose(f, p * (1 + each.gate(p)), rtol=1e-5)


def test_each_loss_of_stage_one_trains_its_own_part() -> None:
    method = small()
    teacher = method.network.encoder_AT
    module = Amplification(teacher, method.config)
    mask = torch.zeros(2, 1, 65, 97)
    mask[:, :, 20:50, 30:70] = 1
    losses = module({"image": torch.rand(2, 65, 97, 3) * 255, "mask": mask, "foreground": torch.ones(2, 1, 65, 97)})
    for name, parts in (("gate", ("projs2",)), ("amplify", ("projs.", "K_list"))):
        trained = [(key, value) for key, value in teacher.named_parameters() if value.requires_grad]
        gradients = torch.autograd.grad(losses[name], [v for _, v in trained], allow_unused=True, retain_graph=True)
        for (key, _), gradient in zip(trained, gradients):
            touched = gradient is not None and bool(gradient.abs().max() > 0)
            assert touched is not any(part in key for part in parts), (name, key)


def test_stage_two_leaves_the_teacher_alone_and_stage_one_the_student(
    frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    method = small()
    stages = method.stages(TrainingData(frames))

    def parts() -> dict[str, dict[str, Tensor]]:
        state = {key: value.clone() for key, value in method.network.state_dict().items()}
        groups = {
            "backbone": "encoder_AT.features",
            "amplifiers": "feat_recons",
            "student": "decoder_ss",
            "bottleneck": "bn.",
        }
        return {name: {k: v for k, v in state.items() if text in k} for name, text in groups.items()}

    def changed(before: dict[str, dict[str, Tensor]], after: dict[str, dict[str, Tensor]]) -> set[str]:
        return {name for name in before if any(not torch.equal(v, after[name][k]) for k, v in before[name].items())}

    start = parts()
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    fit(method, stages[:1], tmp_path / "one", seed=0, device="cpu")
    middle = parts()
    assert changed(start, middle) == {"amplifiers"}
    fit(method, stages[1:], tmp_path / "two", seed=0, device="cpu")
    assert changed(middle, parts()) >= {"student"}
    assert not changed(middle, parts()) & {"amplifiers", "backbone"}


def test_gate_loss_is_the_focal_loss() -> None:
    gate = torch.tensor([0.9, 0.2]).reshape(1, 1, 1, 2)
    anomalous = torch.tensor([True, False]).reshape(1, 1, 1, 2)
    expected = (-0.8 * 0.1**2 * np.log(0.9) - 0.2 * 0.2**2 * np.log(0.8)) / 2
    assert float(gate_loss(gate, anomalous)) == pytest.approx(expected, rel=1e-5)
    assert torch.isfinite(gate_loss(torch.tensor([[[[0.0, 1.0]]]]), anomalous))


def test_amplify_loss_wants_the_margin() -> None:
    plain = torch.randn(2, 8, 4, 4)
    anomalous = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    anomalous[:, :, 1:3, 1:3] = True
    assert float(amplify_loss(plain, plain, ~anomalous, anomalous, 0.3)) == pytest.approx(0.3, rel=1e-5)
    same = torch.ones(2, 8, 4, 4)
    opposite = torch.where(anomalous, -same, same)
    assert float(amplify_loss(same, opposite, ~anomalous, anomalous, 0.3)) == 0
    nothing = torch.zeros_like(anomalous)
    assert float(amplify_loss(plain, plain, ~nothing, nothing, 0.3)) == 0


def test_distill_loss_looks_at_the_worst_patches() -> None:
    teacher = torch.randn(1, 8, 64, 64)
    assert float(distill_loss(teacher, teacher.clone(), 10)) == pytest.approx(0, abs=1e-5)
    student = teacher.clone()
    student[0, :, 5, 9] *= -1
    whole = 1 - F.cosine_similarity(teacher.flatten(1), student.flatten(1))
    assert float(distill_loss(teacher, student, 10)) == pytest.approx(2 / 10 + float(whole), rel=1e-4)


@pytest.mark.parametrize(("side", "cells"), [(64, 16), (65, 17), (256, 64), (40, 2)])
def test_the_matrix_form_is_interpolation_and_scipys_gaussian(side: int, cells: int) -> None:
    coarse = torch.randn(1, 1, cells, cells, dtype=torch.float64)
    for corners in (True, False):
        fine = F.interpolate(coarse, side, mode="bilinear", align_corners=corners)[0, 0]
        for sigma in (0.0, 4.0):
            expected = gaussian_filter(fine.numpy(), sigma) if sigma else fine.numpy()
            matrix = upsampling(side, cells, corners=corners, sigma=sigma).double()
            assert np.abs((matrix @ coarse[0, 0] @ matrix.T).numpy() - expected).max() < 1e-6


def test_detector_is_the_published_scoring(fitted: Aand, frames: NDArray[np.uint8]) -> None:
    with torch.no_grad():
        scores, maps = fitted.reference_model()(torch.from_numpy(frames))
        expected = np.zeros((4, 65, 97))
        for t, s in zip(*fitted.network.eval().levels(normalise(torch.from_numpy(frames)))):
            distance = 1 - F.cosine_similarity(t, s)
            expected += F.interpolate(distance[:, None], (65, 97), mode="bilinear", align_corners=True)[:, 0].numpy()
    smooth = np.stack([gaussian_filter(each, 4) for each in expected])
    assert np.abs(maps.numpy() - smooth).max() < 1e-5
    assert torch.equal(scores, maps.amax(dim=(1, 2)))


def test_the_export_model_is_the_reference(fitted: Aand, frames: NDArray[np.uint8], tmp_path: Path) -> None:
    reference = run_reference(fitted.reference_model(), frames)
    with torch.no_grad():
        scores, maps = fitted.export_model()(torch.from_numpy(frames))
    assert np.abs(scores.numpy() - reference.scores).max() < 1e-5
    assert np.abs(maps.numpy() - reference.maps).max() < 1e-5
    write_onnx(fitted.export_model(), (65, 97), tmp_path / "model.onnx")
    check_parity(reference, *OnnxRuntimeEngine(tmp_path / "model.onnx").infer(frames))


def test_a_stopped_run_goes_on_to_the_same_weights(fitted: Aand, frames: NDArray[np.uint8], tmp_path: Path) -> None:
    """Stopped in the middle of stage II; what `prepare` computes or freezes is made again."""
    stopped, drawn = small(), 0
    stages = stopped.stages(TrainingData(frames))
    sample = stages[-1].sample

    def stop(rng: np.random.Generator) -> Arrays:
        nonlocal drawn
        drawn += 1
        if drawn > 2:  # the second step's first example
            raise KeyboardInterrupt
        return sample(rng)

    stages[-1] = dataclasses.replace(stages[-1], sample=stop)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, stages, tmp_path, seed=0, device="cpu", save_seconds=0)
    assert (tmp_path / "state.safetensors").is_file()
    resumed = small(seed=3)
    fit(resumed, resumed.stages(TrainingData(frames)), tmp_path, seed=0, device="cpu")
    for key, value in fitted.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key


def test_official_state_dict_keys_and_sizes() -> None:
    with torch.device("meta"):  # shapes alone: no weights are drawn
        network = AandNetwork(AandConfig())
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    for letter, width, hidden in (("a", 256, 512), ("b", 512, 1024), ("c", 1024, 1024)):
        at = f"encoder_AT.feat_recons_{letter}"
        assert shapes[f"{at}.K_list.0"] == (1, 100, width)
        for branch in ("projs", "projs2"):
            assert shapes[f"{at}.{branch}.0.0.weight"] == (hidden, width, 1, 1)
            assert shapes[f"{at}.{branch}.0.2.weight"] == (hidden, hidden, 1, 1)
            assert shapes[f"{at}.{branch}.0.4.weight"] == (width, hidden, 1, 1)
    expected = {
        "encoder_AT.layer3.5.conv3.weight": (1024, 512, 1, 1),
        "bn.conv1.weight": (512, 256, 3, 3),
        "bn.conv2.weight": (1024, 512, 3, 3),
        "bn.conv3.weight": (1024, 512, 3, 3),
        "bn.bn_layer.0.conv1.weight": (1024, 3072, 1, 1),
        "bn.bn_layer.0.downsample.0.weight": (2048, 3072, 1, 1),
        "bn.bn_layer.2.conv3.weight": (2048, 1024, 1, 1),
        "decoder_ss.layer1.0.conv2.weight": (512, 512, 2, 2),
        "decoder_ss.layer1.0.upsample.0.weight": (2048, 1024, 2, 2),
        "decoder_ss.layer2.3.conv2.weight": (256, 256, 3, 3),
        "decoder_ss.layer3.0.upsample.1.running_var": (256,),
        "decoder_ss.layer3.5.bn3.weight": (256,),
    }
    assert {key: shapes.get(key) for key in expected} == expected
    assert not any(key.startswith(("encoder_AT.layer4", "encoder_AT.fc", "bn.conv4")) for key in shapes)
    counts = {
        name: sum(value.numel() for value in module.parameters())
        for name, module in (
            ("amplifiers", nn.ModuleList(network.encoder_AT.amplifiers())),
            ("student", network.decoder_ss),
        )
    }
    assert counts == {"amplifiers": 1_076_736 + 4_250_624 + 6_400_000, "student": 24_917_504}
    assert round(sum(value.numel() for value in network.parameters()) / 1e6, 1) == 120.4


def test_a_resnet_v2_teacher_halves_too() -> None:
    with torch.no_grad():
        method = small(0, "backbone=resnet50v2", "size=64")
        scores, maps = method.export_model()(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert scores.shape == (1,)
    assert maps.shape == (1, 64, 64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["size=128"], "--set size=129 does"),
        (["backbone=vgg11"], 'backbone is "vgg11"; it must be one of alexnet'),
        (["foreground=red"], "auto, all, bright"),
        (["student_blocks=1,2"], r"student_blocks is \[1, 2\]; it must be a list of 3"),
        (["temperature=0"], r"temperature is 0\.0; it must be above 0"),
    ],
)
def test_bad_settings_say_what_would_be_right(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Aand(configure(Aand, "nano", settings))  # type: ignore[arg-type]


def test_steps_are_shared_as_the_epochs_are() -> None:
    assert AandConfig().stage_steps(Fraction(10)) == (1000, 1200)
    assert AandConfig(steps=220).stage_steps(Fraction(7)) == (100, 120)
    assert AandConfig(steps=220).total_steps(Fraction(7)) == 220


def test_foregrounds() -> None:
    y, x = np.mgrid[:64, :64]
    disc = np.hypot(y - 32, x - 32) < 20
    rng = np.random.default_rng(0)

    def picture(part: int, background: int) -> NDArray[np.uint8]:
        grey = np.where(disc, part, background)[..., None] + rng.normal(0, 3, (64, 64, 3))
        return grey.clip(0, 255).astype(np.uint8)

    for part, background in ((200, 30), (40, 220)):
        found = foreground_mask(picture(part, background))
        assert (found == disc).mean() > 0.97
        named = foreground_mask(picture(part, background), "bright" if part > 100 else "dark")
        assert (named == disc).mean() > 0.97
    texture = rng.normal(128, 30, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    assert foreground_mask(texture).all()
    assert foreground_mask(picture(200, 30), "all").all()
    assert all(foreground_mask(np.full((64, 64, 3), 30, np.uint8), how).all() for how in ("bright", "dark"))
    assert foreground_mask(texture, "disc")[32, 32]
    assert not foreground_mask(texture, "disc")[0, 0]


def test_anomalies_stay_on_the_part() -> None:
    y, x = np.mgrid[:65, :97]
    disc = np.hypot(y - 32, x - 48) < 20
    frame = np.where(disc, 200, 20)[..., None].repeat(3, 2).astype(np.uint8)
    method = small(0, "anomaly_share=1")
    amplify, _ = method.stages(TrainingData(frame[None]))
    part = foreground_mask(frame)
    drawn = [amplify.sample(np.random.default_rng(seed)) for seed in range(12)]
    assert sum(each["mask"].any() for each in drawn) >= 9
    assert not any((each["mask"][0].astype(bool) & ~part).any() for each in drawn)
    changed = [np.abs(each["image"] - frame).max(axis=2) > 0 for each in drawn]
    assert not any((where & ~each["mask"][0].astype(bool)).any() for where, each in zip(changed, drawn))


@pytest.mark.long
def test_stage_one_finds_anomalies_better_than_chance(tmp_path: Path) -> None:
    """On random features of plain grey parts with foreign patches, the gates alone must rank patches."""
    frames = np.random.default_rng(0).normal(120, 4, (6, 65, 65, 3)).clip(0, 255).astype(np.uint8)
    method = small(0, "size=65", "steps=60", "amplify_epochs=100", "epochs=20", "batch_size=4", "lowest_opacity=0.8")
    stages = method.stages(TrainingData(frames))
    fit(method, stages[:1], tmp_path, seed=0, device="cpu")
    rng = np.random.default_rng(9)
    examples = [method.example(TrainingData(frames), rng) for _ in range(8)]
    teacher = method.network.encoder_AT
    with torch.no_grad():
        image = torch.from_numpy(np.stack([example["frame"] for example in examples]))
        gate = teacher.amplifiers()[0].gate(teacher(normalise(image))[0])
        mask = torch.from_numpy(np.stack([example["mask"] for example in examples]))[:, None].float()
        truth = F.adaptive_avg_pool2d(mask, gate.shape[2:]) > 0.3
    assert rank(truth.numpy(), gate.numpy()).auroc() > 0.8
