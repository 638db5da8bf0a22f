"""Checkpoints of the published codes: read as saved, scored as published, refused with a way out."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from edgead.depth import find_depth_file
from edgead.errors import CheckpointError, ConfigError, DataError
from edgead.export import import_model
from edgead.export.imports.published_checkpoint import resize
from edgead.folders import list_images
from edgead.images import fit_frame, read_frame
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.train.backbones import MEAN, STD
from edgead.train.methods import get_method
from edgead.train.methods.aand.config import AandConfig
from edgead.train.methods.aand.method import Aand
from edgead.train.methods.differnet.config import DiffernetConfig
from edgead.train.methods.differnet.method import Differnet
from edgead.train.methods.differnet.rotation import rotate_frame
from edgead.train.methods.draem.network import DiscriminativeNetwork, ReconstructiveNetwork
from edgead.train.methods.drept.network import UNet
from edgead.train.methods.transfusion.config import TransfusionConfig
from edgead.train.methods.transfusion.method import Transfusion
from edgead.train.official import find_files, load_official
from edgead.train.weights import read_weights


def stir(network: nn.Module) -> nn.Module:
    """Make outputs depend on inputs, and give the batch norms statistics of their own, so that a wrong order shows."""
    torch.manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.fixture
def draem(tmp_path: Path) -> tuple[Path, ReconstructiveNetwork, DiscriminativeNetwork]:
    """The published pair of files of a narrow DRAEM, with its two networks."""
    torch.manual_seed(0)
    first, second = ReconstructiveNetwork(8), DiscriminativeNetwork(4)
    stir(first)
    stir(second)
    torch.save(first.state_dict(), tmp_path / "DRAEM_bottle_.pckl")
    torch.save(second.state_dict(), tmp_path / "DRAEM_bottle__seg.pckl")
    return tmp_path / "DRAEM_bottle_.pckl", first, second


def test_draem_scores_as_published(
    draem: tuple[Path, ReconstructiveNetwork, DiscriminativeNetwork], parts: Path, tmp_path: Path
) -> None:
    """Restated from the published test program: file to score, with its reading and resizing."""
    path, first, second = draem
    bundle = import_model([path], method="draem", threshold_data=parts, settings=["size=64"], out=tmp_path / "b.edgead")
    config = bundle.manifest.config
    assert (config["reconstructive_width"], config["discriminative_width"]) == (8, 4)
    assert (bundle.manifest.method, bundle.manifest.preset) == ("draem", "official")
    assert list(bundle.manifest.origin.files) == ["DRAEM_bottle_.pckl", "DRAEM_bottle__seg.pckl"]
    engine = OnnxRuntimeEngine(bundle.model)
    rng = np.random.default_rng(0)
    images = [cv2.imread(str(file)) for file in list_images(parts / "test", recursive=True)[:3]]
    for image in [*images, rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)]:
        small = cv2.resize(image, dsize=(64, 64))
        tensor = torch.from_numpy(np.transpose(small / 255.0, (2, 0, 1)).astype(np.float32))[None]
        with torch.no_grad():
            rebuilt = first(tensor)
            probability = torch.softmax(second(torch.cat((rebuilt, tensor), dim=1)), dim=1)[:, 1:]
            averaged = F.avg_pool2d(probability, 21, stride=1, padding=21 // 2)
        scores, maps = engine.infer(small[None])
        assert scores[0] == pytest.approx(float(averaged.max()), abs=1e-5)
        assert np.abs(maps[0] - probability[0, 0].numpy()).max() < 1e-5


def test_the_manifest_says_what_resizing_costs(
    draem: tuple[Path, ReconstructiveNetwork, DiscriminativeNetwork], parts: Path, tmp_path: Path
) -> None:
    path = draem[0]
    settings = ["size=32"]
    bundle = import_model([path], method="draem", threshold_data=parts, settings=settings, out=tmp_path / "b.edgead")
    found = bundle.manifest.origin.resize
    engine = OnnxRuntimeEngine(bundle.model)
    images = [read_frame(file) for file in list_images(parts / "test" / "good")]
    published, ours = (
        np.concatenate([engine.infer(fit(image)[None])[0] for image in images])
        for fit in (
            lambda image: cv2.resize(image, (32, 32)),
            lambda image: fit_frame(image, (32, 32)),
        )
    )
    assert found.published == "opencv linear"
    assert found.images == len(images)
    assert not found.same_pixels
    assert found.largest_change == pytest.approx(np.abs(ours - published).max(), rel=1e-3)
    assert found.largest_change > 1e-5


def test_published_resizing_is_pillows_and_opencvs() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    assert np.array_equal(resize(frame, (20, 30), "opencv linear"), cv2.resize(frame, (30, 20)))
    rgb = Image.fromarray(frame[..., ::-1].copy())  # as published: a picture in RGB
    for how, kind in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        expected = np.asarray(rgb.resize((30, 20), kind))[..., ::-1]
        assert np.array_equal(resize(frame, (20, 30), f"pillow {how}"), expected)


@pytest.mark.parametrize("size", [(64, 64), (33, 20)])
def test_rotations_take_pillows_pixels(size: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for angle in (*np.arange(64) * (360 / 64), -17.3, 200.001, -90.0):
        assert np.array_equal(rotate_frame(frame, angle), np.asarray(Image.fromarray(frame).rotate(angle))), angle


@pytest.mark.slow
def test_differnet_scores_as_published(parts: Path, tmp_path: Path) -> None:
    """Restated from the published evaluation: Pillow's rotation, nearest scales, mean of z²."""
    torch.manual_seed(0)
    config = DiffernetConfig(size=(128, 128), hidden=16, blocks=3, scales=2, views=4)
    made = Differnet(config)
    network = made.network.eval()
    with torch.no_grad():
        for module in network.feature_extractor.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
    saved = {name: value for name, value in network.state_dict().items() if name not in ("unit", "reference", "seen")}
    saved["feature_extractor.classifier.1.weight"] = torch.zeros(4, 4)  # saved, and never used
    torch.save(saved, tmp_path / "weights")
    bundle = import_model(
        [tmp_path / "weights"],
        method="differnet",
        threshold_data=parts,
        settings=["size=128", "views=4"],
        out=tmp_path / "b.edgead",
    )
    found = bundle.manifest.config
    assert [found[name] for name in ("backbone", "hidden", "blocks", "scales")] == ["alexnet", 16, 3, 2]
    engine = OnnxRuntimeEngine(bundle.model)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    for file in list_images(parts / "test", recursive=True)[::5]:
        image = Image.open(file).convert("RGB").resize((128, 128), Image.Resampling.BILINEAR)
        views = [np.asarray(image.rotate(angle)) for angle in (0, 90, 180, 270)]
        batch = torch.stack([(torch.from_numpy(view.copy()).permute(2, 0, 1) / 255 - mean) / std for view in views])
        with torch.no_grad():
            features = [
                network.feature_extractor(F.interpolate(batch, size=128 // 2**scale) if scale else batch)[0].mean(
                    (2, 3)
                )
                for scale in range(2)
            ]
            score = float(network.nf(torch.cat(features, dim=1))[0].square().mean())
        scores, _ = engine.infer(np.ascontiguousarray(np.asarray(image)[None, ..., ::-1]))
        assert scores[0] == pytest.approx(np.log1p(score), abs=1e-4)


@pytest.mark.slow
def test_aand_scores_as_published(parts: Path, tmp_path: Path) -> None:
    """Restated from the published test program: Pillow's bicubic, three cosine maps, SciPy's Gaussian."""
    torch.manual_seed(0)
    config = AandConfig(
        size=(65, 97),
        backbone="squeezenet1_1",
        keys=6,
        hidden_factor=0.25,
        hidden_most=128,
        student_factor=0.125,
        student_blocks=(1, 2, 1),
        bottleneck_blocks=2,
    )
    network = Aand(config).network
    stir(network)
    weights: Mapping[str, Tensor] = network.state_dict()

    def part(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}

    for stage in ("Stage1", "Stage2"):
        (tmp_path / f"checkpoints_{stage}").mkdir()
    unused = {"layer4.0.conv1.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}
    first = tmp_path / "checkpoints_Stage1" / "wres50_bottle.pth"
    torch.save({"encoder_AT": {**part("encoder_AT"), **unused}}, first)
    second = tmp_path / "checkpoints_Stage2" / "wres50_bottle.pth"
    torch.save({"bn": {**part("bn"), "conv4.weight": torch.zeros(1)}, "decoder_ss": part("decoder_ss")}, second)
    settings = ["size=65x97", "backbone=squeezenet1_1"]  # the default is wide_resnet50_2
    bundle = import_model([second], method="aand", threshold_data=parts, settings=settings, out=tmp_path / "b.edgead")
    assert sorted(bundle.manifest.origin.files) == [
        "checkpoints_Stage1/wres50_bottle.pth",
        "checkpoints_Stage2/wres50_bottle.pth",
    ]
    names = ("keys", "hidden_factor", "hidden_most", "student_factor", "student_blocks", "bottleneck_blocks")
    assert [bundle.manifest.config[name] for name in names] == [getattr(config, name) for name in names]
    engine = OnnxRuntimeEngine(bundle.model)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    for file in list_images(parts / "test", recursive=True)[::5]:
        image = np.asarray(Image.open(file).convert("RGB").resize((97, 65), Image.Resampling.BICUBIC))
        tensor = ((torch.from_numpy(image.copy()).permute(2, 0, 1) / 255 - mean) / std)[None]
        total = np.zeros((65, 97))
        with torch.no_grad():
            for teacher, student in zip(*network.levels(tensor)):
                distance = (1 - F.cosine_similarity(teacher, student))[:, None]
                total += F.interpolate(distance, size=(65, 97), mode="bilinear", align_corners=True)[0, 0].numpy()
        smooth = gaussian_filter(total, sigma=4)
        scores, maps = engine.infer(np.ascontiguousarray(image[None, ..., ::-1]))
        assert scores[0] == pytest.approx(smooth.max(), abs=1e-4)
        assert np.abs(maps[0] - smooth).max() < 1e-4


@pytest.mark.slow
def test_transfusion_is_configured_as_its_weights_say(parts: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = TransfusionConfig(
        size=(32, 32), width=32, multipliers=(1, 2, 1), attention_levels=(1,), blocks=1, reverse_steps=2
    )
    made = Transfusion(config)
    stir(made.network)
    saved = {**made.network.state_dict(), "ssim_loss.window": torch.zeros(1)}
    torch.save(saved, tmp_path / "bottle_model.pkl")
    settings = ["size=32", "reverse_steps=2"]
    bundle = import_model(
        [tmp_path / "bottle_model.pkl"],
        method="transfusion",
        threshold_data=parts,
        settings=settings,
        out=tmp_path / "b.edgead",
    )
    names = ("width", "multipliers", "attention_levels", "blocks")
    assert [bundle.manifest.config[name] for name in names] == [getattr(config, name) for name in names]
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    scores, maps = OnnxRuntimeEngine(bundle.model).infer(frames)
    with torch.no_grad():
        expected, expected_maps = made.reference_model()(torch.from_numpy(frames))
    assert np.abs(scores - expected.numpy()).max() < 1e-4
    assert np.abs(maps - expected_maps.numpy()).max() < 1e-4


def test_transfusion_with_depth_has_the_published_scale(rgbd_parts: Path, tmp_path: Path) -> None:
    """In metres below one the published code's depth is (z − 1.1) / 1.1, and 0 where nothing was measured."""
    torch.manual_seed(0)
    config = TransfusionConfig(
        depth=True, size=(64, 80), width=64, multipliers=(1, 1), attention_levels=(1,), blocks=1, reverse_steps=2
    )
    made = Transfusion(config)
    stir(made.network)
    torch.save(made.network.state_dict(), tmp_path / "bagel_model.pkl")
    settings = ["size=64x80", "reverse_steps=2"]
    bundle = import_model(
        [tmp_path / "bagel_model.pkl"],
        method="transfusion",
        threshold_data=rgbd_parts,
        settings=settings,
        out=tmp_path / "b",
    )
    near, far = bundle.manifest.pixels.depth_range or (0, 0)
    assert 0.4 < near < far < 0.6
    assert bundle.manifest.config["depth"] is True
    assert bundle.manifest.config["width"] == 64
    assert bundle.manifest.config["depth_values"] == pytest.approx([near / 1.1 - 1, far / 1.1 - 1])
    image = list_images(rgbd_parts / "test" / "dent" / "rgb")[0]
    frame = read_frame(image, bundle.manifest.pixels)
    score, _ = OnnxRuntimeEngine(bundle.model).infer(frame[None])
    z = np.float32(cv2.imread(str(find_depth_file(image)), cv2.IMREAD_UNCHANGED)[..., 0])
    for _ in range(2):  # the published filling of holes
        counts = cv2.filter2D((z > 0).astype(np.float32), -1, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT)
        sums = cv2.filter2D(z, -1, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT)
        z = np.where(z == 0, sums / np.maximum(counts, 1), z)
    colour = frame[..., 2::-1].astype(np.float32) / 255 * 2 - 1
    x = np.dstack([colour, (z - 1.1) / 1.1 * (z > 0)]).transpose(2, 0, 1).astype(np.float32)
    planes = torch.from_numpy(x[None])
    with torch.no_grad():
        detector = made.reference_model()
        left, total = detector.reverse(planes)  # type: ignore[operator]
        maps = published_map(planes, left, total, steps=2)
    assert score[0] == pytest.approx(float(maps.max()), abs=5e-3)  # 254 steps of depth
    wrong = planes.clone()
    wrong[:, 3] = (planes[:, 3] * 1.1 + 1.1 - far) / (far - near) * (planes[:, 3] != 0)  # as edgead trains
    with torch.no_grad():
        other = published_map(wrong, *detector.reverse(wrong), steps=2)  # type: ignore[operator]
    assert abs(float(other.max()) - float(maps.max())) > 2e-2  # the scale is seen


def published_map(image: torch.Tensor, left: torch.Tensor, total: torch.Tensor, steps: int) -> torch.Tensor:
    """The mean mask and the squared change, 7×7 means of both."""
    colours = [(each[:, :3] * 0.5 + 0.5).clamp(0, 1) for each in (image, left)]
    change = torch.cat([(colours[0] - colours[1]) ** 2, (image[:, 3:] - left[:, 3:]) ** 2], dim=1).mean(1, True)
    maps = 0.95 * total * (18 / 19 / steps) + 0.05 * change
    return F.avg_pool2d(maps, 7, stride=1, padding=3)


def test_depth_in_another_unit_is_refused(rgbd_parts: Path, tmp_path: Path) -> None:
    config = TransfusionConfig(depth=True, size=(32, 32), width=64, multipliers=(1,), attention_levels=(), blocks=1)
    torch.save(Transfusion(config).network.state_dict(), tmp_path / "bagel_model.pkl")
    data = Path(shutil.copytree(rgbd_parts, tmp_path / "dome"))
    for path in (data / "train" / "good" / "xyz").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED) * 1000)
    with pytest.raises(DataError, match=r"accepts metres up to 1\.1"):
        import_model(
            [tmp_path / "bagel_model.pkl"],
            method="transfusion",
            threshold_data=data,
            settings=["size=32", "reverse_steps=1"],
            out=tmp_path / "b",
        )


@pytest.mark.parametrize("side", [64, 128])
def test_drept_scores_as_published(side: int, parts: Path, tmp_path: Path) -> None:
    """Restated from the published test program: Pillow's bilinear, [−1, 1], the largest sigmoid."""
    torch.manual_seed(0)
    network = UNet(1, 4, (side, side))
    stir(network)
    torch.save(network.state_dict(), tmp_path / "seg.pth")
    bundle = import_model([tmp_path / "seg.pth"], method="drept", threshold_data=parts, out=tmp_path / "b.edgead")
    assert (bundle.manifest.config["width"], bundle.manifest.size) == (4, (side, side))
    engine = OnnxRuntimeEngine(bundle.model)
    for file in list_images(parts / "test", recursive=True)[::5]:
        image = np.asarray(Image.open(file).convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
        tensor = ((torch.from_numpy(image.copy()).permute(2, 0, 1) / 255 - 0.5) / 0.5)[None]
        with torch.no_grad():
            expected = torch.sigmoid(network(tensor))
        scores, maps = engine.infer(np.ascontiguousarray(image[None, ..., ::-1]))
        assert scores[0] == pytest.approx(float(expected.max()), abs=1e-5)
        assert np.abs(maps[0] - expected[0, 0].numpy()).max() < 1e-5


class Whole(nn.Module):
    """What ``torch.save(model)`` pickles as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)


def altered(path: Path, to: Path, **changes: Any) -> Path:
    """A copy of a checkpoint with weights changed, or taken away where None."""
    weights = {**torch.load(path, weights_only=True), **changes}
    torch.save({name: value for name, value in weights.items() if value is not None}, to)
    return to


def test_what_does_not_fit_is_named(
    draem: tuple[Path, ReconstructiveNetwork, DiscriminativeNetwork], tmp_path: Path
) -> None:
    path = draem[0]
    from edgead.train.methods.draem.method import Draem

    second = path.with_name("DRAEM_bottle__seg.pckl")
    assert find_files(Draem, [path]) == [path, second]
    assert find_files(Draem, [second]) == [second, path.resolve()]
    lacking = altered(path, tmp_path / "lacking.pckl", **{"decoder.fin_out.0.bias": None})
    with pytest.raises(CheckpointError, match=r"missing: reconstructive\.decoder\.fin_out\.0\.bias"):
        load_official(Draem, [lacking, second])
    strange = altered(path, tmp_path / "strange.pckl", **{"encoder.extra": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"unknown: reconstructive\.encoder\.extra"):
        load_official(Draem, [strange, second])
    wide = altered(path, tmp_path / "wide.pckl", **{"encoder.block2.0.weight": torch.zeros(1, 1, 3, 3)})
    with pytest.raises(CheckpointError, match=r"reshaped: reconstructive\.encoder\.block2\.0\.weight"):
        load_official(Draem, [wide, second])
    with pytest.raises(CheckpointError, match="one part of a checkpoint of DRAEM; the other part is missing"):
        load_official(Draem, [second])


def test_files_of_two_checkpoints_are_refused(
    draem: tuple[Path, ReconstructiveNetwork, DiscriminativeNetwork], tmp_path: Path
) -> None:
    """Before, the last of ``*.pckl`` won, and the networks of two products became one bundle."""
    from edgead.train.methods.draem.method import Draem

    first, second = draem[0], draem[0].with_name("DRAEM_bottle__seg.pckl")
    other = altered(first, tmp_path / "DRAEM_cable_.pckl", **{"decoder.fin_out.0.bias": torch.ones(3)})
    other_second = altered(second, tmp_path / "DRAEM_cable__seg.pckl")
    with pytest.raises(CheckpointError, match=r"cable_\.pckl holds other values of 'decoder\.fin_out\.0\.bias'"):
        load_official(Draem, [first, second, other, other_second])
    for pair in ([first, other_second], [second, other]):
        with pytest.raises(CheckpointError, match=r"do not belong together: the partner of .*DRAEM_bottle.* is "):
            find_files(Draem, pair)
    assert find_files(Draem, [second, first]) == [second, first]


def test_tensors_without_plain_numbers_are_refused(
    draem: tuple[Path, ReconstructiveNetwork, DiscriminativeNetwork], tmp_path: Path
) -> None:
    name = "decoder.fin_out.0.bias"
    for value in (torch.ones(3).to_sparse(), torch.ones(3, device="meta"), torch.ones(3, dtype=torch.complex64)):
        path = altered(draem[0], tmp_path / "odd.pckl", **{name: value})
        with pytest.raises(CheckpointError, match=rf"does not hold '{name}' as plain numbers"):
            read_weights(path)


@pytest.mark.parametrize("shape", [(), (3,), (3, 4)])
@pytest.mark.parametrize("name", ["draem", "differnet", "aand", "drept", "transfusion"])
def test_names_of_a_network_with_shapes_of_none_are_refused(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    kind = get_method(name)
    assert kind.official
    path = tmp_path / "odd.pth"
    torch.save({mark: torch.zeros(shape) for mark in kind.official.marks}, path)
    with pytest.raises(CheckpointError, match=r"odd\.pth (has|does not hold the) weights of"):
        load_official(kind, [path])


def test_the_wrong_method_is_guessed(
    draem: tuple[Path, ReconstructiveNetwork, DiscriminativeNetwork], tmp_path: Path, parts: Path
) -> None:
    with pytest.raises(CheckpointError, match="It looks like one of DRAEM:  --method draem"):
        import_model([draem[0]], method="differnet", threshold_data=parts, out=tmp_path / "b.edgead")
    torch.save(UNet(1, 4, (64, 64)).state_dict(), tmp_path / "seg.pth")
    with pytest.raises(CheckpointError, match="It looks like one of DRepT:  --method drept"):
        import_model([tmp_path / "seg.pth"], method="transfusion", threshold_data=parts, out=tmp_path / "b.edgead")
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="nor of another method here"):
        import_model([tmp_path / "other.pth"], method="draem", threshold_data=parts, out=tmp_path / "b.edgead")


def test_pickled_modules_and_damaged_files_are_refused(tmp_path: Path, parts: Path) -> None:
    torch.save(Whole(), tmp_path / "whole.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "empty.pth").write_bytes(b"")
    data = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: len(data) // 2])
    torch.save([1, 2], tmp_path / "list.pth")
    for name, words in (
        ("whole", r"pickled Python object \(.*Whole\).*it is refused"),
        ("text", "cannot be read as weights"),
        ("empty", "cannot be read as weights"),
        ("cut", "cannot be read as weights"),
        ("list", "not a plain table of weights"),
        ("absent", "does not exist"),
    ):
        with pytest.raises(CheckpointError, match=words) as caught:
            import_model([tmp_path / f"{name}.pth"], method="draem", threshold_data=parts, out=tmp_path / "b.edgead")
        assert len(str(caught.value).splitlines()) <= 3
    with pytest.raises(CheckpointError, match=r"torch.save\(model.state_dict\(\), 'whole_weights.pth'\)"):
        import_model([tmp_path / "whole.pth"], method="draem", threshold_data=parts, out=tmp_path / "b.edgead")


def test_a_table_inside_a_training_checkpoint_is_found(
    draem: tuple[Path, ReconstructiveNetwork, DiscriminativeNetwork], tmp_path: Path
) -> None:
    from edgead.train.methods.draem.method import Draem

    path, first, _ = draem
    torch.save(
        {"epoch": 7, "state_dict": {f"module.{name}": value for name, value in first.state_dict().items()}},
        tmp_path / "wrapped.pckl",
    )
    method = load_official(Draem, [tmp_path / "wrapped.pckl", path.with_name("DRAEM_bottle__seg.pckl")])
    loaded = method.network.state_dict()["reconstructive.encoder.block1.0.weight"]
    assert torch.equal(loaded, first.state_dict()["encoder.block1.0.weight"])


def test_a_checkpoint_needs_good_images(draem: tuple[Path, Any, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--threshold-data DIR"):
        import_model([draem[0]], method="draem", out=tmp_path / "b.edgead")


def test_the_weights_of_an_own_run_are_exported_not_imported(trained: Path, parts: Path, tmp_path: Path) -> None:
    """They were read without the run's crop, alignment and threshold, and without what the shapes do not tell."""
    out = tmp_path / "own.edgead"
    with pytest.raises(CheckpointError, match=r"(?s)belongs to a run of edgead.*edgead export --checkpoint"):
        import_model([trained / "weights.safetensors"], method="draem", threshold_data=parts / "train", out=out)
    assert not out.exists()
