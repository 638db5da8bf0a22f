"""What the gate measures and refuses, and how layers return to float32."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgead.console import Console
from edgead.datasets import open_category
from edgead.errors import ConfigError, GateError
from edgead.export.graph.to_onnx import write_onnx
from edgead.export.quantization.calibration import measure_ranges
from edgead.export.quantization.gate import Budget, Gate, Judgement, Labelled, _uncertainty, read_labelled
from edgead.export.quantization.mixed_precision import GraphVariants, measure_layers, search_mixed_precision
from edgead.images import COLOUR, encode_png
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine

SIZE = (32, 32)


class Brightness(nn.Module):
    """A detector without training: the map is the local brightness. One channel is a million times the others.

    `poisoned` does not use that channel, but INT8 gives a tensor one scale, and so nothing is left of the rest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spread, self.poisoned = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.smooth, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 1, 1)
        for layer in (self.spread, self.poisoned, self.smooth, self.last):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.spread.weight[7] *= 1e6
            self.poisoned.weight[:, 7] = 0

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        x = self.spread(frames.float().permute(0, 3, 1, 2) / 255).relu()
        maps = self.last(self.smooth(self.poisoned(x).relu()).relu())[:, 0]
        return maps.amax(dim=(1, 2)), maps


class Engine:
    """The reference's outputs, changed."""

    name = "changed"

    def __init__(self, reference: OnnxRuntimeEngine, factor: float = 1.0, offset: float = 0.0) -> None:
        self.reference, self.factor, self.offset = reference, factor, offset

    def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scores, maps = self.reference.infer(frames)
        return scores * np.float32(self.factor) + np.float32(self.offset), maps * np.float32(self.factor)

    def close(self) -> None:
        pass


def draw(count: int, seed: int, spot: int = 0) -> NDArray[np.uint8]:
    """Dark frames with noise, and a spot of that brightness."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(20, 60, (count, *SIZE, 3), dtype=np.uint8)
    frames[:, 8:16, 8:16] += np.uint8(spot)
    return frames


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    write_onnx(Brightness().eval(), SIZE, path)
    return path


@pytest.fixture(scope="module")
def reference(path: Path) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(path)


def make_gate(reference: OnnxRuntimeEngine, budget: Budget | None = None, labelled: Labelled | None = None) -> Gate:
    return Gate(reference, draw(10, 1), draw(10, 2, 80), labelled, 0.05, budget or Budget(), Console())


def judge(gate: Gate, engine: Engine) -> Judgement:
    return gate.judge({"form": engine})


@pytest.mark.parametrize("values", [{"auroc_drop": -0.01}, {"auroc_drop": 1.01}, {"flips": -0.01}, {"flips": 1.01}])
def test_budgets_are_shares(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"budget\.{next(iter(values))} is .*must be from 0 to 1"):
        Budget(**values)
    assert Budget(**dict.fromkeys(values, 1)) != Budget(**dict.fromkeys(values, 0))


@pytest.mark.parametrize(("scores", "moves"), [([3.0], 0.0), ([1.0, 3.0], 2.0), ([1.0, 1.5, 3.0], 1.5)])
def test_a_threshold_is_as_uncertain_as_one_image_moves_it(scores: list[float], moves: float) -> None:
    assert _uncertainty(np.float32(scores), 0.05) == moves


def test_the_same_graph_passes(reference: OnnxRuntimeEngine) -> None:
    gate = make_gate(reference)
    judgement = judge(gate, Engine(reference))
    measures = judgement.variants["form"]
    assert judgement.passed
    assert measures.score_error == measures.map_error == measures.flips == measures.borderline_flips == 0
    assert measures.synthetic_auroc_drop == 0
    assert judgement.threshold == gate.threshold


def test_the_threshold_is_fitted_again_so_that_a_shift_alone_costs_nothing(reference: OnnxRuntimeEngine) -> None:
    judgement = judge(make_gate(reference), Engine(reference, factor=2, offset=3))
    assert judgement.passed
    assert judgement.variants["form"].score_error > 3
    assert judgement.threshold.value > 3


@pytest.mark.parametrize(("factor", "offset"), [(0.0, 0.0), (-1.0, 0.0), (np.nan, 0.0), (1.0, np.inf)])
def test_what_decides_otherwise_is_refused(reference: OnnxRuntimeEngine, factor: float, offset: float) -> None:
    with np.errstate(invalid="ignore"):
        judgement = judge(make_gate(reference), Engine(reference, factor, offset))
    assert not judgement.passed
    assert "form: " in judgement.failures[0]


def test_the_threshold_holds_for_every_form(reference: OnnxRuntimeEngine) -> None:
    """The second form scores higher, so its threshold is taken, and the first then misses anomalies."""
    gate = make_gate(reference)
    judgement = gate.judge({"low": Engine(reference), "high": Engine(reference, offset=9)})
    assert np.allclose(judgement.scores, gate.reference[0][:10] + 9)
    assert judgement.variants["high"].flips == 0
    assert judgement.variants["low"].flips == 0.5
    assert judgement.variants["low"].flips_of_synthetic_anomalies == 10
    assert [line.partition(":")[0] for line in judgement.failures] == ["low"]


def test_a_budget_may_be_wide(reference: OnnxRuntimeEngine) -> None:
    gate = make_gate(reference, Budget(auroc_drop=1, flips=1))
    assert judge(gate, Engine(reference, factor=-1)).passed
    assert not judge(gate, Engine(reference, factor=np.nan)).passed


def test_a_graph_that_ranks_good_images_otherwise_is_refused_although_no_verdict_changes(
    reference: OnnxRuntimeEngine,
) -> None:
    gate = make_gate(reference)
    middle = float(np.median(gate.perturbed_scores))

    class Turned(Engine):
        """Whatever is not clearly anomalous has its score mirrored."""

        def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            scores, maps = super().infer(frames)
            return np.where(scores < gate.reference[0][10:].min(), 2 * middle - scores, scores).astype(np.float32), maps

    judgement = judge(gate, Turned(reference))
    measures = judgement.variants["form"]
    assert measures.flips == measures.borderline_flips == measures.synthetic_auroc_drop == 0
    assert measures.rank_loss is not None
    assert measures.rank_loss > 1
    assert [line.partition(" loss")[0] for line in judgement.failures] == ["form: rank"]
    assert judge(make_gate(reference), Engine(reference)).variants["form"].rank_loss == 0


@pytest.mark.parametrize("anomalies", [1, 3])
def test_one_verdict_that_one_photograph_more_would_turn_may_change(
    reference: OnnxRuntimeEngine, anomalies: int
) -> None:
    """An anomaly between the highest and the second highest of the held-out scores is found or missed by chance."""
    normals = draw(10, 1)
    normals[0] += 20
    faint = draw(anomalies, 1) + np.uint8(23)
    frames, budget = np.concatenate([faint, draw(5, 2, 80)]), Budget(auroc_drop=1)
    gate = Gate(reference, normals, frames, None, 0.05, budget, Console())
    near = gate.reference[0][10 : 10 + anomalies] - gate.threshold.value
    assert (near > 0).all()
    assert not gate.settled[10 : 10 + anomalies].any()
    assert gate.settled[10 + anomalies :].all()

    class Faint(Engine):
        """Scores frames that are faint a little lower."""

        def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            scores, maps = super().infer(frames)
            return np.where((frames.mean() > 60) & (frames.max() < 90), scores - 0.05, scores).astype(np.float32), maps

    judgement = judge(gate, Faint(reference))
    assert judgement.variants["form"].flips == 0
    assert judgement.variants["form"].borderline_flips == anomalies
    assert judgement.variants["form"].settled == int(gate.settled.sum())
    assert judgement.failures == ([] if anomalies == 1 else ["form: borderline flips 3, allowed 1"])


def test_labelled_images_are_judged_too(reference: OnnxRuntimeEngine) -> None:
    frames = np.concatenate([draw(6, 3), draw(6, 4, 80)])
    mask = np.zeros((256, 256), np.bool_)
    mask[64:128, 64:128] = True
    anomalous = np.arange(12) >= 6
    # As if labelled the other way round: the exact graph has AUROC 0 there, so the drop shows which data was used.
    empty = np.zeros_like(mask)
    right = Labelled(frames, anomalous, [mask if each else empty for each in anomalous])
    measures = judge(make_gate(reference, labelled=right), Engine(reference)).variants["form"]
    assert measures.image_auroc == 1
    assert measures.image_auroc_drop == measures.aupro_drop == 0
    assert measures.aupro > 0.8

    class Sleeper(Engine):
        """Misses the labelled anomalies alone."""

        def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            scores, maps = super().infer(frames)
            known = any(np.array_equal(frames[0], each) for each in right.frames[6:])
            return (scores * 0, maps) if known else (scores, maps)

    judgement = judge(make_gate(reference, labelled=right), Sleeper(reference))
    assert [line.split(" ", 1)[1].split(",")[0] for line in judgement.failures] == ["image auroc drop 1"]


def test_labelled_images_are_read_as_the_benchmark_reads_them(parts: Path) -> None:
    category = open_category(parts)
    labelled = read_labelled(category, (64, 64), COLOUR, Console())
    assert labelled is not None
    assert labelled.frames.shape == (len(category.test), 64, 64, 3)
    assert labelled.anomalous.tolist() == [sample.anomalous for sample in category.test]
    masks = [mask for mask in labelled.masks if mask is not None]
    assert all(mask.shape == (256, 256) for mask in masks)
    assert any(mask.any() for mask in masks)
    defective = [sample for sample in category.test if sample.anomalous]
    assert len(masks) == len(category.test)  # those of good images are empty
    assert sum(mask.any() for mask in masks) == len(defective)


def test_an_empty_mask_of_a_defective_image_judges_nothing(parts: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(parts, tmp_path / "parts"))
    mask = next(iter((data / "ground_truth").glob("*/*.png")))
    mask.write_bytes(encode_png(np.zeros_like(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE))))
    said: list[str] = []
    console = Console()
    console.say = said.append  # type: ignore[method-assign]
    category = dataclasses.replace(open_category(data), problems=("a mask is odd",))
    labelled = read_labelled(category, (64, 64), COLOUR, console)
    assert labelled is not None
    assert said == ["Warning: a mask is odd"]
    assert [each for each, mask in zip(labelled.anomalous, labelled.masks) if mask is None] == [True]


def test_labelled_images_that_cannot_be_read(parts: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(parts, tmp_path / "parts"))
    whole = len(open_category(data).test)
    mask = next(iter((data / "ground_truth").glob("*/*.png")))
    mask.write_bytes(b"no picture")
    said: list[str] = []
    console = Console()
    console.say = said.append  # type: ignore[method-assign]
    labelled = read_labelled(open_category(data), (64, 64), COLOUR, console)
    assert labelled is not None
    assert len(labelled.frames) == whole - 1
    assert len(said) == 1
    for image in (data / "test" / "good").iterdir():
        image.write_bytes(b"no picture")
    assert read_labelled(open_category(data), (64, 64), COLOUR, console) is None
    assert said[-1] == f"Warning: labels are not used: no good or no defective image in {data} is readable."


@pytest.fixture(scope="module")
def variants(path: Path) -> GraphVariants:
    return GraphVariants(onnx.load(path), measure_ranges(path, draw(8, 0, 90), "minmax", iter), "int8")


def test_the_sensitive_layer_is_found(variants: GraphVariants, reference: OnnxRuntimeEngine) -> None:
    table = measure_layers(variants, make_gate(reference), Console())
    assert {row.layer for row in table} == {"/spread/Conv", "/poisoned/Conv", "/smooth/Conv", "/last/Conv"}
    assert {row.layer for row in table[:2]} == {"/spread/Conv", "/poisoned/Conv"}
    assert table[0].score_error > 20 * table[2].score_error


def test_sensitive_layers_are_handed_back_until_the_gate_is_passed(
    variants: GraphVariants, reference: OnnxRuntimeEngine
) -> None:
    lowered = search_mixed_precision(variants, make_gate(reference), draw(8, 0, 40)[:2], Console())
    assert lowered.judgement.passed
    assert lowered.kept == [row.layer for row in lowered.table[: len(lowered.kept)]]
    assert "/poisoned/Conv" in lowered.kept
    assert len(lowered.kept) < lowered.layers == 4
    assert lowered.trace[0].kept_in_float32 == 0
    assert lowered.trace[0].failures
    assert set(lowered.judgement.variants) == set(lowered.files) == {"model.onnx", "model.cpu.onnx"}
    kept = [node for node in lowered.files["model.onnx"].graph.node if node.name == "/poisoned/Conv"]
    makers = {name: node.op_type for node in lowered.files["model.onnx"].graph.node for name in node.output}
    assert len(kept) == 1
    assert "DequantizeLinear" in makers.values()
    assert makers[kept[0].input[0]] != "DequantizeLinear"


def test_nothing_passes(variants: GraphVariants, reference: OnnxRuntimeEngine) -> None:
    impossible = make_gate(reference)
    impossible.reference[0][10::2] = 0  # as if every other anomaly had to pass
    with pytest.raises(
        GateError,
        match=r"(?s)even with only /\w+/Conv lowered, the least sensitive of 4 layers.*--precision fp32",
    ) as caught:
        search_mixed_precision(variants, impossible, draw(8, 0, 40)[:2], Console())
    assert caught.value.exit_code == 3


def test_float16_hands_back_single_operations(path: Path, reference: OnnxRuntimeEngine) -> None:
    ranges = measure_ranges(path, draw(8, 0, 40), "minmax", iter)
    variants = GraphVariants(onnx.load(path), ranges, "fp16")
    assert variants.too_large == {"/spread/Conv", "/Relu", "/poisoned/Conv"}  # the channel of a million
    assert not variants.too_large & {*variants.layers()}
    lowered = search_mixed_precision(variants, make_gate(reference), draw(8, 0, 40)[:2], Console())
    assert lowered.kept == []
    assert set(lowered.judgement.variants) == {"model.onnx", "model.onnx in float16"}
    assert lowered.judgement.worst("score_error") < 1e-3
