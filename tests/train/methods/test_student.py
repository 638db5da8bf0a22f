"""A student: its scale, its levels, what it is shown, and how rounds are taken up again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from level_bundle import make_level_bundle
from torch import nn

from edgead.errors import ConfigError
from edgead.train.configuration import configure
from edgead.train.method import TrainingData
from edgead.train.methods.student import transfer_set
from edgead.train.methods.student.config import StudentConfig
from edgead.train.methods.student.examples import KINDS, draw_anomalous, draw_good, draw_jittered, fade, join, vary
from edgead.train.methods.student.losses import CERTAIN, Imitation, disagreement
from edgead.train.methods.student.method import Student
from edgead.train.methods.student.network import StudentNetwork, compress
from edgead.train.methods.student.transfer_set import TransferSet, find_scale


@pytest.fixture(scope="module")
def data() -> TrainingData:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    disc = np.hypot(y - 32, x - 32) < 20
    frames = np.stack([np.where(disc[:, :, None], 150, 60) + rng.normal(0, 6, (64, 64, 3)) for _ in range(5)])
    return TrainingData(frames.clip(0, 255).astype(np.uint8))


def tiny(folder: Path, **values: object) -> StudentConfig:
    teacher = str(make_level_bundle(folder / "teacher.edgead").path)
    given = {"size": (64, 64), "teacher": teacher, "stem": 4, "widths": (16, 16), "pictures": 24, "rounds": 2, **values}
    return StudentConfig(**given)  # type: ignore[arg-type]


def test_compressed_values_keep_their_order_whatever_their_range() -> None:
    for values in (torch.linspace(-5, 1e6, 50), torch.logspace(-9, 0, 50), torch.linspace(0, 1, 50)):
        good = values[:20].numpy()
        found = compress(values, torch.tensor(find_scale(good, values.numpy())))
        assert (found.diff() > 0).all()
        assert found.abs().max() < 25
    assert float(compress(torch.tensor(3.0), torch.tensor([3.0, 2.0]))) == 0.0


def test_a_map_that_never_changes_on_good_images_has_a_scale() -> None:
    centre, spread = find_scale(np.zeros(10, np.float32), np.array([0, 0, 4], np.float32))
    assert (centre, spread) == (0.0, pytest.approx(0.004))
    assert find_scale(np.ones(10, np.float32), np.ones(10, np.float32))[1] > 0


@pytest.mark.parametrize("stem", [2, 4, 8])
@pytest.mark.parametrize("size", [(64, 96), (65, 97), (75, 90)])
def test_every_level_has_the_size_it_is_said_to_have(stem: int, size: tuple[int, int]) -> None:
    config = StudentConfig(size=size, stem=stem, widths=(16, 16, 32))
    network = StudentNetwork(config).eval()
    frames = torch.zeros(2, *size, 3, dtype=torch.uint8)
    sizes = [tuple(level.shape[2:]) for level in network.encoder(frames)]
    assert sizes == network.encoder.sizes
    scores, maps = network(frames)
    assert scores.shape == (2,)
    assert tuple(maps.shape[1:]) == network.grid == sizes[1 if stem == 2 else 0]


@pytest.mark.parametrize("backbone", ["squeezenet1_1", "resnet18"])
@pytest.mark.parametrize("levels", [3, 5])
@pytest.mark.parametrize("size", [(64, 96), (65, 97), (75, 90)])
def test_a_backbones_levels_are_decoded_whatever_their_size(backbone: str, levels: int, size: tuple[int, int]) -> None:
    network = StudentNetwork(StudentConfig(size=size, backbone=backbone, widths=(16,) * levels)).eval()
    frames = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    assert [tuple(level.shape[2:]) for level in network.encoder(frames)] == network.encoder.sizes
    scores, maps = network(frames)
    assert scores.shape == (2,)
    assert tuple(maps.shape[1:]) == network.grid == network.encoder.sizes[0]
    assert all(abs(cells - side / 4) <= 1.5 for cells, side in zip(network.grid, size))


def test_a_backbone_is_not_trained() -> None:
    torch.manual_seed(0)
    network = StudentNetwork(StudentConfig(size=(64, 64), backbone="squeezenet1_1", widths=(16, 16)))
    nn.init.normal_(network.head.weight)
    frames = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    network.train()(frames)[0].sum().backward()
    learned = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    frozen = {name for name, _ in network.named_parameters()} - learned
    assert frozen == {name for name, _ in network.named_parameters() if ".backbone." in name}


def test_a_score_is_that_of_the_worst_place_and_of_the_whole_image() -> None:
    network = StudentNetwork(StudentConfig(size=(64, 64), stem=4, widths=(16, 16)))
    planes = torch.zeros(3, 3, 16, 16)
    planes[1, 0, 3, 4], planes[1, 1, 3, 4] = 2, 3  # the map, and what is added to it
    planes[2, 2, :8] = 4
    assert network.score(planes).tolist() == [0, 5, 2]


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 to 5 levels with a backbone, not 6"):
        StudentConfig(backbone="squeezenet1_1", widths=(16,) * 6)
    with pytest.raises(ConfigError, match="backbone must be 32 pixels or more"):
        StudentConfig(backbone="squeezenet1_1", widths=(16, 16), size=(16, 64))
    with pytest.raises(ConfigError, match="must be one of nothing, alexnet, squeezenet1_1"):
        configure(Student, "paper", ("backbone=squeezenet",))
    with pytest.raises(ConfigError, match="2 to 5 levels"):
        StudentConfig(widths=(16,))
    with pytest.raises(ConfigError, match="3 levels or more"):
        StudentConfig(widths=(16, 16))
    with pytest.raises(ConfigError, match="64 pixels or more"):
        StudentConfig(size=(32, 256), stem=4, widths=(16,) * 5)
    with pytest.raises(ConfigError, match="stem must be 2, 4 or 8"):
        StudentConfig(stem=3)


def test_rounds_share_steps_and_pictures() -> None:
    config = StudentConfig(pictures=101, rounds=4)
    assert sum(config.round_pictures()) == 101
    assert config.round_pictures()[0] == 50
    assert sum(config.round_steps(1001)) == 1001
    assert StudentConfig(rounds=1, pictures=7).round_pictures() == [7]
    assert config.learning_rate_factor(0, 10) == 1.0
    assert config.learning_rate_factor(9, 10) < 0.05


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_anomaly_can_be_seen_and_repeated(kind: object, data: TrainingData) -> None:
    assert callable(kind)
    good = data.normals[0]
    drawn = [[kind(np.random.default_rng(seed), good, data) for seed in range(12)] for _ in range(2)]
    assert all(np.array_equal(first, second) for first, second in zip(*drawn))
    assert all(frame.shape == good.shape and frame.dtype == np.uint8 for frame in drawn[0])
    changed = [np.abs(frame.astype(int) - good).max() >= 6 for frame in drawn[0]]
    assert np.mean(changed) > 0.5


def test_drawn_images(data: TrainingData) -> None:
    config, rng = StudentConfig(size=(64, 64)), np.random.default_rng(3)
    frame, mask = draw_anomalous(rng, data, config)
    assert mask.sum() >= 5
    assert frame.shape == vary(rng, frame, data, config).shape == draw_good(rng, data, config).shape
    still = StudentConfig(size=(64, 64), shift=0.0, turn=0.0, light=0.0)
    unmoved = draw_jittered(rng, data, still)
    assert any(np.array_equal(unmoved, each) for each in data.normals)


def test_joined_images_are_made_of_both() -> None:
    black, white = np.zeros((64, 96, 3), np.uint8), np.full((64, 96, 3), 255, np.uint8)
    for seed in range(6):
        joined = join(np.random.default_rng(seed), black, white)
        assert joined.dtype == np.uint8
        assert joined.min() < 100 < 155 < joined.max()
        assert np.array_equal(join(np.random.default_rng(seed), black, black), black)


def test_faded_anomalies_are_between_the_good_image_and_the_anomalous_one() -> None:
    rng, good, anomalous = np.random.default_rng(0), np.full((8, 8, 3), 200, np.uint8), np.zeros((8, 8, 3), np.uint8)
    anomalous[4:] = 200
    levels = [int(fade(rng, good, anomalous)[0, 0, 0]) for _ in range(50)]
    assert min(levels) < 40
    assert max(levels) > 160
    assert (fade(rng, good, anomalous)[4:] == 200).all()


def test_scores_disagree_only_where_a_threshold_can_be_between_them() -> None:
    found, wanted = torch.tensor([-3.0, 9.0, 0.2, CERTAIN + 1, -1.0]), torch.tensor([-1.0, 4.0, 0.9, 0.0, 0.5])
    assert disagreement(found, wanted).tolist() == pytest.approx([0, 0, 0.7, CERTAIN, 0.5])


def test_the_teacher_is_asked_once_and_hard_images_are_found_again(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path)
    torch.manual_seed(0)
    network = StudentNetwork(config)
    stored = TrainingData(data.normals, cache=tmp_path / "features-0")
    first = TransferSet(stored, config, network)
    for number, count in enumerate(config.round_pictures()):
        first.add(number, count, lambda items: items)
    assert first.counts == [12, 12]
    assert len(first.hard) == 3
    assert float(network.map_scale[1]) > 0
    row = first.draw(np.random.default_rng(0))
    assert row["map"] == pytest.approx(_cells(row["frames"].mean(axis=2), network.grid), abs=0.6)
    assert float(row["score"]) == pytest.approx(float(row["frames"].mean(axis=2).max()), abs=0.01)

    # A stopped run, whose network has learned more since, takes up what there is.
    asked = []
    monkeypatch.setattr(transfer_set.Teacher, "outputs", lambda *_: asked.append(1))
    other = StudentNetwork(config)
    again = TransferSet(stored, config, other)
    again.add(1, 12, lambda items: items)
    assert (again.hard, again.counts, asked) == (first.hard, first.counts, [])
    for seed in range(5):
        one, two = (each.draw(np.random.default_rng(seed)) for each in (first, again))
        assert all(np.array_equal(one[name], two[name]) for name in one)


def _cells(plane: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    rows, columns = plane.shape[0] // grid[0], plane.shape[1] // grid[1]
    return plane.reshape(grid[0], rows, grid[1], columns).mean(axis=(1, 3))


def _values(imitation: Imitation, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    with torch.no_grad():
        return {name: float(loss) for name, loss in imitation(batch).items()}


def test_large_errors_where_the_teacher_sees_something_count_most() -> None:
    config = StudentConfig(size=(64, 64), stem=4, widths=(16, 16))
    imitation = Imitation(StudentNetwork(config)).eval()
    frames, flat = torch.zeros(1, 64, 64, 3, dtype=torch.uint8), torch.zeros(1, 16, 16)
    high, low = flat.clone(), flat.clone()
    high[0, 3, 3], low[0, 3, 3] = 10.0, -10.0
    losses = {
        name: _values(imitation, {"frames": frames, "map": each, "score": torch.zeros(1)})
        for name, each in (("flat", flat), ("high", high), ("low", low))
    }
    assert losses["flat"] == {"map": 0.0, "hard": 0.0, "score": 0.0}
    assert losses["high"]["map"] > 1.5 * losses["low"]["map"] > 0
