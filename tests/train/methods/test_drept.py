"""DRepT: the published architectures, the mixtures' algebra, and that each of its three stages learns."""

from __future__ import annotations

import colorsys
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgead import metrics
from edgead.errors import CheckpointError, ConfigError, DataError
from edgead.export.inference import run_reference
from edgead.train.fit import fit
from edgead.train.method import Donor, Pretraining, TrainingData
from edgead.train.methods.drept.config import DreptConfig
from edgead.train.methods.drept.export_model import ExportModel
from edgead.train.methods.drept.method import Drept, transfer
from edgead.train.methods.drept.mixture import (
    MixtureParameters,
    Mixtures,
    composite,
    drop_unseen,
    opacities,
    pool,
    random_mixture,
    rotate_hue,
    to_arrays,
    to_tensors,
    vary,
)
from edgead.train.methods.drept.network import Discriminator, UNet, check_size, preprocess
from edgead.train.methods.drept.pretraining import DefectFit, DonorNetwork, remove, to_frames
from edgead.train.methods.drept.reference_model import ReferenceModel

SIZE = (64, 96)


def random_mixtures(count: int, components: int = 5, seed: int = 0) -> Mixtures:
    rng = np.random.default_rng(seed)
    drawn = [random_mixture(rng, components) for _ in range(count)]
    return to_tensors({name: np.stack([each[name] for each in drawn]) for name in Mixtures._fields})


def blob(x: float, y: float, sigma: float, colour: tuple[float, float, float], opacity: float) -> Mixtures:
    """One round component."""
    return Mixtures(
        torch.tensor([[colour]], dtype=torch.float32),
        torch.tensor([[[x, y]]], dtype=torch.float32),
        torch.full((1, 1, 2), sigma),
        torch.zeros(1, 1),
        torch.ones(1, 1),
        torch.tensor([opacity]),
    )


def published_names(prefix: str, halvings: int, width: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """State dictionary of the published U-Net, written down from the paper's layer list, independently of the code."""
    names: dict[str, tuple[int, ...]] = {f"{prefix}.0.weight": (width, 3, 3, 3)}
    widths = [width * factor for factor in (1, 2, 4, *[8] * (halvings + 1))]
    levels = [(outer, inner, 4) for outer, inner in itertools.pairwise(widths)] + [(8 * width, 8 * width, 3)] * 3
    ends = [(f"{prefix}.3.weight", (outputs, 2 * width, 3, 3))]
    here = f"{prefix}.2"
    for outer, inner, kernel in levels:
        names[f"{here}.model.0.weight"] = (inner, outer, kernel, kernel)
        names.update(norm_names(f"{here}.model.1", inner))
        ends.append((f"{here}.model.4.weight", (2 * inner, outer, kernel, kernel)))
        names.update(norm_names(f"{here}.model.5", outer))
        here = f"{here}.model.3"
    deep = 8 * width
    names.update({f"{here}.model.0.weight": (deep, deep, 2, 2), f"{here}.model.2.weight": (deep, deep, 1, 1)})
    names[f"{here}.model.3.weight"] = (deep, deep, 2, 2)
    return {**names, **norm_names(f"{here}.model.4", deep), **dict(ends)}


def norm_names(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{prefix}.{name}": (width,) for name in vectors}, f"{prefix}.num_batches_tracked": ()}


@pytest.mark.parametrize(
    ("size", "segmenter", "generator", "discriminator"),
    [(128, 44_448_192, 44_450_496, 663_361), (256, 57_033_152, 57_035_456, 2_765_633)],
)
def test_names_and_shapes_are_the_published_ones(size: int, segmenter: int, generator: int, discriminator: int) -> None:
    with torch.device("meta"):
        networks = UNet(1, 64, (size, size)), UNet(3, 64, (size, size), True), Discriminator(64, (size, size))
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    assert counts == [segmenter, generator, discriminator]
    for outputs, network in ((1, networks[0]), (3, networks[1])):
        expected = published_names("model.model", size // 128, 64, outputs)
        assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == expected


def test_a_published_checkpoint_loads_strictly(tmp_path: Path) -> None:
    """A file with the published names and shapes, as torch.save writes it."""
    torch.manual_seed(0)
    shapes = published_names("model.model", 1, 4, 1)
    stored = {
        name: torch.zeros((), dtype=torch.int64) if name.endswith("tracked") else torch.rand(shape) * 0.1 + 0.5
        for name, shape in shapes.items()
    }
    torch.save(stored, tmp_path / "seg.pth")
    network = UNet(1, 4, (128, 128)).eval()
    network.load_state_dict(torch.load(tmp_path / "seg.pth", weights_only=True), strict=True)
    assert torch.equal(network.state_dict()["model.model.3.weight"], stored["model.model.3.weight"])
    core = network.get_submodule("model.model.2.model.3.model.3.model.3.model.3.model.3.model.3.model.3.model")
    seen: list[tuple[int, ...]] = []
    core[2].register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    assert network(torch.rand(2, 3, 128, 128)).shape == (2, 1, 128, 128)
    assert seen == [(2, 32, 1, 1)]


@pytest.mark.parametrize("size", [(64, 64), (72, 120), (96, 64), (128, 144)])
def test_sizes_that_it_takes(size: tuple[int, int]) -> None:
    check_size(size)
    with torch.device("meta"):
        assert UNet(1, 2, size).eval()(torch.zeros(1, 3, *size)).shape == (1, 1, *size)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": (100, 100)}, r"cannot take 100x100.*multiples of 8(?s:.*)size=96x96"),
        ({"size": (32, 64)}, r"at least 64(?s:.*)size=64x64"),
        ({"size": (256, 272)}, r"or of 16, 32 or 64 if the shorter is(?s:.*)size=256x256"),
        ({"components": 0}, "components is 0; it must be from 1 to"),
        ({"shift": -1.0}, r"shift is -1\.0; it must be at least 0"),
        ({"score_window": 4}, "must be odd"),
        ({"seen_opacity": 1.0}, "must be below 1"),
        ({"random_extent": 0.0}, r"random_extent is 0\.0; it must be above 0 and at most 1"),
    ],
)
def test_configurations_that_make_no_sense(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DreptConfig(**values)  # type: ignore[arg-type]


def test_the_size_that_is_suggested_is_taken_and_the_nearest() -> None:
    def takes(size: tuple[int, int]) -> bool:
        return min(size) >= 64 and not any(side % (8 * 2 ** (min(size).bit_length() - 7)) for side in size)

    taken = [size for size in itertools.product(range(64, 700, 8), repeat=2) if takes(size)]
    sides = np.array(taken)
    for size in itertools.product(range(20, 600, 13), range(20, 600, 29)):
        if takes(size):
            check_size(size)
            continue
        with pytest.raises(ConfigError) as caught:
            check_size(size)
        height, width = str(caught.value).rpartition("=")[2].split("x")
        check_size(suggested := (int(height), int(width)))
        distances = np.abs(sides - size).sum(axis=1)
        assert distances[taken.index(suggested)] == distances.min(), size


def test_the_largest_opacity_is_the_mixtures() -> None:
    mixtures = random_mixtures(6)
    alpha = opacities(mixtures, SIZE)
    total = alpha.sum(dim=1)
    assert alpha.shape == (6, 5, *SIZE)
    assert torch.allclose(total.amax(dim=(1, 2)), mixtures.opacity, atol=1e-6)
    images = torch.rand(6, 3, *SIZE) * 2 - 1
    made = composite(images, alpha, mixtures.colour)
    assert made.abs().max() <= 1 + 1e-6
    white = composite(torch.ones(6, 3, *SIZE), alpha, torch.ones_like(mixtures.colour))
    assert torch.allclose(white, torch.ones_like(white), atol=1e-6)  # transmittance and opacity add up to one


def test_one_component_is_the_closed_form() -> None:
    mixture = Mixtures(
        torch.zeros(1, 1, 3),
        torch.tensor([[[0.2, -0.4]]]),
        torch.tensor([[[0.3, 0.15]]]),
        torch.tensor([[0.6]]),
        torch.tensor([[0.01]]),
        torch.tensor([0.8]),
    )
    x, y = np.meshgrid(np.linspace(-1, 1, SIZE[1]), np.linspace(-1, 1, SIZE[0]))
    zx, zy = (x - 0.2) / 0.3, (y + 0.4) / 0.15
    expected = np.exp(-(zx**2 - 1.2 * zx * zy + zy**2) / (2 * (1 - 0.36)))
    assert np.allclose(opacities(mixture, SIZE)[0, 0].numpy(), 0.8 * expected / expected.max(), atol=1e-6)


def test_mirrored_parameters_give_the_mirrored_image() -> None:
    mixtures = random_mixtures(3)
    flipped = mixtures._replace(mean=mixtures.mean * torch.tensor([-1.0, 1.0]), correlation=-mixtures.correlation)
    assert torch.allclose(opacities(flipped, SIZE), opacities(mixtures, SIZE).flip(3), atol=1e-5)


def test_a_shift_by_whole_pixels_shifts_the_image() -> None:
    step = 2 / (SIZE[1] - 1)
    here = opacities(blob(0.0, 0.0, 0.1, (0, 0, 0), 0.5), SIZE)
    there = opacities(blob(7 * step, 0.0, 0.1, (0, 0, 0), 0.5), SIZE)
    inner = slice(20, 70)
    assert here[..., inner].max() > 0.49
    peak = here.max() / there.max()  # the grid has no point at 0, so the two peaks differ a little
    assert torch.allclose(there[..., 27:77] * peak, here[..., inner], atol=1e-5)


def test_a_mixture_that_left_the_image_gives_no_nan() -> None:
    gone = blob(0.0, 0.0, 0.01, (1, 1, 1), 0.9)._replace(mean=torch.tensor([[[5.0, 5.0]]]))
    image = torch.zeros(1, 3, *SIZE)
    made, mask = transfer(image, gone, DreptConfig(size=SIZE))
    assert torch.equal(made, image)
    assert not mask.any()


def test_unseen_components_are_dropped_and_the_others_stay() -> None:
    images = torch.zeros(1, 3, *SIZE)
    seen, pale = blob(-0.5, 0, 0.1, (1, 0, 0), 0.8), blob(0.5, 0, 0.1, (0.1, 0, 0), 0.8)
    both = Mixtures(*(torch.cat([a, b], dim=1) if a.ndim > 1 else a for a, b in zip(seen, pale)))
    alpha = opacities(both, SIZE)
    kept = drop_unseen(images, alpha, both.colour, 0.15)
    assert torch.equal(kept[:, 0], alpha[:, 0])
    assert alpha[:, 1].max() > 0.5
    assert not kept[:, 1].any()
    assert torch.equal(drop_unseen(images, alpha, both.colour, -1.0), alpha)
    made, mask = transfer(images, pale, DreptConfig(size=SIZE))
    assert torch.equal(made, images)
    assert not mask.any()
    made, mask = transfer(images, both, DreptConfig(size=SIZE))
    assert torch.equal(mask[0, 0], kept[0].sum(dim=0) > 0.15)


def test_turning_the_hue_keeps_value_and_saturation() -> None:
    colours = np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32)
    colours[0] = 0.3  # grey has no hue
    turned = rotate_hue(colours, 100.0)
    assert np.allclose(turned[0], colours[0], atol=1e-6)
    assert np.allclose(turned.max(axis=1), colours.max(axis=1), atol=1e-6)
    assert np.allclose(rotate_hue(colours, 360.0), colours, atol=1e-5)
    for before, after in zip((colours + 1) / 2, (turned + 1) / 2):
        hue, saturation, value = colorsys.rgb_to_hsv(*before.astype(np.float64))
        assert np.allclose(after, colorsys.hsv_to_rgb((hue + 100 / 360) % 1, saturation, value), atol=1e-5)


def test_random_mixtures_of_small_extent_are_small() -> None:
    def share(extent: float) -> float:
        rng = np.random.default_rng(0)
        drawn = [random_mixture(rng, 5, extent) for _ in range(60)]
        mixtures = to_tensors({name: np.stack([each[name] for each in drawn]) for name in Mixtures._fields})
        return float((opacities(mixtures, SIZE).sum(dim=1) > 0.15).float().mean())

    assert share(1.0) > 0.3
    assert 0.02 < share(0.05) < 0.6 * share(1.0)


def test_variants_keep_shape_and_opacity() -> None:
    mixture = random_mixture(np.random.default_rng(0), 6)
    variants = [vary(np.random.default_rng(seed), mixture, 360.0, 1.0) for seed in range(60)]
    for name in ("sigma", "weight", "opacity"):
        assert all(np.array_equal(variant[name], mixture[name]) for variant in variants)
    signs = {tuple(np.sign(variant["correlation"] / mixture["correlation"])) for variant in variants}
    assert signs == {(1.0,) * 6, (-1.0,) * 6}
    for variant in variants:  # mirrored or not, then shifted as a whole
        shifts = [(variant["mean"] - mixture["mean"] * flip) for flip in np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])]
        spread, shift = min((float(np.ptp(each, axis=0).max()), float(np.abs(each).max())) for each in shifts)
        assert spread < 1e-6
        assert shift <= 1
    kept = vary(np.random.default_rng(0), mixture, 0.0, 0.0)
    assert np.allclose(kept["colour"], mixture["colour"], atol=1e-6)


def test_sources_with_different_numbers_of_components_are_pooled() -> None:
    few, many = random_mixtures(2, 3), random_mixtures(4, 7, seed=1)
    pooled = to_tensors(pool([to_arrays(few), to_arrays(many)]))
    assert pooled.weight.shape == (6, 7)
    together = opacities(pooled, SIZE)
    assert torch.allclose(together[:2, :3], opacities(few, SIZE), atol=1e-6)
    assert not together[:2, 3:].any()
    assert torch.allclose(together[2:], opacities(many, SIZE), atol=1e-6)
    with pytest.raises(CheckpointError, match="must hold colour, mean"):
        pool([{"weight": np.ones((2, 3), np.float32)}])


def fit_mixtures(
    defects: MixtureParameters, removed: Tensor, anomalies: Tensor, steps: int, chunk: int = 100, rate: float = 5e-3
) -> None:
    module = DefectFit(defects, 0.2, chunk)
    module.observe(removed, anomalies)
    optimizer = torch.optim.Adam(defects.parameters(), lr=rate, betas=(0.5, 0.999))
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack(list(module({}).values())).sum().backward()
        optimizer.step()


def part_of(defects: MixtureParameters, index: int) -> MixtureParameters:
    one = MixtureParameters(1, defects.weight.shape[1])
    one.load_state_dict({name: value[index : index + 1].clone() for name, value in defects.state_dict().items()})
    return one


@pytest.mark.parametrize("chunk", [100, 2])
def test_all_images_together_give_what_each_gives_alone(chunk: int) -> None:
    torch.manual_seed(0)
    images = torch.rand(5, 3, 16, 24) * 2 - 1
    targets = composite(images, opacities(random_mixtures(5, 2), (16, 24)), random_mixtures(5, 2).colour)
    together = MixtureParameters(5, 4)
    alone = [part_of(together, index) for index in range(5)]
    fit_mixtures(together, images, targets, 40, chunk)
    for index, one in enumerate(alone):
        fit_mixtures(one, images[index : index + 1], targets[index : index + 1], 40)
        for name, value in one.state_dict().items():
            assert torch.allclose(value[0], together.state_dict()[name][index], atol=1e-5), name


def test_a_known_defect_is_found_again() -> None:
    """Two blobs on a flat ground (2,000 small steps on the card; larger ones need fewer)."""
    torch.manual_seed(0)
    ground = torch.zeros(1, 3, 32, 32)
    # Full colours: paler ones could as well be full ones of less opacity.
    first, second = blob(-0.3, 0.2, 0.15, (1, -1, 0), 0.9), blob(0.4, -0.3, 0.2, (-1, 0, 1), 0.9)
    truth = Mixtures(*(torch.cat([a, b], dim=1) if a.ndim > 1 else a for a, b in zip(first, second)))
    alpha = opacities(truth, (32, 32))
    anomaly = composite(ground, alpha, truth.colour)
    defects = MixtureParameters(1, 8)
    fit_mixtures(defects, ground, anomaly, 400, rate=5e-2)
    with torch.no_grad():
        found = opacities(defects(), (32, 32))
        error = (composite(ground, found, defects().colour) - anomaly).square().mean()
    a, b = alpha.sum(dim=1) > 0.3, found.sum(dim=1) > 0.3
    assert float(error) < 1e-3
    assert float((a & b).sum() / (a | b).sum()) > 0.8


def stripes(rng: np.random.Generator, count: int) -> NDArray[np.uint8]:
    columns, phases = np.arange(64)[None, :, None], rng.uniform(0, 6, (count, 1, 1, 1))
    return np.asarray(120 + 50 * np.sin(columns / 4 + phases) + np.zeros((count, 64, 64, 3)), np.uint8)


def scratched(rng: np.random.Generator, frames: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Straight dark or bright scratches, 3 pixels wide."""
    rows, columns = np.mgrid[:64, :64]
    out, masks = frames.copy(), np.zeros(frames.shape[:3], np.bool_)
    for index in range(len(frames)):
        turn, (y, x) = rng.uniform(0, np.pi), rng.uniform(16, 48, 2)
        across = np.abs(np.cos(turn) * (columns - x) + np.sin(turn) * (rows - y))
        along = np.abs(np.cos(turn) * (rows - y) - np.sin(turn) * (columns - x))
        masks[index] = (across < 2) & (along < 14)
        out[index][masks[index]] = 15 if rng.random() < 0.5 else 235
    return out, masks


TOY = DreptConfig(
    size=(64, 64),
    width=8,
    source_width=4,
    components=5,
    batch_size=4,
    removal_steps=4,
    defect_steps=3,
    steps=3,
    learning_rate=1e-3,
)


def toy_source() -> Donor:
    rng = np.random.default_rng(0)
    return Donor("stripes", stripes(rng, 6), scratched(rng, stripes(rng, 5))[0])


def toy_pretraining() -> Pretraining:
    torch.manual_seed(0)
    return Drept(TOY).pretraining(toy_source())


def test_a_pretraining_gives_mixtures_of_all_defects(tmp_path: Path) -> None:
    pretraining = toy_pretraining()
    before = {name: value.clone() for name, value in pretraining.network.state_dict().items()}
    fit(pretraining, pretraining.stages, tmp_path, seed=0, device="cpu")
    learned = pretraining.transferred()
    assert learned["colour"].shape == (5, 5, 3)
    assert all(value.dtype == np.float32 for value in learned.values())
    for part in ("generator", "discriminator", "defects"):
        assert any(
            not torch.equal(value, before[name])
            for name, value in pretraining.network.state_dict().items()
            if name.startswith(part) and "running" not in name
        ), part
    rows = pretraining.picture()
    assert [row.shape for row in rows] == [(5, 64, 64, 3)] * 4
    assert np.array_equal(rows[0], toy_source().anomalies)


def test_the_discriminators_turn_leaves_the_generator_alone() -> None:
    pretraining = toy_pretraining()
    module, network = pretraining.stages[0].module, pretraining.network
    assert isinstance(network, DonorNetwork)
    frames = torch.from_numpy(toy_source().normals[:4])
    batch = {"normal": frames, "anomaly": frames}
    torch.stack(list(module(batch, "discriminator").values())).sum().backward()
    assert all(weight.grad is None for weight in network.generator.parameters())
    assert all(weight.grad is not None for weight in network.discriminator.parameters())
    losses = module(batch, "generator")
    torch.stack(list(losses.values())).sum().backward()
    assert all(weight.grad is not None for weight in network.generator.parameters())
    network.eval()
    made = network.generator(preprocess(frames)).detach()
    assert made.abs().max() <= 1


def test_mixtures_lie_where_the_defect_is() -> None:
    """Scratches, and the same images without them instead of what a removal would give."""
    rng = np.random.default_rng(0)
    clean = stripes(rng, 2)
    bad, masks = scratched(rng, clean)
    torch.manual_seed(0)
    defects = MixtureParameters(2, 10)
    fit_mixtures(defects, preprocess(torch.from_numpy(clean)), preprocess(torch.from_numpy(bad)), 200, rate=5e-2)
    with torch.no_grad():
        opacity = opacities(defects(), (64, 64)).sum(dim=1)
    assert metrics.rank(masks, opacity.numpy()).auroc() > 0.95


@pytest.mark.long
def test_removal_takes_scratches_away(tmp_path: Path) -> None:
    """The clean pictures are known: inside the scratches the error falls, outside it stays small."""
    rng = np.random.default_rng(0)
    clean = stripes(rng, 40)
    anomalies, masks = scratched(rng, clean)
    torch.manual_seed(0)
    config = DreptConfig(**{**TOY.__dict__, "removal_steps": 200, "identity_weight": 10.0})
    pretraining = Drept(config).pretraining(Donor("stripes", stripes(rng, 60), anomalies))
    fit(pretraining, pretraining.stages[:1], tmp_path, seed=0, device="cpu")
    assert isinstance(pretraining.network, DonorNetwork)
    removed = to_frames(remove(pretraining.network, anomalies)).astype(np.float32)
    inside, before = (np.abs(frames[masks] - clean[masks]).mean() for frames in (removed, anomalies.astype(np.float32)))
    assert inside < 0.5 * before
    assert np.abs(removed - clean)[~masks].mean() < 0.06 * before


@pytest.mark.long
def test_it_learns_from_random_mixtures_and_finds_scratches(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    config = DreptConfig(**{**TOY.__dict__, "width": 4, "steps": 250, "batch_size": 8, "random_extent": 0.05})
    torch.manual_seed(0)
    method, data = Drept(config), TrainingData(stripes(rng, 16))
    fit(method, method.stages(data), tmp_path, seed=0, device="cpu")
    drawn = [method.example(TrainingData(stripes(rng, 1)), rng) for _ in range(24)]
    masks = np.stack([example["mask"] for example in drawn])
    made = run_reference(method.reference_model(), np.stack([example["frame"] for example in drawn]))
    assert metrics.rank(masks, made.maps).auroc() > 0.85
    good = run_reference(method.reference_model(), stripes(rng, 12))
    bad = run_reference(method.reference_model(), scratched(rng, stripes(rng, 12))[0])
    labels = np.repeat([False, True], 12)
    assert metrics.rank(labels, np.concatenate([good.scores, bad.scores])).auroc() > 0.8


def test_examples_come_from_the_sources() -> None:
    """A donor with one opaque red blob makes red examples; without hue and shift they are that blob."""
    config = DreptConfig(**{**TOY.__dict__, "hue_degrees": 0.0, "shift": 0.0})
    data = TrainingData(np.zeros((2, 64, 64, 3), np.uint8), donors=(to_arrays(blob(0, 0, 0.2, (1, -1, -1), 0.9)),))
    example = Drept(config).example(data, np.random.default_rng(0))
    assert example["frame"][32, 32].tolist() == pytest.approx([0, 0, 230], abs=2)
    assert example["mask"][32, 32]
    assert not example["mask"][0, 0]
    assert Drept(config).visible(data, np.random.default_rng(0)) == 1


def test_defects_that_cannot_be_seen_give_no_examples() -> None:
    """Black on black. With a red one beside them half of the draws show something, and every example does."""
    black, red = (to_arrays(blob(0, 0, 0.2, colour, 0.9)) for colour in ((-1, -1, -1), (1, -1, -1)))
    method = Drept(DreptConfig(**{**TOY.__dict__, "hue_degrees": 0.0, "shift": 0.0}))
    invisible = TrainingData(np.zeros((2, 64, 64, 3), np.uint8), donors=(black,))
    assert method.visible(invisible, np.random.default_rng(0)) == 0
    with pytest.raises(DataError, match=r"None of 200 defects can be seen(?s:.*)seen_change.*learned\.png"):
        method.example(invisible, np.random.default_rng(0))
    both = TrainingData(invisible.normals, donors=(black, red))
    assert 0.3 < method.visible(both, np.random.default_rng(0)) < 0.7
    rng = np.random.default_rng(0)
    assert all(method.example(both, rng)["mask"][32, 32] for _ in range(20))


def test_the_share_of_images_without_a_defect_is_logged(tmp_path: Path) -> None:
    from edgead.train.step_metrics import read_metrics

    torch.manual_seed(0)
    method = Drept(TOY)
    data = TrainingData(np.zeros((2, 64, 64, 3), np.uint8), donors=(to_arrays(blob(0, 0, 0.2, (-1, -1, -1), 0.9)),))
    config = DreptConfig(**{**TOY.__dict__, "hue_degrees": 0.0})
    method = Drept(config)
    fit(method, method.stages(data), tmp_path, seed=0, device="cpu")
    for entry in read_metrics(tmp_path):
        assert entry.values["empty"] == 1
        assert entry.values["total"] == entry.values["segmentation"]


@pytest.mark.parametrize("window", [1, 5])
@pytest.mark.parametrize("size", [(64, 64), (128, 160)])
def test_the_export_model_equals_the_published_inference(size: tuple[int, int], window: int) -> None:
    torch.manual_seed(0)
    network = UNet(1, 4, size).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    frames = torch.randint(0, 256, (3, *size, 3), dtype=torch.uint8)
    deployable = ExportModel(network, window).eval()
    with torch.no_grad():
        expected, actual = ReferenceModel(network, window).eval()(frames), deployable(frames)
    assert expected[1].std() > 1e-4
    for a, b in zip(expected, actual):
        assert torch.allclose(a, b, atol=1e-6)
    kinds = [type(module) for module in deployable.modules()]
    assert nn.BatchNorm2d not in kinds
    transposed = [module for module in deployable.modules() if isinstance(module, nn.ConvTranspose2d)]
    assert all(module.stride == (2, 2) for module in transposed)


def test_the_input_is_rgb_in_minus_1_to_1() -> None:
    frames = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    frames[..., 0] = 255  # blue
    assert preprocess(frames).amax(dim=(0, 2, 3)).tolist() == [-1, -1, 1]
