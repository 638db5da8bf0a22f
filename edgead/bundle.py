"""The bundle: the folder ``NAME.edgead`` that travels from export to the line. Described in docs/bundle.md.

manifest.json   what is in here, how it was made, and the SHA-256 of the other files
model.onnx      frames -> scores, maps
golden.npz      a few frames and what they must give, so that a bundle proves itself where it lands
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.errors import BundleError
from edgead.files import atomic_file, sha256, write_json
from edgead.images import PixelFormat

FORMAT = 1
SHOWN_LAYERS = 5
"""Of a layer table, where it is told in one line."""
MANIFEST, MODEL, GOLDEN = "manifest.json", "model.onnx", "golden.npz"


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` holds.

    Attributes:
        format: version of this format; a reader refuses a newer one.
        name: of the bundle.
        method, preset, config: how the model was configured.
        category: name of the product.
        input: ``height``, ``width`` in pixels and ``bit_depth`` of 16-bit images; ``batch`` 1 where the graph takes no
            more than one frame at a time; where frames have depth,
            ``channels`` 4 and ``depth_range``, the distances of codes 1 and 255, see `edgead.depth`.
        precision: of the graph, ``"fp32"``, ``"fp16"``, ``"int8"`` or ``"int8-fp16"``.
        threshold: ``value``, ``normals``, ``false_reject_bound``, ``requested_bound``; see `edgead.decision.Threshold`.
            ``scores`` and ``peaks`` are the sorted scores and highest map values of the held-out images.
        mask_threshold: map values above it belong to the mask.
        parity: graph against the trained network: ``frames``, ``score_error``, ``map_error``; and what an engine may
            differ from the golden outputs, ``tolerance`` of scores and ``map_tolerance`` (absolute, in units of the
            score).
        data: ``fingerprint`` of the training images and ``held_out_fingerprint``, SHA-256.
        training: ``seed``, ``steps``, ``created`` and package ``versions``.
        created: UTC, ISO 8601.
        edgead: version that wrote the bundle.
        origin: of an imported model: ``what`` it is, its ``files`` with their SHA-256, and how it was read; see
            docs/import.md. Empty where edgead trained it, and in bundles of edgead 0.1.
        calibration: of a lowered precision: ``method``, ``images``, ``source`` and ``fingerprint`` of the images.
        gate: of a lowered precision: what was measured, what was allowed, what was handed back; docs/precision.md.
        reconstruction: the ``tensor`` inside the graphs that shows the reconstructed good image, ``[N, C, H, W]`` with
            three or more channels, BGR first, and its values of ``black`` and ``white``. Empty, or not there, where
            there is none.
        images: of the training images (of an imported model, the images for the threshold), see
            `edgead.datasets.Frames.size_ranges`: ``heights``, ``widths``, ``aspects``. Empty where they are not known.
        files: file name ↦ SHA-256, for every file but the manifest.
        digest: SHA-256 of the manifest itself, see `manifest_digest`.
    """

    format: int
    name: str
    method: str
    preset: str
    config: dict[str, Any]
    category: str
    input: dict[str, Any]
    precision: str
    threshold: dict[str, Any]
    mask_threshold: float
    parity: dict[str, float]
    data: dict[str, str]
    training: dict[str, Any]
    created: str
    edgead: str
    origin: dict[str, Any] = dataclasses.field(default_factory=dict)
    calibration: dict[str, Any] = dataclasses.field(default_factory=dict)
    gate: dict[str, Any] = dataclasses.field(default_factory=dict)
    reconstruction: dict[str, Any] = dataclasses.field(default_factory=dict)
    images: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    digest: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Input (height, width) in pixels."""
        return self.input["height"], self.input["width"]

    @property
    def aspects(self) -> tuple[float, float] | None:
        """Lowest and highest width / height of the training images; None where it is not known."""
        found = self.images.get("aspects")
        return None if found is None else (found[0], found[1])

    @property
    def pixels(self) -> PixelFormat:
        """How images become frames."""
        depth_range = self.input.get("depth_range")
        return PixelFormat(self.input["bit_depth"], None if depth_range is None else (depth_range[0], depth_range[1]))

    @property
    def failed_engines(self) -> dict[str, str]:
        """Engines of the machine that made the bundle that do not run this precision there, and why."""
        return dict(self.gate.get("failed_here", {}).get(self.precision, {}))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a fitted frame: (height, width, channels)."""
        return *self.size, self.pixels.channels


Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Scores ``[K]`` and maps ``[K, H, W]``."""


@dataclass(frozen=True)
class Golden:
    """Frames ``[K, H, W, C] uint8`` and the trained network's scores ``[K]`` and maps ``[K, H, W]`` on them.

    Of a lowered precision, `forms` holds what each of its graphs gave that the gate judged: an engine must agree with
    one of them.
    """

    frames: NDArray[np.uint8]
    scores: NDArray[np.float32]
    maps: NDArray[np.float32]
    forms: tuple[Outputs, ...] = ()


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and whose files were checked."""

    path: Path
    manifest: Manifest

    @property
    def model(self) -> Path:
        """The ONNX graph."""
        return self.path / MODEL

    def golden(self) -> Golden:
        """Return the golden frames. They are read once: what runs does not depend on the folder any more.

        Raises:
            BundleError: the file does not hold them.
        """
        return self._golden

    @functools.cached_property
    def _golden(self) -> Golden:
        try:
            with np.load(self.path / GOLDEN, allow_pickle=False) as arrays:
                stored = (arrays[name] for name in ("form_scores", "form_maps") if name in arrays)
                return Golden(arrays["frames"], arrays["scores"], arrays["maps"], tuple(zip(*stored)))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise BundleError(f"{self.path / GOLDEN} does not hold golden frames: {error}") from error


def write_bundle(folder: Path, manifest: Manifest, golden: Golden) -> Manifest:
    """Complete a folder that holds the graph already: golden frames, hashes, and the manifest last.

    Returns:
        The manifest with the hashes of the files.
    """
    arrays: dict[str, Any] = {"frames": golden.frames, "scores": golden.scores, "maps": golden.maps}
    if golden.forms:
        arrays["form_scores"], arrays["form_maps"] = (np.stack(values) for values in zip(*golden.forms))
    with atomic_file(folder / GOLDEN) as stream:
        np.savez_compressed(stream, **arrays)
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    manifest = dataclasses.replace(manifest, files=files)
    manifest = dataclasses.replace(manifest, digest=manifest_digest(dataclasses.asdict(manifest)))
    write_json(folder / MANIFEST, dataclasses.asdict(manifest))
    return manifest


def manifest_digest(values: dict[str, Any]) -> str:
    """SHA-256 over a manifest's fields but `digest`, as JSON with sorted keys and without spaces."""
    rest = {name: value for name, value in values.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def describe_gate(gate: dict[str, Any]) -> str:
    """Say in one line what a bundle's gate found, of its worst form."""
    forms = gate["forms"].values()
    frames, settled = (min(form[name] for form in forms) for name in ("frames", "settled"))
    flips = max(form["flips_of_normals"] + form["flips_of_synthetic_anomalies"] for form in forms)
    borderline = max(form["borderline_flips"] for form in forms)
    drops = [form["image_auroc_drop"] for form in forms if "image_auroc_drop" in form]
    labelled = f"AUROC drops by {max(drops):.4f} on {gate['labelled_images']} labelled images" if drops else "no labels"
    return (
        f"passed with {len(gate['handed_back'])} of {gate['layers']} layers handed back; of {settled} settled verdicts "
        f"{flips} change, of {frames - settled} borderline ones {borderline}; {labelled}"
    )


def describe_sensitivity(table: Sequence[dict[str, Any]]) -> str:
    """Name in one line the layers that lost most when they alone were lowered, with the errors of score and map."""

    def figure(error: float | None) -> str:
        return "not finite" if error is None or not np.isfinite(error) else f"{error:.2g}"

    rows = table[:SHOWN_LAYERS]
    worst = ", ".join(f"{row['layer']} {figure(row['score_error'])} / {figure(row['map_error'])}" for row in rows)
    return f"{worst} (error of score / map, each layer lowered alone; {len(table)} layers in the manifest)"


def is_bundle(path: Path) -> bool:
    """Tell whether a folder is a bundle and nothing else, so that it may be replaced by another."""
    try:
        manifest = _read_manifest(path)
    except BundleError:
        return False
    return {file.name for file in path.iterdir()} <= {MANIFEST, *manifest.files}


def read_bundle(path: str | Path) -> Bundle:
    """Read a bundle and check the hash of every file in it.

    Raises:
        BundleError: not a bundle, of a newer format, a field or file missing, or a file that was changed.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    for name, expected in manifest.files.items():
        file = path / name
        if Path(name).name != name or not file.is_file():
            raise BundleError(f"{path} is incomplete: {name} is missing. Copy the bundle again, or export it again.")
        if sha256(file) != expected:
            raise BundleError(
                f"{file} is damaged: its SHA-256 is not the one in the manifest.\n"
                "Copy the bundle again, or export it again."
            )
    missing = {MODEL, GOLDEN} - manifest.files.keys()
    if missing:
        raise BundleError(f"The manifest of {path} does not list {', '.join(sorted(missing))}.")
    return Bundle(path, manifest)


def _read_manifest(path: Path) -> Manifest:
    if not path.is_dir():
        raise BundleError(f"{path} is not a bundle: " + ("it is a file." if path.exists() else "it does not exist."))
    try:
        values = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path / MANIFEST} is damaged: {error}") from error
    version = values.get("format") if isinstance(values, dict) else None
    if not isinstance(version, int):
        raise BundleError(f"{path / MANIFEST} is damaged: it has no format version.")
    if version > FORMAT:
        raise BundleError(
            f"{path} has format {version}; this edgead reads up to {FORMAT}.\n"
            "Upgrade with:  pip install --upgrade edgead"
        )
    fields = dataclasses.fields(Manifest)
    optional = {"origin", "calibration", "gate", "images", "reconstruction"}
    absent = [field.name for field in fields if field.name not in values and field.name not in optional]
    if absent:
        raise BundleError(f"{path / MANIFEST} is damaged: it has no {', '.join(absent)}.")
    if values["digest"] != manifest_digest(values):
        raise BundleError(
            f"{path / MANIFEST} is damaged: it was changed since it was written. Export the bundle again."
        )
    manifest = Manifest(**{field.name: values[field.name] for field in fields if field.name in values})
    try:
        (height, width, channels), depth_range = manifest.shape, manifest.pixels.depth_range or (0, 1)
        usable = (
            min(height, width, manifest.pixels.bit_depth - 8) > 0
            and manifest.input.get("channels", 3) == channels
            and 0 <= depth_range[0] < depth_range[1] < np.inf
            and np.isfinite([manifest.threshold["value"], manifest.mask_threshold]).all()
            and np.isfinite([manifest.parity[name] for name in ("score_error", "map_error", "tolerance")]).all()
            and isinstance(manifest.files, dict)
            and (manifest.aspects is None or 0 < manifest.aspects[0] <= manifest.aspects[1] < np.inf)
        )
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise BundleError(f"{path / MANIFEST} is damaged: {error!r}.") from error
    if not usable:
        raise BundleError(f"{path / MANIFEST} is damaged: input size, threshold or files make no sense.")
    return manifest
