"""DifferNet: the flow's mathematics, the fixed angles, the map, the cache."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy.linalg import lstsq
from torch import nn

from edgead.errors import ConfigError
from edgead.export.graph.to_onnx import write_onnx
from edgead.export.inference import run_reference
from edgead.export.parity import check_parity
from edgead.metrics import rank
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.train.backbones import Backbone, normalise
from edgead.train.configuration import configure
from edgead.train.fit import fit
from edgead.train.method import Arrays, TrainingData
from edgead.train.methods.differnet.config import DiffernetConfig
from edgead.train.methods.differnet.method import Differnet
from edgead.train.methods.differnet.network import Coupling, DiffernetNetwork, Flow, Permutation
from edgead.train.methods.differnet.rotation import rotate_frame, rotation_index

SMALL = ["size=64x96", "blocks=2", "hidden=8", "views=3", "cached_views=4", "steps=3", "batch_size=2"]


def small(seed: int = 0, *settings: str) -> Differnet:
    torch.manual_seed(seed)
    return Differnet(configure(Differnet, "nano", [*SMALL, *settings]))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def fitted(frames: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Differnet:
    method = small()
    fit(method, method.stages(TrainingData(frames)), tmp_path_factory.mktemp("run"), seed=0, device="cpu")
    return method


def flow(dimensions: int = 16, blocks: int = 8, hidden: int = 32) -> Flow:
    torch.manual_seed(0)
    return Flow(dimensions, blocks, hidden, 3.0).double()


def test_the_flow_inverts() -> None:
    y = torch.randn(32, 16, dtype=torch.float64) * 3
    net = flow()
    assert (net.inverse(net(y)[0]) - y).abs().max() < 1e-10


def test_features_of_any_size_reach_the_flow_alike() -> None:
    """A backbone whose features were 300 times smaller spent all of a training on scaling, and found no defect."""
    frames = np.random.default_rng(0).integers(0, 256, (5, 64, 96, 3), dtype=np.uint8)
    reached = []
    for factor in (1.0, 1 / 300):
        method = small()
        extractor = method.network.feature_extractor
        extractor.register_forward_hook(lambda _, __, found, factor=factor: [each * factor for each in found])
        [stage] = method.stages(TrainingData(frames))
        assert stage.prepare
        stage.prepare(torch.device("cpu"), iter)
        with torch.no_grad():
            pooled = method.network.pooled(normalise(torch.from_numpy(frames)))
            reached.append(pooled / method.network.unit)
        assert 0.3 < float(reached[-1].std(dim=0).mean()) < 3
    assert torch.allclose(*reached, rtol=1e-3)


def test_the_volume_is_the_jacobians() -> None:
    y, net = torch.randn(16, dtype=torch.float64), flow()
    jacobian = torch.autograd.functional.jacobian(lambda x: net(x[None])[0][0], y)
    assert abs(float((torch.linalg.slogdet(jacobian)[1] - net(y[None])[1]).detach())) < 1e-8


def test_the_curvature_is_that_of_the_score_where_z_is_zero() -> None:
    net = flow()
    for pair in net.steps():  # without shifts, z(0) = 0
        for subnetwork in (pair[1].s1, pair[1].s2):
            for layer in (subnetwork.fc1, subnetwork.fc2, subnetwork.fc2b, subnetwork.fc3):
                nn.init.zeros_(layer.bias)
    d = torch.randn(16, dtype=torch.float64) * 1e-4
    metric = net.curvature(torch.zeros(16, dtype=torch.float64))
    with torch.no_grad():
        assert float(0.5 * d @ metric @ d) == pytest.approx(float(net(d[None])[0].square().mean()), rel=1e-2)
    assert torch.allclose(metric, metric.T)


def test_permutations_are_the_published_ones() -> None:
    assert Permutation(768, 0).order[:6].tolist() == [661, 122, 113, 14, 529, 103]
    assert Permutation(768, 1).order[:6].tolist() == [285, 101, 581, 352, 726, 472]
    assert Permutation(768, 7).order.tolist() == np.random.RandomState(7).permutation(768).tolist()


def test_the_soft_clamp() -> None:
    coupling = Coupling(4, 2, 3.0)
    s = torch.linspace(-1e6, 1e6, 2001, dtype=torch.float64)
    assert torch.equal(coupling.log_scale(s), -coupling.log_scale(-s))
    assert coupling.log_scale(s).abs().max() < 2.998
    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(coupling.log_scale(zero), zero)
    assert float(slope) == pytest.approx(0.636)


def test_a_flow_of_zeros_permutes_and_its_loss_is_half_the_square() -> None:
    method = small()
    for parameter in method.network.nf.parameters():
        nn.init.zeros_(parameter)
    features = torch.randn(2, 3, 1024)
    with torch.no_grad():
        loss = method.network.eval()({"features": features})["likelihood"]
    assert float(loss) == pytest.approx(float(0.5 * features.square().mean()), rel=1e-6)
    z, volume = method.network.nf(features[0])
    assert torch.equal(z.sort(dim=1).values, features[0].sort(dim=1).values)
    assert torch.equal(volume, torch.zeros(3))


def test_official_state_dict_keys() -> None:
    with torch.device("meta"):
        flow_state = Flow(768, 8, 2048, 3.0).state_dict()
    expected = {}
    for block in range(8):
        for side in ("s1", "s2"):
            at = f"module_list.{2 + 2 * block}.{side}"
            for layer, shape in (
                ("fc1", (2048, 384)),
                ("fc2", (2048, 2048)),
                ("fc2b", (2048, 2048)),
                ("fc3", (768, 2048)),
            ):
                expected[f"{at}.{layer}.weight"], expected[f"{at}.{layer}.bias"] = shape, shape[:1]
            for entry in ("weight", "bias", "running_mean", "running_var"):
                expected[f"{at}.bn.{entry}"] = (384,)
            expected[f"{at}.bn.num_batches_tracked"] = ()
    assert {key: tuple(value.shape) for key, value in flow_state.items()} == expected
    assert len(expected) == 16 * (8 + 5)
    assert (
        sum(value.numel() for key, value in flow_state.items() if "running" not in key and "tracked" not in key)
        == 172_089_344
    )
    config = DiffernetConfig(hidden=1)
    keys = (
        DiffernetNetwork(config).state_dict().keys() - {f"nf.{key}" for key in expected} - {"unit", "reference", "seen"}
    )
    layers = {
        f"feature_extractor.features.{number}.{kind}" for number in (0, 3, 6, 8, 10) for kind in ("weight", "bias")
    }
    assert keys == layers


def test_every_second_pixel_is_nearest_neighbour() -> None:
    image = torch.randn(1, 3, 448, 448)
    for scale in (1, 2):
        assert torch.equal(image[:, :, :: 2**scale, :: 2**scale], F.interpolate(image, size=448 // 2**scale))


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (34, 50)])
def test_rotations_are_pillows(size: tuple[int, int]) -> None:
    frame = np.random.default_rng(1).integers(1, 256, (*size, 3), dtype=np.uint8)
    for angle in (0, 17.3, 90, 180, 211.5, -45.1):
        expected = np.asarray(Image.fromarray(frame).rotate(angle))
        assert (rotate_frame(frame, angle) == expected).mean() > 0.995
    if size[0] == size[1]:
        assert np.array_equal(rotate_frame(frame, 90), np.rot90(frame))
    assert np.array_equal(rotation_index(size, 0), np.arange(size[0] * size[1]))


def test_the_graph_is_the_published_score(fitted: Differnet, frames: NDArray[np.uint8]) -> None:
    """Rotate on the host, score every view by itself, average: what the one batched graph must give."""
    network = fitted.network.eval()
    with torch.no_grad():
        scores, _ = fitted.reference_model()(torch.from_numpy(frames))
        for frame, score in zip(frames, scores):
            squares = []
            for angle in (0, 120, 240):
                view = normalise(torch.from_numpy(rotate_frame(frame, angle)[None]))
                scaled = [view] + [F.interpolate(view, size=(64 // 2**s, 96 // 2**s)) for s in (1,)]
                y = torch.cat([network.feature_extractor(x)[0].mean((2, 3)) for x in scaled], dim=1)
                squares.append(float(network.nf(y / network.unit)[0].square().mean()))
            assert float(score) == pytest.approx(np.log1p(np.mean(squares)), rel=1e-5)


def test_the_score_is_monotone_in_z() -> None:
    method = small(0, "views=1")
    for parameter in method.network.nf.parameters():
        nn.init.zeros_(parameter)
    frame = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8))
    with torch.no_grad():
        once = method.reference_model()(frame)[0].expm1()
        for layer in (module for module in method.network.feature_extractor.modules() if isinstance(module, nn.Conv2d)):
            last = layer
        expands = [
            m for name, m in method.network.feature_extractor.named_modules() if name.startswith("features.12.exp")
        ]
        assert last in expands
        for layer in (m for m in expands if isinstance(m, nn.Conv2d)):  # doubles the features, so z
            layer.weight *= 2
            assert layer.bias is not None
            layer.bias *= 2
        assert float(method.reference_model()(frame)[0].expm1()) == pytest.approx(4 * float(once), rel=1e-4)


def test_the_map_adds_up_to_the_scores_rise(frames: NDArray[np.uint8]) -> None:
    method = small(0, "views=1", "scales=1", "map_sigma=0")
    torch.manual_seed(1)
    method.network.reference.copy_(torch.rand(512))
    method.network.unit.fill_(0.5)
    detector = method.reference_model()
    with torch.no_grad():
        _, maps = detector(torch.from_numpy(frames))
        y = method.network.pooled(normalise(torch.from_numpy(frames)))
        away = y - method.network.reference
        rise = 0.5 * (2 * away @ method.network.nf.curvature(2 * method.network.reference) * 2 * away).sum(1)
        # Undo the interpolation, which is linear and has full rank: the cells' mean is then exactly the rise.
        rows, columns = (detector.get_buffer(f"scoring.{name}_out").numpy() for name in ("rows", "columns"))
        cells = np.stack([lstsq(columns.T, lstsq(rows, each)[0].T)[0].T for each in maps.numpy()])
    assert np.allclose(cells.mean(axis=(1, 2)), 2 * rise.log1p().numpy(), rtol=1e-3)


@pytest.mark.parametrize("views", [1, 4, 5])
def test_the_map_shows_the_place_whichever_way_views_are_turned(views: int) -> None:
    torch.manual_seed(0)
    settings = ["size=128", f"views={views}", "blocks=2", "hidden=8", "map_sigma=4"]
    method = Differnet(configure(Differnet, "nano", settings))  # type: ignore[arg-type]
    frames = np.full((1, 128, 128, 3), 90, np.uint8)
    with torch.no_grad():
        plain = np.stack([rotate_frame(frames[0], angle) for angle in method.config.angles()])
        method.network.reference.copy_(method.network.pooled(normalise(torch.from_numpy(plain))).mean(0))
        frames[0, 30:54, 70:102] = np.random.default_rng(0).integers(0, 256, (24, 32, 3))
        _, maps = method.reference_model()(torch.from_numpy(frames))
    weight = (maps[0] - maps[0].median()).clamp(min=0).double() ** 2
    rows, columns = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    assert abs(float((weight * rows).sum() / weight.sum()) - 41.5) < 12
    assert abs(float((weight * columns).sum() / weight.sum()) - 85.5) < 12


def test_parity_of_the_exported_graph(fitted: Differnet, frames: NDArray[np.uint8], tmp_path: Path) -> None:
    write_onnx(fitted.export_model(), (64, 96), tmp_path / "model.onnx")
    engine = OnnxRuntimeEngine(tmp_path / "model.onnx")
    check_parity(run_reference(fitted.reference_model(), frames), *engine.infer(frames))
    same = engine.infer(np.stack([frames[0], frames[0]]))
    assert same[0][0] == same[0][1]


def test_training_follows_the_seed(
    frames: NDArray[np.uint8], fitted: Differnet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for seed, equal in ((0, True), (1, False)):
        again = small(seed)
        fit(again, again.stages(TrainingData(frames)), tmp_path_factory.mktemp("run"), seed=seed, device="cpu")
        pairs = zip(fitted.network.state_dict().values(), again.network.state_dict().values())
        assert all(torch.equal(a, b) for a, b in pairs) is equal


def test_a_stopped_run_goes_on_to_the_same_weights(
    fitted: Differnet, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    """Stopped in the middle of the only stage; what `prepare` computes or freezes is made again."""
    stopped, drawn = small(), 0
    stages = stopped.stages(TrainingData(frames))
    sample = stages[-1].sample

    def stop(rng: np.random.Generator) -> Arrays:
        nonlocal drawn
        drawn += 1
        if drawn > 4:  # the third step's first example
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


def test_cached_features_are_those_of_turned_images(frames: NDArray[np.uint8]) -> None:
    method = small()
    [stage] = method.stages(TrainingData(frames))
    stage.prepare(torch.device("cpu"), iter)
    drawn = stage.sample(np.random.default_rng(4))["features"]
    assert drawn.shape == (4, 1024)
    number = np.random.default_rng(4).integers(len(frames))
    shares = (np.arange(4) + number * 0.6180339887498949 % 1) / 4
    views = np.stack([rotate_frame(frames[number], angle) for angle in 360 * shares - 180])
    with torch.no_grad():
        expected = method.network.pooled(normalise(torch.from_numpy(views))).numpy()
    assert np.allclose(np.sort(drawn, axis=0), np.sort(expected, axis=0), atol=1e-5)
    [uncached] = small(0, "cached_views=0").stages(TrainingData(frames))
    assert uncached.sample(np.random.default_rng(4))["views"].shape == (4, 64, 96, 3)


def test_the_reference_is_the_mean_of_what_was_seen() -> None:
    network = small().network.train()
    seen = torch.rand(3, 2, 4, 1024)
    for features in seen:
        network({"features": features})
    assert torch.allclose(network.reference, seen.reshape(-1, 1024).mean(0), atol=1e-6)
    network.eval()({"features": torch.zeros(1, 1, 1024)})
    assert int(network.seen) == 24


def test_a_flow_separates_shifted_vectors() -> None:
    """The official self-check needs pretrained features; the flow alone needs only vectors."""
    torch.manual_seed(0)
    mix = torch.randn(16, 16)
    network = Flow(16, 4, 32, 3.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(150):
        z, volume = network(torch.randn(128, 16) @ mix + 2)
        loss = (0.5 * z.square().sum(1) - volume).mean() / 16
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        good, bad = (network(torch.randn(500, 16) @ mix + shift)[0].square().mean(1) for shift in (2.0, 8.0))
    labels = np.repeat([False, True], 500)
    assert rank(labels, torch.cat([good, bad]).numpy()).auroc() > 0.99


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("views=0", "views is 0; it must be from 1 to"),
        ("rotate_degrees=0", "--set views=1"),
        ("rotate_degrees=200", "from 0 to 180"),
        ("size=450x447", "multiples of 2"),
        ("cached_views=2", "at least train_views"),
        ("backbone=mobilenet_v2", "--set layer="),
    ],
)
def test_bad_settings(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(Differnet, "nano", [setting])


def test_fixed_orientation_has_angles_within_bounds() -> None:
    assert DiffernetConfig(views=4).angles().tolist() == [0, 90, 180, 270]
    assert DiffernetConfig(views=3, rotate_degrees=9.0).angles().tolist() == pytest.approx([-6, 0, 6])
    assert DiffernetConfig(views=1, rotate_degrees=0.0).angles().tolist() == [0]


@pytest.mark.slow
def test_squares_against_circles(tmp_path: Path) -> None:
    """The authors' self-check, on images of our own: with pretrained features it must be perfect."""
    root = Path(__file__).parents[3].parent / "shared" / "data"
    weights = Path(os.environ.get("EDGEAD_TEST_DATA", root)) / "weights" / "squeezenet1_1_imagenet.pth"
    if not weights.is_file():
        pytest.skip(f"no weights at {weights}; EDGEAD_TEST_DATA names the folder above theirs")
    rng = np.random.default_rng(0)

    def draw(circle: bool) -> NDArray[np.uint8]:
        y, x = np.mgrid[:128, :128] - rng.uniform(58, 70, 2)[:, None, None]
        turn, half = rng.uniform(0, np.pi), rng.uniform(26, 32)
        u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        inside = np.hypot(u, v) < half * 1.13 if circle else np.maximum(np.abs(u), np.abs(v)) < half
        return np.where(inside, 40, 220)[..., None].repeat(3, 2).astype(np.uint8)

    settings = ["size=128", "hidden=64", "blocks=4", "views=4", "cached_views=8", "steps=120"]
    torch.manual_seed(0)
    method = Differnet(configure(Differnet, "nano", settings))  # type: ignore[arg-type]
    method.load_pretrained(weights)
    normals = np.stack([draw(False) for _ in range(16)])
    fit(method, method.stages(TrainingData(normals)), tmp_path, seed=0, device="cpu")
    test = np.stack([draw(index >= 8) for index in range(16)])
    with torch.no_grad():
        scores, _ = method.reference_model()(torch.from_numpy(test))
    assert rank(np.arange(16) >= 8, scores.numpy()).auroc() == 1.0


def test_backbone_is_untouched_by_training(fitted: Differnet) -> None:
    fresh: Backbone = small().network.feature_extractor
    trained = fitted.network.feature_extractor.state_dict()
    assert all(torch.equal(value, trained[key]) for key, value in fresh.state_dict().items())
