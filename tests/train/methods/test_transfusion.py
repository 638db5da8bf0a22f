"""TransFusion: the process in closed form, the published network, its losses and examples, the exact rewriting."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgead import metrics, schema
from edgead.errors import ConfigError, DataError
from edgead.export.graph.to_onnx import write_onnx
from edgead.export.inference import run_reference
from edgead.export.parity import check_parity
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.train.configuration import configure
from edgead.train.fit import fit
from edgead.train.method import TrainingData
from edgead.train.methods.transfusion.config import TransfusionConfig
from edgead.train.methods.transfusion.diffusion import FIRST, LAST, advance, blend, losses, schedule
from edgead.train.methods.transfusion.examples import displacement, draw_example, to_frame, to_image, to_rgb
from edgead.train.methods.transfusion.export_model import ExportModel
from edgead.train.methods.transfusion.method import Transfusion, TransfusionNetwork
from edgead.train.methods.transfusion.network import AttentionBlock, BlockConfig, ResidualBlock, UNet
from edgead.train.methods.transfusion.preprocessing import to_depth
from edgead.train.methods.transfusion.reference_model import ReferenceModel
from edgead.train.official import load_official

SMALL = ["size=32x48", "attention_levels=1", "steps=2", "batch_size=2", "reverse_steps=1"]


def small(*settings: str, seed: int = 0) -> Transfusion:
    torch.manual_seed(seed)
    return Transfusion(configure(Transfusion, "nano", [*SMALL, *settings]))  # type: ignore[arg-type]


def settle(network: nn.Module) -> None:
    """Give norms scales and statistics that are not the initial ones, as after training."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]


def parts(channels: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """A good image, an anomaly inside a mask, and the mask."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.rand(2, channels, 8, 10, generator=generator) * 2 - 1
    mask = (torch.rand(2, 1, 8, 10, generator=generator) > 0.6).float()
    return normal, (torch.rand(2, channels, 8, 10, generator=generator) * 2 - 1) * mask, mask


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("time", [1, 7, LAST])
def test_the_blend(channels: int, time: int) -> None:
    normal, anomaly, mask = parts(channels)
    opacity = time / LAST
    x = blend(normal, anomaly, mask, opacity)
    inside = mask[:, 0] > 0
    for channel in range(channels):
        there = (
            normal[:, channel] * (1 - opacity) + anomaly[:, channel] * opacity
            if channel < 3
            else normal[:, channel] + anomaly[:, channel] * opacity
        )
        expected = torch.where(inside, there, normal[:, channel])
        assert torch.allclose(x[:, channel], expected, atol=2e-7)
        assert torch.equal(x[:, channel][~inside], normal[:, channel][~inside])


@pytest.mark.parametrize("channels", [3, 4])
def test_one_step_back_is_the_blend_before(channels: int) -> None:
    normal, anomaly, mask = parts(channels)
    for time in range(1, LAST + 1):
        x = blend(normal, anomaly, mask, time / LAST)
        back = advance(x, anomaly * (time / LAST), normal, mask, time / LAST, 1 / LAST)
        assert torch.allclose(back, blend(normal, anomaly, mask, (time - 1) / LAST), atol=5e-7)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("steps", [18, 8, 4, 2, 1])
def test_right_predictions_lead_to_the_good_image_on_every_schedule(channels: int, steps: int) -> None:
    normal, anomaly, mask = parts(channels)
    x = blend(normal, anomaly, mask, FIRST / LAST)
    for time, next_time in schedule(steps):
        x = advance(x, anomaly * (time / LAST), normal, mask, time / LAST, (time - next_time) / LAST)
    assert torch.allclose(x, normal, atol=1e-6)


def test_schedules_run_from_18_to_0_without_gaps() -> None:
    assert schedule(18) == [(time, time - 1) for time in range(18, 0, -1)]
    assert schedule(4) == [(18, 14), (14, 9), (9, 4), (4, 0)]
    for steps in range(1, 19):
        pairs = schedule(steps)
        assert len(pairs) == steps
        assert (pairs[0][0], pairs[-1][1]) == (18, 0)
        assert all(time > next_time for time, next_time in pairs)
        assert [left[1] for left in pairs[:-1]] == [right[0] for right in pairs[1:]]


@pytest.mark.parametrize(
    ("channels", "width", "tensors", "parameters", "digest"),
    [
        (3, 64, 326, 54_559_431, "40187cec9d72c5fd6eb63706b0ca348a2200feeec66fa697095606eb17900cce"),
        (4, 128, 376, 112_031_753, "83bdfac83f7234df6801ad7d19f21278f0d14f927e95e26716cf827b37555d8e"),
    ],
)
def test_names_and_shapes_are_the_published_ones(
    channels: int, width: int, tensors: int, parameters: int, digest: str
) -> None:
    """The digest is that of "name shape" lines, sorted, of the published networks' state dictionaries."""
    with torch.device("meta"):
        network = UNet(channels, width, (1, 2, 2, 2), (2, 3), 2)
    state = network.state_dict()
    lines = "\n".join(sorted(f"{name} {tuple(value.shape)}" for name, value in state.items()))
    assert len(state) == tensors
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert hashlib.sha256(lines.encode()).hexdigest() == digest


def test_a_published_checkpoint_needs_no_renaming() -> None:
    names = TransfusionNetwork(TransfusionConfig(size=(64, 64), width=32)).state_dict()
    assert all(name.startswith("model.") for name in names)
    assert "model.pos_emb.penc.inv_freq" in names


def test_a_published_checkpoint_with_depth_is_known_by_its_halves(tmp_path: Path) -> None:
    method = small("depth=true")
    torch.save(method.network.state_dict(), tmp_path / "dome_model.pkl")
    loaded = load_official(Transfusion, [tmp_path / "dome_model.pkl"], ["size=32x48"])
    for name in ("depth", "width", "multipliers", "attention_levels", "blocks"):
        assert getattr(loaded.config, name) == getattr(method.config, name)


def test_the_scale_of_depth_is_not_trained() -> None:
    with pytest.raises(ConfigError, match="leave them out"):
        small("depth=true", "depth_values=-1,-0.5").stages(TrainingData(np.zeros((1, 32, 48, 4), np.uint8)))


@pytest.mark.parametrize("preset", Transfusion.presets)
def test_a_norm_is_over_two_channels_or_more(preset: str) -> None:
    """A norm over one channel removes the constant that the embedded time adds to it."""
    with torch.device("meta"):
        network = TransfusionNetwork(configure(Transfusion, preset))  # type: ignore[arg-type]
    norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    assert norms
    assert all(norm.num_channels >= 2 * norm.num_groups for norm in norms)


@pytest.mark.parametrize(("norm_groups", "reaches"), [(32, False), (16, True)])
def test_the_time_passes_the_norm_that_follows_it(norm_groups: int, reaches: bool) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(32, 32, BlockConfig(128, 1, norm_groups)).double()
    x, (early, late) = torch.randn(1, 32, 6, 5).double(), torch.randn(2, 1, 128).double()
    assert torch.allclose(block(x, early), block(x, late), atol=1e-3) is not reaches


def test_a_run_from_before_there_were_norm_groups_keeps_its_32() -> None:
    stored = schema.write(configure(Transfusion, "nano"))
    del stored["norm_groups"]
    assert schema.read(TransfusionConfig, stored).norm_groups == 32


def test_the_position_is_the_sine_of_the_row() -> None:
    wave = UNet(3, 32, (1,), (), 1).pos_emb(5, 3)
    assert wave.shape == (1, 1, 5, 3)
    assert wave[0, 0, :, 1].tolist() == pytest.approx([math.sin(row) for row in range(5)])
    assert torch.equal(wave[..., 0], wave[..., 2])


def test_attention_is_the_published_one() -> None:
    torch.manual_seed(0)
    block, x = AttentionBlock(6), torch.randn(2, 6, 3, 4)
    tokens = x.view(2, 6, 12).permute(0, 2, 1)
    query, key, value = torch.chunk(block.projection(tokens).view(2, 12, 1, 18), 3, dim=-1)
    weights = (torch.einsum("bihd,bjhd->bijh", query, key) * 6**-0.5).softmax(dim=2)
    expected = block.output(torch.einsum("bijh,bjhd->bihd", weights, value).view(2, 12, 6)) + tokens
    assert torch.allclose(block(x), expected.permute(0, 2, 1).view(x.shape), atol=1e-6)


@pytest.mark.parametrize("channels", [3, 4])
def test_losses_vanish_for_right_predictions_and_are_the_published_ones(channels: int) -> None:
    normal, anomaly, mask = parts(channels)
    opacity = torch.tensor([3 / LAST, 1.0])[:, None, None, None]
    x = blend(normal, anomaly, mask, opacity)
    right = losses((anomaly * opacity, normal, mask * 60 - 30), x, normal, anomaly, mask, opacity)
    assert all(float(loss) < 1e-6 for loss in right.values())
    logits = torch.randn(mask.shape, generator=torch.Generator().manual_seed(1))
    wrong = losses((anomaly * opacity + 0.1, normal - 0.2, logits), x, normal, anomaly, mask, opacity)
    assert float(wrong["anomaly"]) == pytest.approx(0.01, rel=1e-4)
    p = logits.sigmoid()
    p_t, alpha = torch.where(mask > 0, p, 1 - p), torch.where(mask > 0, 0.25, 0.75)
    focal = (-alpha * (1 - p_t) ** 2 * p_t.log()).mean()
    smooth = (0.5 * (p - mask) ** 2).mean()
    assert float(wrong["mask"]) == pytest.approx(float(5 * focal + smooth), rel=1e-5)
    assert float(wrong["normal"]) == pytest.approx(
        0.2 + published_ssim(normal[:, :3] - 0.2, normal[:, :3], 2.0), rel=1e-4
    )
    found = advance(x, anomaly * opacity + 0.1, normal - 0.2, (p > 0.5).float(), opacity, 1 / LAST)
    assert float(wrong["image"]) == pytest.approx(
        float(((found - blend(normal, anomaly, mask, opacity - 1 / LAST)) ** 2).mean()), rel=1e-4
    )
    assert ("normal_depth" in wrong) == ("anomaly_depth" in wrong) == (channels == 4)
    if channels == 4:
        depth, hill = normal[:, 3:], (anomaly * opacity)[:, 3:]
        assert float(wrong["normal_depth"]) == pytest.approx(0.2 + published_ssim(depth - 0.2, depth, 2.0), rel=1e-4)
        assert float(wrong["anomaly_depth"]) == pytest.approx(0.01 + published_ssim(hill + 0.1, hill, 1.0), rel=1e-4)


def published_ssim(found: Tensor, target: Tensor, span: float) -> float:
    """One minus the mean SSIM, straight from its formula."""
    line = torch.exp(-(torch.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2))
    window = (line[:, None] * line / line.sum() ** 2).expand(found.shape[1], 1, 11, 11)

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(values, window, padding=5, groups=found.shape[1])

    mean_f, mean_t = mean(found), mean(target)
    variances = mean(found**2) - mean_f**2 + mean(target**2) - mean_t**2
    covariance, c1, c2 = mean(found * target) - mean_f * mean_t, (0.01 * span) ** 2, (0.03 * span) ** 2
    ssim = (2 * mean_f * mean_t + c1) * (2 * covariance + c2) / ((mean_f**2 + mean_t**2 + c1) * (variances + c2))
    return float(1 - ssim.mean())


def test_the_image_loss_does_not_reach_the_mask() -> None:
    normal, anomaly, mask = parts()
    opacity = torch.full((2, 1, 1, 1), 0.5)
    logits = torch.zeros_like(mask).requires_grad_()
    predicted = (anomaly.clone().requires_grad_(), normal.clone(), logits)
    result = losses(predicted, blend(normal, anomaly, mask, opacity), normal, anomaly, mask, opacity)
    result["image"].backward(retain_graph=True)  # the appearances' gradients
    assert logits.grad is None
    assert torch.autograd.grad(result["mask"], logits)[0].abs().sum() > 0


class Spy(nn.Module):
    """Stands for the U-Net: predicts nothing, with a fixed probability, and remembers what it was given."""

    def __init__(self, probability: float = 0.5) -> None:
        super().__init__()
        self.logit, self.seen = math.log(probability / (1 - probability)), []  # type: ignore[var-annotated]

    def forward(self, x: Tensor, previous: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.seen.append((x, previous, time))
        return torch.zeros_like(x), torch.zeros_like(x), torch.full_like(previous, self.logit)


@pytest.mark.parametrize(("batch", "kept"), [(1, 1), (2, 1), (5, 2), (8, 4)])
def test_the_first_half_of_a_batch_has_anomalies(batch: int, kept: int) -> None:
    method = small()
    method.network.model = spy = Spy()  # type: ignore[assignment]
    normal = torch.rand(batch, 3, 32, 48)
    ones = torch.ones(batch, 1, 32, 48)
    method.network(
        {"normal": normal, "anomaly": -ones.expand(-1, 3, -1, -1), "mask": ones, "previous": ones}
        | {"time": torch.full((batch,), LAST)}
    )
    x, previous, _ = spy.seen[0]
    assert torch.allclose(x[:kept], torch.tensor(-1.0), atol=1e-6)
    assert torch.equal(x[kept:], normal[kept:])
    assert previous[:kept].all()
    assert not previous[kept:].any()


def test_examples_are_drawn_as_published() -> None:
    config = TransfusionConfig(size=(64, 64), structural_share=0.5)
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    everywhere = np.ones((64, 64), np.bool_)
    textures = np.zeros((1, 64, 64, 3), np.uint8)
    drawn = [draw_example(np.random.default_rng(n), frame, everywhere, textures, config) for n in range(600)]
    times = np.array([example.time for example in drawn])
    assert (times.min(), times.max()) == (1, LAST)
    assert not any(example.previous.any() for example in drawn if example.time == LAST)
    earlier = [example for example in drawn if example.time < LAST and example.mask.any()]
    same = np.mean([np.array_equal(example.previous, example.mask) for example in earlier])
    empty = np.mean([not example.previous.any() for example in earlier])
    more = np.mean([example.previous.sum() > example.mask.sum() for example in earlier])
    assert 0.19 < same < 0.32
    assert 0.19 < empty < 0.45  # a quarter, and where the threshold was above the highest peak
    assert 0.19 < more < 0.31
    rotated = np.mean([not np.array_equal(example.normal, to_rgb(frame)) for example in drawn])
    assert 0.24 < rotated < 0.36
    for example in drawn[:100]:
        assert np.abs(example.normal).max() <= 1
        assert not example.anomaly[~example.mask].any()
    again = draw_example(np.random.default_rng(7), frame, everywhere, textures, config).arrays()
    assert all(np.array_equal(again[name], value) for name, value in drawn[7].arrays().items())


def test_anomalies_stay_on_the_part() -> None:
    config = TransfusionConfig(size=(64, 64), rotate_share=0.0)
    part = np.zeros((64, 64), np.bool_)
    part[20:40, 10:30] = True
    frame = np.full((64, 64, 3), 90, np.uint8)
    none = np.empty((0, 64, 64, 3), np.uint8)
    drawn = [draw_example(np.random.default_rng(n), frame, part, none, config) for n in range(40)]
    assert any(example.mask.any() for example in drawn)
    assert not any((example.mask | example.previous)[~part].any() for example in drawn)


def test_colours_are_rgb_in_minus_1_to_1_and_come_back() -> None:
    frame = np.arange(256 * 3, dtype=np.int64).reshape(16, 16, 3).astype(np.uint8)
    assert np.array_equal(to_frame(to_rgb(frame)), frame)
    blue = np.zeros((1, 1, 3), np.uint8)
    blue[..., 0] = 255
    assert to_rgb(blue)[0, 0].tolist() == [-1, -1, 1]


@pytest.mark.parametrize("steps", [1, 4, 18])
def test_the_score_of_a_constant_mask(steps: int) -> None:
    """The published mean of 18 masks divides by 19. The probability is below one half, so the image stays."""
    config = TransfusionConfig(size=(32, 32), reverse_steps=steps)
    spy = Spy(0.3)
    frames = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    scores, maps = ReferenceModel(spy, config)(frames)  # type: ignore[arg-type]
    assert float(scores) == pytest.approx(0.95 * 18 * 0.3 / 19, rel=1e-5)
    assert float(maps[0, 16, 16]) == pytest.approx(float(scores), rel=1e-5)
    assert float(maps[0, 0, 0]) == pytest.approx(float(scores) * 16 / 49, rel=1e-5)  # zeros outside
    assert [int(time[0]) for _, _, time in spy.seen] == [time for time, _ in schedule(steps)]
    assert not spy.seen[0][1].any()
    assert torch.equal(spy.seen[-1][0], spy.seen[0][0])  # bit by bit what came in


def test_the_reconstruction_counts_with_its_weight() -> None:
    """A mask everywhere and a black good appearance: nothing of the image is left."""

    class Grey(Spy):
        def forward(self, x: Tensor, previous: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            super().forward(x, previous, time)
            return x, torch.zeros_like(x), torch.full_like(previous, 50.0)

    frames = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8)
    config = TransfusionConfig(size=(32, 32), reverse_steps=1, reconstruction_weight=0.5)
    scores, _ = ReferenceModel(Grey(), config)(frames)  # type: ignore[arg-type]
    change = (1 - (0 * 0.5 + 0.5)) ** 2  # x − (Δ/β)·x with Δ = β: nothing is left
    assert float(scores) == pytest.approx(0.5 * 18 / 19 + 0.5 * change, rel=1e-5)


@pytest.mark.parametrize("channels", [3, 4])
def test_each_rewritten_part_is_exact(channels: int) -> None:
    """Projection with its border, blocks with their time, attention, heads: the network's own, up to rounding."""
    torch.manual_seed(0)
    config = TransfusionConfig(size=(16, 24), width=64, multipliers=(1, 2), attention_levels=(1,), reverse_steps=3)
    network = UNet(channels, 64, config.multipliers, config.attention_levels, config.blocks).eval()
    settle(network)
    graph = ExportModel(network, config)
    x, mask = torch.rand(2, channels, 16, 24) * 2 - 1, (torch.rand(2, 1, 16, 24) > 0.5).float()
    bgr = [2, 1, 0, *range(3, channels)]
    with torch.no_grad():
        for given in (mask, torch.zeros_like(mask)):
            projected = network.project(x, given)
            found = graph.project(x[:, bgr], given if given.any() else None)
            assert torch.allclose(found, projected, atol=1e-5)
        for step, (time, next_time) in enumerate(schedule(3)):
            features = network.features(projected, network.time_emb(torch.full((2,), time)))
            assert torch.allclose(graph.network.features(projected, step), features, atol=2e-5)  # type: ignore[arg-type]
            scaled, normal, _ = network.heads(features)
            moved = advance(x, scaled, normal, mask, time / LAST, (time - next_time) / LAST)
            assert torch.allclose(x + (mask * graph.head(features, step))[:, bgr], moved, atol=1e-5)


def test_depth_becomes_what_the_published_code_computes() -> None:
    """(z − far) / (far − near), 0 where nothing is; small holes take the mean of their neighbours, twice."""
    codes = torch.zeros(1, 1, 9, 9)
    codes[..., :3] = torch.tensor([1.0, 128.0, 255.0])
    codes[..., 4, 1] = 0
    found = to_depth(codes)[0, 0]
    assert found[0, :3].tolist() == pytest.approx([-1, -0.5, 0])
    assert float(found[4, 1]) == pytest.approx((2 * 128 + 3 * 1 + 3 * 255) / 8 / 254 - 255 / 254)
    assert float(found[0, 3]) == pytest.approx(0)  # next to 255
    assert not found[:, 5:].any()  # farther from any measurement than two pixels
    hole = torch.full((1, 1, 9, 9), 100.0)
    hole[..., 2:7, 2:7] = 0
    filled = to_depth(hole)[0, 0]
    assert float(filled[4, 4]) == 0
    filled[4, 4] = filled[0, 0]
    assert torch.allclose(filled, torch.tensor(-155 / 254))


def test_examples_with_depth_are_displaced_where_their_colours_change() -> None:
    config = TransfusionConfig(size=(64, 64), depth=True, rotate_share=0.0, depth_shift=0.2)
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 4), dtype=np.uint8)
    frame[:, :, 3] = 100
    frame[:, 40:, 3] = 0
    none, everywhere = np.empty((0, 64, 64, 3), np.uint8), np.ones((64, 64), np.bool_)
    drawn = [draw_example(np.random.default_rng(n), frame, everywhere, none, config) for n in range(60)]
    shifts = np.stack([example.anomaly[:, :, 3] for example in drawn])
    masks = np.stack([example.mask for example in drawn])
    assert not masks[:, :, 42:].any()  # nothing was measured there, nor beside
    assert not shifts[~masks].any()
    assert (shifts != 0)[masks].mean() > 0.99
    assert 0.15 < shifts.max() <= 0.2
    assert -0.2 <= shifts.min() < -0.15
    assert np.allclose(drawn[0].normal[:, :40, 3], (100 - 255) / 254)
    without = TransfusionConfig(size=(64, 64), rotate_share=0.0)
    colour = draw_example(np.random.default_rng(3), frame[:, :, :3], everywhere, none, without)
    assert np.array_equal(colour.anomaly[:, :40], drawn[3].anomaly[:, :40, :3])


def test_hills_and_hollows_begin_at_the_threshold() -> None:
    noise = np.array([[-0.9, -0.7, -0.5, 0.2, 0.5, 0.55, 0.6]], np.float32)
    assert displacement(noise)[0].tolist() == pytest.approx([-1, -0.5, 0, 0, 0, 0.5, 1], abs=1e-6)
    assert not displacement(np.zeros((3, 3), np.float32)).any()


def test_frames_with_depth_come_back() -> None:
    frame = np.random.default_rng(0).integers(1, 255, (16, 16, 4), dtype=np.uint8)
    assert np.array_equal(to_frame(to_image(frame)), frame)
    frame[2:9, 2:9, 3] = 0
    assert not to_frame(to_image(frame))[5, 5, 3]


def test_depth_counts_in_the_map_as_published() -> None:
    """A quarter of the squared change of the depth itself; colours are taken in [0, 1]."""

    class Flat(Spy):
        def forward(self, x: Tensor, previous: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            scaled = torch.cat([torch.zeros_like(x[:, :3]), x[:, 3:] + 1.5], dim=1)
            return scaled, torch.zeros_like(x), torch.full_like(previous, 50.0)

    frames = torch.full((1, 32, 32, 4), 1, dtype=torch.uint8)
    config = TransfusionConfig(size=(32, 32), depth=True, reverse_steps=1, reconstruction_weight=1.0)
    scores, _ = ReferenceModel(Flat(), config)(frames)  # type: ignore[arg-type]
    assert float(scores) == pytest.approx((-1 + 1.5) ** 2 / 4, rel=1e-4)  # x − (Δ/β)·(x + 1.5) with Δ = β


@pytest.mark.parametrize(
    "settings",
    [
        ("depth=true", "multipliers=1,2", "attention_levels=1", "reverse_steps=2"),
        pytest.param(("reverse_steps=18", "attention_levels=", "multipliers=1", "size=16x24"), marks=pytest.mark.long),
        ("reverse_steps=1", "reconstruction_weight=0", "attention_levels=1"),
    ],
)
def test_the_graph_is_the_published_inference(settings: tuple[str, ...], tmp_path: Path) -> None:
    method = small("multipliers=1,1", *settings)
    settle(method.network)
    channels = method.config.channels
    frames = np.random.default_rng(0).integers(0, 256, (3, *method.config.size, channels), dtype=np.uint8)
    frames[:, 5:20, 5:20, 3:] = 0
    write_onnx(method.export_model(), method.config.size, tmp_path / "model.onnx", channels=channels)
    reference = run_reference(method.reference_model(), frames)
    assert reference.maps.std() > 1e-3
    check_parity(reference, *OnnxRuntimeEngine(tmp_path / "model.onnx").infer(frames))


def test_weights_are_shared_by_the_steps(tmp_path: Path) -> None:
    sizes = []
    for steps in (1, 3):
        method = small(f"reverse_steps={steps}", "multipliers=1,1", "attention_levels=")
        write_onnx(method.export_model(), method.config.size, tmp_path / "model.onnx")
        sizes.append((tmp_path / "model.onnx").stat().st_size)
    weights = sum(value.numel() * 4 for value in small("multipliers=1,1").network.parameters())
    assert sizes[1] - sizes[0] < 0.5 * weights


def test_what_is_sensitive_is_there() -> None:
    modules = dict(small().export_model().named_modules())
    assert all(name in modules for name in Transfusion.sensitive)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": (100, 64)}, "multiples of 8, not 100x64"),
        ({"width": 48}, "multiple of 32"),
        ({"width": 36, "norm_groups": 12}, "multiple of 8"),
        ({"norm_groups": 0}, "norm_groups"),
        ({"attention_levels": (4,)}, "between 0 and 3"),
        ({"reverse_steps": 19}, "from 1 to 18"),
        ({"reverse_steps": 0}, "from 1 to 18"),
        ({"foreground": "left"}, "foreground is one of"),
        ({"structural_share": 2.0}, "from 0 to 1"),
        ({"depth_shift": -0.1}, "from 0 to 1"),
        ({"blocks": 0}, "from 1 to"),
    ],
)
def test_configurations_that_make_no_sense(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TransfusionConfig(**values)  # type: ignore[arg-type]


def test_the_schedule_of_the_published_code() -> None:
    factors = [TransfusionConfig().learning_rate_factor(step, 1500) for step in (0, 799, 800, 1499)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1])


@pytest.mark.long
def test_it_overfits_a_toy_set(tmp_path: Path) -> None:
    """Eight striped images: after a few small steps it must find opaque anomalies on them."""
    rng = np.random.default_rng(0)
    phases = rng.uniform(0, 2 * np.pi, 8)
    stripes = [127 + 90 * np.sin(np.arange(32)[None, :, None] / 3 + phase + np.zeros((32, 1, 3))) for phase in phases]
    normals = np.stack(stripes).astype(np.uint8)
    settings = ("size=32", "multipliers=1,1", "steps=120", "batch_size=4", "rotate_share=0", "structural_share=0")
    settings += ("reverse_steps=1",)
    torch.manual_seed(0)
    method = Transfusion(configure(Transfusion, "nano", settings))  # type: ignore[arg-type]
    data = TrainingData(normals)
    fit(method, method.stages(data), tmp_path, seed=0, device="cpu")
    frames, masks = [], []
    for number in range(24):
        everywhere = np.ones((32, 32), np.bool_)
        made = draw_example(
            np.random.default_rng((1, number)), normals[number % 8], everywhere, data.textures, method.config
        )
        frames.append(to_frame(np.where(made.mask[:, :, None], made.anomaly, made.normal)))
        masks.append(made.mask)
    found, good = (run_reference(method.reference_model(), each) for each in (np.stack(frames), normals))
    assert metrics.rank(np.stack(masks), found.maps).auroc() > 0.75  # its 7×7 mean is wide at this size
    scores = np.concatenate([good.scores, found.scores[np.any(masks, axis=(1, 2))]])
    assert metrics.rank(np.arange(len(scores)) >= len(normals), scores).auroc() > 0.9


@pytest.mark.long
def test_where_no_anomaly_can_be_it_is_said_and_not_looked_for_forever() -> None:
    """The part is bright and too shiny to be measured; the dark ground beside it has depth."""
    frames = np.zeros((3, 32, 32, 4), np.uint8)
    rows, columns = np.mgrid[:32, :32]
    shiny = np.hypot(rows - 16, columns - 16) < 6
    frames[:, shiny, :3] = 200
    frames[:, np.hypot(rows - 16, columns - 16) > 14, 3] = 120
    settings = ["depth=true", "size=32", "foreground=bright", "steps=2", "batch_size=2"]
    method, data = Transfusion(configure(Transfusion, "nano", settings)), TrainingData(frames)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"(?s)no image has measured depth where its part was found.*foreground="):
        method.stages(data)
    with pytest.raises(DataError, match="Nowhere is left"):
        method.example(data, np.random.default_rng(0))
    frames[0, shiny, 3] = 100
    assert method.stages(data)
    mask = method.example(data, np.random.default_rng(0))["mask"]
    assert mask.any()
    assert not (mask & (np.hypot(rows - 16, columns - 16) > 10)).any()
