"""The resize on the device is `fit_frame`'s: the graph, on ONNX Runtime, under TensorRT's rules, and in an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from level_bundle import SIDE, HostMemory, make_level_bundle
from numpy.typing import NDArray
from running import Listener
from tensorrt_on_cpu import make_shim, needs_rtx

from edgead.bundle import Bundle
from edgead.errors import DataError, DeviceError
from edgead.export.graph.tensorrt_rules import find_refusals
from edgead.geometry import STRETCH, Geometry
from edgead.images import fit_frame
from edgead.machine import Gpu
from edgead.runtime.engines import device_resize
from edgead.runtime.engines.checked import CheckedEngine, check
from edgead.runtime.engines.device_frames import DeviceFrames
from edgead.runtime.engines.device_resize import ResizeBuffers
from edgead.runtime.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine, Target
from edgead.runtime.engines.resize_graph import FITTED, FRAMES, resize_graph
from edgead.runtime.engines.tensorrt_build import BuildSettings
from edgead.runtime.engines.tensorrt_resize import CachedResizes
from edgead.runtime.inspector import Inspector

LETTERBOX, CROP = Geometry(fit="letterbox"), Geometry(crop=(0.1, 0.2, 0.5, 0.63))
BOTH = Geometry(crop=(0.1, 0.2, 0.5, 0.63), fit="letterbox")
SHRINKS = [
    ((480, 640), (256, 256), STRETCH),  # areas of any size
    ((256, 384), (32, 48), STRETCH),  # halvings alone
    ((270, 480), (64, 64), STRETCH),  # halvings, then areas
    ((192, 192), (64, 64), STRETCH),
    ((123, 97), (64, 64), STRETCH),
    ((64, 96), (64, 64), STRETCH),  # one side alone
    ((240, 320), (64, 64), LETTERBOX),
    ((241, 321), (64, 64), CROP),
    ((241, 321), (64, 64), BOTH),
]
GROWS = [((50, 40), (64, 96), STRETCH), ((50, 140), (64, 96), STRETCH), ((30, 90), (64, 64), LETTERBOX)]


def noise(count: int, frame: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *frame, 3), dtype=np.uint8)


def differences(frame: tuple[int, int], size: tuple[int, int], geometry: Geometry) -> NDArray[np.int16]:
    """Grey levels between what the graph makes of two frames and what `fit_frame` does."""
    session = onnxruntime.InferenceSession(resize_graph(frame, size, geometry), providers=["CPUExecutionProvider"])
    frames = noise(2, frame)
    [fitted] = session.run([FITTED], {FRAMES: frames})
    wanted = np.stack([fit_frame(each, size, geometry=geometry) for each in frames])
    assert fitted.shape == wanted.shape
    return np.abs(fitted.astype(np.int16) - wanted)


@pytest.mark.parametrize(("frame", "size", "geometry"), SHRINKS)
def test_what_shrinks_has_the_same_bytes(frame: tuple[int, int], size: tuple[int, int], geometry: Geometry) -> None:
    found = differences(frame, size, geometry)
    assert found.max() <= 1
    assert (found > 0).mean() < 1e-3  # a value between two levels, on a processor that adds in another order


@pytest.mark.parametrize(("frame", "size", "geometry"), GROWS)
def test_what_grows_differs_by_rounding(frame: tuple[int, int], size: tuple[int, int], geometry: Geometry) -> None:
    """OpenCV interpolates bytes with weights of 11 bits."""
    assert differences(frame, size, geometry).max() <= 1


@pytest.mark.parametrize(("frame", "size", "geometry"), [*SHRINKS[:3], *SHRINKS[-3:], *GROWS])
def test_the_file_is_onnx_that_every_tensorrt_reads(
    frame: tuple[int, int], size: tuple[int, int], geometry: Geometry
) -> None:
    model = onnx.load_from_string(resize_graph(frame, size, geometry))
    onnx.checker.check_model(model, full_check=True)
    assert not find_refusals(model)


class Engine:
    """A level bundle on the engine that runs on CUDA, on the CPU provider; frames 'on the GPU' are in its memory."""

    def __init__(self, bundle: Bundle) -> None:
        self.memory: Any = HostMemory()
        target = Target(self.memory, "CPUExecutionProvider", {}, "cpu")
        size = (*bundle.manifest.size, 3)
        self.inner = OnnxRuntimeCudaEngine(bundle.model, size, (1, 3), target)
        self.checked: CheckedEngine = check(self.inner, bundle)

    def put(self, frames: NDArray[np.uint8]) -> DeviceFrames:
        address = self.memory.allocate(frames.nbytes)
        self.memory.upload(address, frames)
        return DeviceFrames(address, frames.shape, 1, None)


@pytest.mark.parametrize("geometry", [None, Geometry(crop=(0.25, 0, 0.5, 1), fit="letterbox")])
def test_whole_frames_on_the_gpu_are_decided_as_those_of_the_host(tmp_path: Path, geometry: Geometry | None) -> None:
    bundle = make_level_bundle(tmp_path / "level.edgead", geometry=geometry)
    engine, frames = Engine(bundle), noise(4, (100, 140))
    frames[1], frames[2, 30:60, 50:90] = 0, 255
    region = np.zeros(bundle.manifest.region_size, bool)
    region[: len(region) // 2] = True
    with Inspector(bundle, engine.checked, region=region) as inspector:
        found = inspector.inspect_on_gpu(engine.put(frames), frame_id=5)
        for number, (result, frame) in enumerate(zip(found, frames)):
            wanted = inspector.inspect(frame)
            assert result.score == pytest.approx(wanted.score, abs=1)
            assert (result.verdict, result.frame_size, result.frame_id) == (wanted.verdict, (100, 140), 5 + number)
            assert result.geometry == wanted.geometry
            assert (result.mask == wanted.mask).mean() > 0.99
        fitted = inspector.inspect_on_gpu(engine.put(noise(2, (SIDE, SIDE)))) if geometry is None else []
        assert [each.frame_size for each in fitted] == [(SIDE, SIDE)] * len(fitted)


def test_a_resize_is_opened_once_for_each_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, opened = make_level_bundle(tmp_path / "level.edgead"), []
    start = OnnxRuntimeCudaEngine._open_resize

    def count(self: OnnxRuntimeCudaEngine, buffers: ResizeBuffers) -> Any:
        opened.append(buffers.frame)
        return start(self, buffers)

    monkeypatch.setattr(OnnxRuntimeCudaEngine, "_open_resize", count)
    with Inspector(bundle, (engine := Engine(bundle)).checked) as inspector:
        for frame in ((100, 140), (90, 90), (100, 140), (SIDE, SIDE)):
            inspector.inspect_on_gpu(engine.put(noise(2, frame)))
    assert opened == [(100, 140, 3), (90, 90, 3)]


def test_a_resize_that_is_wrong_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def another(frame: tuple[int, int], size: tuple[int, int], geometry: Geometry, channels: int) -> bytes:
        return resize_graph(frame, size, Geometry(crop=(0, 0, 0.97, 1)), channels)

    monkeypatch.setattr(device_resize, "resize_graph", another)
    bundle = make_level_bundle(tmp_path / "level.edgead")
    with Inspector(bundle, (engine := Engine(bundle)).checked) as inspector:
        frames, allocations = engine.put(noise(1, (100, 140))), []
        for _ in range(3):
            with pytest.raises(DeviceError, match=r"differs by \d+ grey levels.*\n.*model's size \(64×64\)"):
                inspector.inspect_on_gpu(frames)
            allocations.append(len(engine.memory._kept))
        assert len(set(allocations)) == 1  # tried once
        assert inspector.inspect_on_gpu(engine.put(noise(1, (SIDE, SIDE))))  # the engine stays usable


def test_what_cannot_be_fitted_is_refused(tmp_path: Path) -> None:
    bundle = make_level_bundle(tmp_path / "level.edgead")
    with Inspector(bundle, (engine := Engine(bundle)).checked) as inspector:
        for shape in ((100, 140, 3), (1, 100, 140, 4), (0, 100, 140, 3), (1, 0, 140, 3)):
            frames = engine.put(np.zeros((1, 100, 140, 4), np.uint8))
            with pytest.raises(DataError, match=r"The engine takes uint8 frames \[N, 64, 64, 3\]"):
                inspector.inspect_on_gpu(DeviceFrames(frames.address, shape, 1, None))


@needs_rtx
def test_tensorrt_builds_it_and_keeps_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorrt_rtx

    monkeypatch.syspath_prepend(str(make_shim(tmp_path / "shim")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    console = Listener()
    plans = CachedResizes(tensorrt_rtx, Gpu("Host", "8.7", "12.6 (none)"), BuildSettings(dla=0), console)
    for geometry in (BOTH, STRETCH):
        graph = resize_graph((241, 321), (64, 64), geometry)
        buffers = ResizeBuffers(graph, (241, 321, 3), (64, 64, 3), 0, 0)
        plan = plans(buffers)
        assert plan == plans(buffers)
        assert len(plan) > 1000
    built = [line for line in console.said if line.startswith("Building")]
    assert built == ["Building the TensorRT engine for this device (resize of 321×241 to 64×64)."
                     " This takes minutes, once. Ctrl-C stops it."] * 2  # fmt: skip
