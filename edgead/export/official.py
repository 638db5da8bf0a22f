"""`edgead import --method`: a published checkpoint becomes a bundle that scores as the published code does."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import edgead.train  # noqa: F401  first: it says what to install where PyTorch is missing
from edgead.bundle import MODEL, Bundle
from edgead.console import Console
from edgead.errors import ConfigError
from edgead.export.choose import PrecisionOptions
from edgead.export.complete import assemble, limits_of, run_singly, seal
from edgead.export.imported import data_of, files_of, lower_precision, probe_frames, target
from edgead.export.parity import run_reference
from edgead.export.threshold_data import ThresholdData, load_threshold_data
from edgead.export.to_onnx import write_onnx
from edgead.files import atomic_folder
from edgead.images import Frame, cv2, fit_frame, read_frame
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
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
        out: the bundle's folder; ``runs/import/NAME.edgead`` by default. A bundle that is there is replaced.
        false_reject: wanted bound on the share of good parts that fail.
        precision: to a lower precision than float32.
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
    folder = target(out, paths[0].stem)
    network = load_official(kind, paths, settings)
    size = network.config.size
    normals = load_threshold_data(threshold_data, size, console)
    network.calibrate(normals.frames.frames)
    probes = probe_frames(normals, size)
    with atomic_folder(folder) as temporary:
        console.say("tracing the network to ONNX")
        (temporary / "fp32").mkdir()
        write_onnx(network.deployable(), size, temporary / "fp32" / MODEL, kind.sensitive)
        assert kind.official is not None
        origin: dict[str, Any] = {
            "what": f"a checkpoint of {kind.card.title}'s published code",
            "files": files_of(paths),
            "inference": kind.official.inference,
            "resize": compare_resize(
                OnnxRuntimeEngine(temporary / "fp32" / MODEL), normals, size, kind.official.resize, console
            ),
            "versions": {"torch": importlib.metadata.version("torch")},
        }
        facts = {
            "name": folder.name.removesuffix(".edgead"),
            "method": method,
            "preset": "official",
            "config": dataclasses.asdict(network.config),
            "category": normals.category,
            "input": {"height": size[0], "width": size[1], "bit_depth": 16},
            "data": data_of(normals),
            "training": {},
            "origin": origin,
        }
        assembled = assemble(
            temporary / "fp32",
            facts,
            reference=lambda frames: run_reference(network.detector(), frames),
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


def compare_resize(
    engine: OnnxRuntimeEngine, normals: ThresholdData, size: tuple[int, int], how: str, console: Console
) -> dict[str, Any]:
    """Measure how far the scores of good images move where `fit_frame` resizes them instead of the published code."""
    paths = normals.frames.paths[:COMPARED]
    images = [read_frame(path) for path in paths]
    published = np.stack([resize(image, size, how) for image in images])
    ours = np.stack([fit_frame(image, size) for image in images])
    facts: dict[str, Any] = {"published": how, "images": len(paths), "same_pixels": bool((published == ours).all())}
    if facts["same_pixels"]:
        return facts
    (before, _), (after, _) = (run_singly(engine, frames, console.track("scoring")) for frames in (published, ours))
    change = np.abs(after.astype(float) - before)
    facts |= {
        "mean_change": float(change.mean()),
        "largest_change": float(change.max()),
        "published_mean": float(before.mean()),
        "published_deviation": float(before.std()),
    }
    console.say(
        f"resized by us instead of {how}, scores of good images move by {change.mean():.2g} on average and "
        f"{change.max():.2g} at most; they are {before.mean():.3g} ± {before.std():.2g}"
    )
    return facts


def resize(frame: Frame, size: tuple[int, int], how: str) -> Frame:
    """Resize ``(H, W, 3) uint8`` to (height, width) as a published code does, see `edgead.train.method.Official`."""
    if how == "opencv linear":
        return np.asarray(cv2().resize(frame, size[::-1], interpolation=cv2().INTER_LINEAR))
    from PIL import Image

    filters = {"pillow bilinear": Image.Resampling.BILINEAR, "pillow bicubic": Image.Resampling.BICUBIC}
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize(size[::-1], filters[how]))
