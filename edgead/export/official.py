"""`edgead import --method`: a published checkpoint becomes a bundle that scores as the published code does."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

import edgead.train  # noqa: F401  first: it says what to install where PyTorch is missing
from edgead.bundle import MODEL, Bundle
from edgead.console import Console
from edgead.datasets import find_depth_range, open_category
from edgead.errors import ConfigError, DataError
from edgead.export.choose import PrecisionOptions
from edgead.export.complete import assemble, limits_of, run_singly, seal
from edgead.export.imported import choose_import_target, data_of, files_of, lower_precision, probe_frames
from edgead.export.parity import run_reference
from edgead.export.threshold_data import ThresholdData, load_threshold_data
from edgead.export.to_onnx import facts_of_reconstruction, write_onnx
from edgead.files import atomic_folder
from edgead.images import COLOUR, Frame, PixelFormat, cv2, fit_frame, read_frame
from edgead.manifest import InputRecord, Origin, ResizeRecord, TrainingRecord, sizes_of
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.train.method import Method
from edgead.train.methods import get_method
from edgead.train.official import find_files, load_official

COMPARED = 32
"""Images on which the published way to resize is compared with ours."""


def import_checkpoint(
    files: Sequence[str | Path],
    method: str,
    *,
    threshold_data: str | Path | None = None,
    settings: Iterable[str] = (),
    out: str | Path | None = None,
    false_reject: float = 0.01,
    precision: PrecisionOptions | None = None,
    force: bool = False,
    console: Console | None = None,
) -> Bundle:
    """Make a bundle of a checkpoint that a method's published code saved.

    The manifest's ``origin`` says what is reproduced, and how far scores move because frames are resized by
    `edgead.images.fit_frame`, not as the published code does it.

    Args:
        files: the checkpoint; of a pair, one is enough where the other lies where it was saved.
        method: whose it is.
        threshold_data: images of good parts, best ones that the model was not trained on.
        settings: ``NAME=VALUE`` of what the weights do not tell.
        out: the bundle's folder; ``runs/import/NAME.edgead`` by default, ``NAME-int8.edgead`` in another precision.
            The same bundle, made again, replaces the one that is there.
        false_reject: wanted bound on the share of good parts that fail.
        precision: to a lower precision than float32.
        force: replace any bundle in `out`.
        console: what shows progress.

    Raises:
        CheckpointError: not this method's checkpoint, with what differs.
        GateError: the graph differs from the network, or the precision does not pass the gate.
        EdgeadError: see `edgead.errors`.
    """
    console, kind = console or Console(), get_method(method)
    if threshold_data is None:
        raise ConfigError("A checkpoint holds no threshold. Give images of good parts with --threshold-data DIR.")
    paths = find_files(kind, [Path(file) for file in files])
    network = load_official(kind, paths, settings)
    size, pixels = network.config.size, _read_depth_scale(kind, network, threshold_data, console)
    normals = load_threshold_data(threshold_data, size, console, pixels)
    folder = choose_import_target(
        out, paths, method, dataclasses.asdict(network.config), normals, false_reject, precision, force
    )
    network.calibrate(normals.frames.frames)
    probes = probe_frames(normals, size)
    with atomic_folder(folder) as temporary:
        console.say("tracing the network to ONNX")
        (temporary / "fp32").mkdir()
        shown = network.reconstruction()
        write_onnx(
            network.export_model(),
            size,
            temporary / "fp32" / MODEL,
            kind.sensitive,
            network.config.channels,
            shown.module if shown else "",
        )
        assert kind.official is not None
        origin = Origin(
            what=f"a checkpoint of {kind.card.title}'s published code",
            files=files_of(paths),
            inference=kind.official.inference,
            resize=compare_resize(
                OnnxRuntimeEngine(temporary / "fp32" / MODEL), normals, size, kind.official.resize, console, pixels
            ),
            versions={"torch": importlib.metadata.version("torch")},
        )
        channels = None if pixels.depth_range is None else pixels.channels
        facts = {
            "name": folder.name.removesuffix(".edgead"),
            "method": method,
            "preset": "official",
            "config": dataclasses.asdict(network.config),
            "category": normals.category,
            "input": InputRecord(size[0], size[1], 16, channels=channels, depth_range=pixels.depth_range),
            "data": data_of(normals),
            "training": TrainingRecord(),
            "images": sizes_of(normals.frames.size_ranges()),
            "reconstruction": facts_of_reconstruction(shown),
            "origin": origin,
        }
        assembled = assemble(
            temporary / "fp32",
            facts,
            reference=lambda frames: run_reference(network.reference_model(), frames),
            probes=probes,
            shown=[0, 1, len(probes) // 2, len(probes) // 2 + 1],
            limits=lambda engine: limits_of(engine, normals.frames.frames, false_reject, console),
            console=console,
        )
        if precision:
            assembled = lower_precision(assembled, precision, normals, false_reject, console)
        manifest = seal(temporary, assembled, console)
    console.say(f"Imported: {folder}")
    return Bundle(folder, manifest)


def _read_depth_scale(kind: type[Method], network: Method, data: str | Path, console: Console) -> PixelFormat:
    """Give a network for colour and depth the publication's scale of depth; return how its images are read.

    Frames hold depth in 254 steps, so the range is that of the images at hand, and the graph brings it to the scale.

    Raises:
        DataError: images without depth, or with depth beyond the published scale: another unit.
    """
    if not network.config.reads_depth:
        return COLOUR
    assert kind.official is not None
    images = open_category(data).normals
    if not images:
        raise DataError(f"{data} holds no images of good parts; the threshold needs some.")
    (near, far), _ = find_depth_range(images, console.track("measuring depth"))
    low, high = kind.official.depth_scale
    if far > high:
        raise DataError(
            f"The depth in {data} reaches {far:.4g}; the published checkpoint takes metres up to {high:g}, as MVTec "
            "3D-AD has them.\nWrite the depth in metres."
        )
    values = tuple((distance - high) / (high - low) for distance in (near, far))
    network.config = network.config.replaced(depth_values=values)
    console.say(f"depth from {near:g} to {far:g} m, on the published scale from {low:g} to {high:g} m")
    return PixelFormat(depth_range=(near, far))


def compare_resize(
    engine: OnnxRuntimeEngine,
    normals: ThresholdData,
    size: tuple[int, int],
    how: str,
    console: Console,
    pixels: PixelFormat = COLOUR,
) -> ResizeRecord:
    """Measure how far the scores of good images move where `fit_frame` resizes them instead of the published code."""
    paths = normals.frames.paths[:COMPARED]
    images = [read_frame(path, pixels) for path in paths]
    published = np.stack([resize(image, size, how) for image in images])
    ours = np.stack([fit_frame(image, size) for image in images])
    if (published == ours).all():
        return ResizeRecord(how, len(paths), same_pixels=True)
    (before, _), (after, _) = (run_singly(engine, frames, console.track("scoring")) for frames in (published, ours))
    change = np.abs(after.astype(float) - before)
    console.say(
        f"resized by us instead of {how}, scores of good images move by {change.mean():.2g} on average and "
        f"{change.max():.2g} at most; they are {before.mean():.3g} ± {before.std():.2g}"
    )
    return ResizeRecord(
        how,
        len(paths),
        same_pixels=False,
        mean_change=float(change.mean()),
        largest_change=float(change.max()),
        published_mean=float(before.mean()),
        published_deviation=float(before.std()),
    )


def resize(frame: Frame, size: tuple[int, int], how: str) -> Frame:
    """Resize ``(H, W, C) uint8`` to (height, width) as a published code does, see `edgead.train.method.Official`.

    Depth takes its nearest neighbours.
    """
    if frame.shape[2] > COLOUR.channels:
        depth = cv2().resize(np.ascontiguousarray(frame[..., 3]), size[::-1], interpolation=cv2().INTER_NEAREST)
        return np.dstack([resize(frame[..., :3], size, how), depth])
    if how == "opencv linear":
        return np.asarray(cv2().resize(frame, size[::-1], interpolation=cv2().INTER_LINEAR))
    from PIL import Image

    filters = {"pillow bilinear": Image.Resampling.BILINEAR, "pillow bicubic": Image.Resampling.BICUBIC}
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize(size[::-1], filters[how]))
