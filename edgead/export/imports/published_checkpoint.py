"""Import a checkpoint of a method's published code. The bundle scores as that code does."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

import edgead.train  # noqa: F401  first: it reports what to install if PyTorch is missing
from edgead.bundle import Bundle
from edgead.bundle.manifest import InputRecord
from edgead.bundle.provenance import Origin, ResizeRecord
from edgead.console import Console
from edgead.datasets import find_depth_range, open_category
from edgead.errors import CheckpointError, ConfigError, DataError
from edgead.export.builder import ModelSource, build_bundle
from edgead.export.graph.to_onnx import reconstruction_record, write_network
from edgead.export.imports.source_images import files_of, source_images
from edgead.export.imports.threshold_data import ThresholdData, load_threshold_data
from edgead.export.inference import run_reference, run_singly
from edgead.export.options import BuildOptions
from edgead.images import COLOUR, Frame, PixelFormat, cv2, fit_frame, read_frame
from edgead.runtime.engines import Engine
from edgead.text import typed
from edgead.train.checkpoint import WEIGHTS
from edgead.train.method import Method
from edgead.train.methods import get_method
from edgead.train.official import find_files, load_official
from edgead.train.run_config import CONFIG

COMPARED = 32
"""Images on which the published resizing is compared with `fit_frame`."""


def import_checkpoint(
    files: Sequence[Path],
    method: str,
    threshold_data: str | Path | None,
    settings: Iterable[str],
    options: BuildOptions,
) -> Bundle:
    """Convert a checkpoint of a method's published code to a bundle, see `edgead.export.import_model`.

    The manifest's ``origin`` states what is reproduced, and how far scores move because `edgead.images.fit_frame`
    resizes the frames instead of the published code.

    Raises:
        CheckpointError: not a checkpoint of this method, with the differences.
        GateError: the graph differs from the network, or the precision fails the gate.
        EdgeadError: see `edgead.errors`.
    """
    kind, console = get_method(method), options.console
    if threshold_data is None:
        raise ConfigError("A checkpoint holds no threshold. Add images of good parts with --threshold-data DIR.")
    paths = find_files(kind, files)
    _refuse_own_runs(paths)
    network = load_official(kind, paths, settings)
    pixels = _read_depth_scale(kind, network, threshold_data, console)
    normals = load_threshold_data(threshold_data, network.config.size, console, pixels)
    network.calibrate(normals.frames.frames)
    return build_bundle(_source_of(paths, network, normals, pixels, options), options)


def _refuse_own_runs(files: Sequence[Path]) -> None:
    """Weights alone do not tell what a run of edgead knows: crop, alignment, threshold, and some of the network."""
    for file in files:
        if file.name == WEIGHTS and (file.parent / CONFIG).is_file():
            raise CheckpointError(
                f"{file} belongs to a run of edgead, not to a published checkpoint. Export the run:\n"
                f"edgead export --checkpoint {typed(file.parent)}"
            )


def _source_of(
    paths: Sequence[Path],
    network: Method,
    normals: ThresholdData,
    pixels: PixelFormat,
    options: BuildOptions,
) -> ModelSource:
    official, size, files = network.official, network.config.size, files_of(paths)
    assert official is not None

    def origin(engine: Engine) -> Origin:
        return Origin(
            what=f"a checkpoint of {network.card.title}'s published code",
            files=files,
            inference=official.inference,
            resize=compare_resize(engine, normals, size, official.resize, options.console, pixels),
            versions={"torch": importlib.metadata.version("torch")},
        )

    return ModelSource(
        verb="import",
        name=paths[0].stem,
        method=network.name,
        preset="official",
        config=dataclasses.asdict(network.config),
        input=InputRecord.of(size, pixels),
        reconstruction=reconstruction_record(network),
        files=files,
        origin=origin,
        write_graph=lambda path: write_network(network, path, options.console),
        reference=lambda frames: run_reference(network.reference_model(), frames),
        images=source_images(normals, size, options.precision.labelled),
    )


def _read_depth_scale(kind: type[Method], network: Method, data: str | Path, console: Console) -> PixelFormat:
    """Set the published depth scale of a network for colour and depth; return the pixel format of its images.

    Frames hold depth in 254 steps over the range of the given images; the graph converts them to the published scale.

    Raises:
        DataError: images without depth, or depth beyond the published scale (another unit).
    """
    if not network.config.reads_depth:
        return COLOUR
    assert kind.official is not None
    images = open_category(data).normals
    if not images:
        raise DataError(f"{data} has no images of good parts; the threshold needs them.")
    (near, far), _ = find_depth_range(images, console.track("measuring depth"))
    low, high = kind.official.depth_scale
    if far > high:
        raise DataError(
            f"The depth in {data} reaches {far:.4g}; the published checkpoint accepts metres up to {high:g}, as in "
            "MVTec 3D-AD.\nConvert the depth to metres."
        )
    values = tuple((distance - high) / (high - low) for distance in (near, far))
    network.config = network.config.replaced(depth_values=values)
    console.say(f"depth from {near:g} to {far:g} m, on the published scale from {low:g} to {high:g} m")
    return PixelFormat(depth_range=(near, far))


def compare_resize(
    engine: Engine,
    normals: ThresholdData,
    size: tuple[int, int],
    how: str,
    console: Console,
    pixels: PixelFormat = COLOUR,
) -> ResizeRecord:
    """Measure the change of good images' scores if `fit_frame` resizes them, not the published code."""
    paths = normals.frames.paths[:COMPARED]
    images = [read_frame(path, pixels) for path in paths]
    published = np.stack([resize(image, size, how) for image in images])
    ours = np.stack([fit_frame(image, size) for image in images])
    if (published == ours).all():
        return ResizeRecord(how, len(paths), same_pixels=True)
    (before, _), (after, _) = (run_singly(engine, frames, console.track("scoring")) for frames in (published, ours))
    change = np.abs(after.astype(float) - before)
    console.say(
        f"resizing with edgead instead of {how} moves scores of good images by {change.mean():.2g} on average and "
        f"{change.max():.2g} at most (scores: {before.mean():.3g} ± {before.std():.2g})"
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

    Depth is resized by nearest neighbour.
    """
    if frame.shape[2] > COLOUR.channels:
        depth = cv2().resize(np.ascontiguousarray(frame[..., 3]), size[::-1], interpolation=cv2().INTER_NEAREST)
        return np.dstack([resize(frame[..., :3], size, how), depth])
    if how == "opencv linear":
        return np.asarray(cv2().resize(frame, size[::-1], interpolation=cv2().INTER_LINEAR))
    from PIL import Image

    filters = {"pillow bilinear": Image.Resampling.BILINEAR, "pillow bicubic": Image.Resampling.BICUBIC}
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize(size[::-1], filters[how]))
