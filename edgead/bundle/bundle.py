"""The bundle: the folder ``NAME.edgead`` that export writes and the runtime reads. See docs/bundle.md.

manifest.json   configuration, origin, threshold, and the SHA-256 of the other files
model.onnx      frames -> scores, maps
golden.npz      a few frames and their reference outputs, which are re-run on the target machine
manifest.sig    of a signed bundle: the signature of manifest.json

Every file is checked against its hash in the manifest, a graph contains all of its weights, and files that the manifest
does not list are never read. Where only signed bundles are loaded (`edgead.signatures.trust`), there must not be any.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgead import schema
from edgead.bundle.graph_file import GraphError, check_graph
from edgead.bundle.manifest import Manifest
from edgead.errors import BundleError, ConfigError
from edgead.files import atomic_file, sha256, write_json
from edgead.geometry import STRETCH, Geometry
from edgead.npz import Headers, read_arrays, read_headers
from edgead.schema import PathText, SchemaError
from edgead.signatures.trust import SIGNATURE, SIGNATURE_BYTES, read_trust
from edgead.text import typed

FORMAT, FORMAT_OF_GEOMETRY, FORMAT_OF_STRETCH = 3, 2, 1
"""Of manifests: that of an alignment, of any other geometry, of none. Older versions of edgead read the older ones."""
MANIFEST, MODEL, GOLDEN = "manifest.json", "model.onnx", "golden.npz"
CPU_MODEL = "model.cpu.onnx"
"""A second graph of some INT8 bundles, in the form that engines on a CPU run fast."""
MOST_GOLDEN = 64
"""Most golden frames; export writes four."""
LARGEST_FILE = 2 << 30
"""Bytes of a file; an ONNX graph cannot be larger."""
EXPORT_AGAIN = "Copy the bundle again, or export it again."


Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Scores ``[K]`` and maps ``[K, H, W]``."""


@dataclass(frozen=True)
class Golden:
    """Frames ``[K, H, W, C] uint8`` and the trained network's scores ``[K]`` and maps ``[K, H, W]`` on them.

    For a lower precision, `variants` holds the outputs of each graph in the gate. An engine must agree with one.
    """

    frames: NDArray[np.uint8]
    scores: NDArray[np.float32]
    maps: NDArray[np.float32]
    variants: tuple[Outputs, ...] = ()


@dataclass(frozen=True)
class Bundle:
    """A bundle after its files were read and checked.

    Attributes:
        path: the folder, as it was named.
        manifest: its content.
        signer: fingerprint of the trusted key that signed it; empty if nobody was asked for.
        real: what `path` led to when it was read, if it has a link, which may lead to another bundle by now, as after
            `edgead pull`; None if it has none.
    """

    path: Path
    manifest: Manifest
    signer: str = ""
    real: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the files are that were read and checked."""
        return self.real or self.path

    @property
    def model(self) -> Path:
        """The ONNX graph."""
        return self.folder / MODEL

    def content(self, name: str) -> bytes:
        """Read a file of the manifest and check it; the returned bytes are the checked ones.

        Raises:
            BundleError: the file is missing, or its hash differs.
        """
        return _read_checked(self.folder, name, self.manifest.files[name])

    def golden(self) -> Golden:
        """Return the golden frames. They are read once, so a running engine does not depend on the folder.

        Raises:
            BundleError: the file is damaged.
        """
        return self._golden

    @functools.cached_property
    def _golden(self) -> Golden:
        data = self.content(GOLDEN)
        try:
            _check_golden(read_headers(data), self.manifest)
            arrays = read_arrays(data)
        except ValueError as error:
            raise BundleError(f"{self.folder / GOLDEN} does not hold golden frames: {error}.") from error
        stored = (arrays[name] for name in ("form_scores", "form_maps") if name in arrays)
        return Golden(arrays["frames"], arrays["scores"], arrays["maps"], tuple(zip(*stored)))


def format_of(geometry: Geometry) -> int:
    """Return the lowest format that has what a geometry needs: a reader that ignored it would decide wrongly."""
    if geometry.align is not None:
        return FORMAT
    return FORMAT_OF_STRETCH if geometry == STRETCH else FORMAT_OF_GEOMETRY


def cpu_model(bundle: Bundle) -> str:
    """Return the file name of the graph for CPU engines."""
    return CPU_MODEL if CPU_MODEL in bundle.manifest.files else MODEL


def write_bundle(folder: Path, manifest: Manifest, golden: Golden) -> Manifest:
    """Add golden frames, hashes and, last, the manifest to a folder with the graphs.

    Returns:
        The manifest with the hashes of the files.
    """
    arrays: dict[str, NDArray[np.generic]] = {"frames": golden.frames, "scores": golden.scores, "maps": golden.maps}
    if golden.variants:
        arrays["form_scores"], arrays["form_maps"] = (np.stack(values) for values in zip(*golden.variants))
    with atomic_file(folder / GOLDEN) as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return write_manifest(folder, manifest)


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Add hashes and the manifest to a folder that holds all other files.

    Returns:
        The manifest with the hashes of the files.

    Raises:
        ConfigError: no program could read the bundle: a value is outside its range.
    """
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    manifest = dataclasses.replace(manifest, files=files)
    manifest = dataclasses.replace(manifest, digest=manifest_digest(manifest.to_dict()))
    try:
        schema.read(Manifest, manifest.to_dict()).check()
    except SchemaError as error:
        raise ConfigError(f"No bundle was written, because no program could read it: {error}.") from error
    write_json(folder / MANIFEST, manifest.to_dict())
    return manifest


def manifest_digest(values: Mapping[str, object]) -> str:
    """SHA-256 over a manifest's fields except `digest`, as JSON with sorted keys and without spaces."""
    rest = {name: value for name, value in values.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def is_bundle(path: Path) -> bool:
    """Tell whether a folder is a bundle without other files, so that it may be replaced."""
    try:
        manifest = read_manifest(path)
    except BundleError:
        return False
    return {file.name for file in path.iterdir()} <= {MANIFEST, SIGNATURE, *manifest.files}


def read_bundle(path: str | Path, trust: Sequence[str | Path] | None = None) -> Bundle:
    """Read a bundle and check every file in it: signature, hash, graph and golden arrays.

    Files that the manifest does not list are never read; with `trust` they are refused.

    Args:
        path: the folder.
        trust: public keys, and folders of them, one of which must have signed it; None for those of the environment
            variable ``EDGEAD_TRUST``, an empty sequence for any bundle.

    Raises:
        BundleError: not a bundle, a newer format, a missing field or file, a changed file, or no trusted signature.
        ConfigError: a trusted key cannot be read.
    """
    named, trusted = Path(path), read_trust(trust)
    path = _without_links(named)
    content = read_manifest_file(path)
    signer = trusted.find_signer(path / MANIFEST, content, _read_signature(path)) if trusted else ""
    manifest = parse_manifest(path, content)
    if trusted:
        trusted.refuse_revoked(path, manifest.digest)
        refuse_others(path, manifest)
    for name, expected in manifest.files.items():
        data = _read_checked(path, name, expected)
        try:
            if name.endswith(".onnx"):
                check_graph(data)
            elif name == GOLDEN:
                _check_golden(read_headers(data), manifest)
        except GraphError as error:
            raise BundleError(f"{path / name} is refused: {error}.") from error
        except ValueError as error:
            raise BundleError(f"{path / name} does not hold golden frames: {error}.") from error
    if missing := {MODEL, GOLDEN} - manifest.files.keys():
        raise BundleError(f"The manifest of {path} does not list {', '.join(sorted(missing))}.")
    return Bundle(named, manifest, signer, None if path == named else path)


def _without_links(path: Path) -> Path:
    """Return what a path with links leads to now; the same path if there are none."""
    real = os.path.realpath(path)
    return path if real == os.path.abspath(path) or not os.path.exists(real) else Path(real)


def refuse_others(path: Path, manifest: Manifest) -> None:
    """Refuse a bundle with anything that its manifest does not list, or with links in place of files.

    Raises:
        BundleError: with the name of the file.
    """
    for entry in sorted(os.scandir(path), key=lambda each: each.name):
        shown = f"{path}{os.sep}{ascii(entry.name)[1:-1]}"
        if entry.name not in {MANIFEST, SIGNATURE, *manifest.files}:
            raise BundleError(f"{shown} is not part of the signed bundle. Remove it.")
        if not entry.is_file(follow_symlinks=False):
            raise BundleError(f"{shown} is not a file: a signed bundle holds no links and no folders. {EXPORT_AGAIN}")


def _read_signature(path: Path) -> bytes:
    file = path / SIGNATURE
    if not os.path.lexists(file):
        raise BundleError(
            f"{path} is not signed, and only signed bundles are loaded here.\n"
            f"Sign it where it was made:  edgead sign {typed(path.name)} --key FILE"
        )
    if file.is_symlink() or not file.is_file():
        raise BundleError(f"{file} is not a file. {EXPORT_AGAIN}")
    with file.open("rb") as stream:
        signature = stream.read(SIGNATURE_BYTES + 1)
    if len(signature) != SIGNATURE_BYTES:
        raise BundleError(f"{file} is damaged: a signature has {SIGNATURE_BYTES} bytes.")
    return signature


def _read_checked(path: Path, name: str, expected: str) -> bytes:
    """Read a file of a bundle once, so that the checked bytes are the used ones."""
    file = path / name
    if not PathText(one_name=True).allows(name) or not file.is_file():
        raise BundleError(f"{path} is incomplete: {ascii(name[:100])[1:-1]} is missing. {EXPORT_AGAIN}")
    if file.resolve().parent != path.resolve():
        raise BundleError(f"{file} is a link to a file outside the bundle. {EXPORT_AGAIN}")
    if file.stat().st_size > LARGEST_FILE:
        raise BundleError(f"{file} is larger than {LARGEST_FILE >> 30} GB, the limit for a file of a bundle.")
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != expected:
        raise BundleError(f"{file} is damaged: its SHA-256 differs from the manifest.\n{EXPORT_AGAIN}")
    return data


def _check_golden(headers: Headers, manifest: Manifest) -> None:
    """Refuse arrays that are not golden frames of this model, before any is read.

    Raises:
        ValueError: an array is missing or wrong.
    """
    shapes = {name: shape for name, (shape, _) in headers.items()}
    k = (shapes.get("frames") or (0,))[0]
    forms = (shapes.get("form_scores") or (0,))[0]
    wanted = {"frames": ((k, *manifest.shape), np.uint8), "scores": ((k,), np.float32)}
    wanted |= {"maps": ((k, *manifest.size), np.float32)}
    if "form_scores" in headers or "form_maps" in headers:
        wanted |= {"form_scores": ((forms, k), np.float32), "form_maps": ((forms, k, *manifest.size), np.float32)}
    if not 0 < k <= MOST_GOLDEN or forms > MOST_GOLDEN:
        raise ValueError(f"it must hold 1 to {MOST_GOLDEN} frames")
    for name, (shape, kind) in wanted.items():
        if name not in headers or headers[name] != (shape, np.dtype(kind)):
            found = "is missing" if name not in headers else f"is {headers[name][1]} {list(headers[name][0])}"
            raise ValueError(f"'{name}' {found}; it must be {np.dtype(kind)} {list(shape)}")
    if unknown := headers.keys() - wanted:
        raise ValueError(f"it holds an unknown array '{min(unknown)}'")


def _newer(path: Path, version: int, writer: object) -> str:
    """Return why a newer bundle is refused, and the version of edgead that reads it: that which wrote it."""
    known = isinstance(writer, str) and re.fullmatch(r"\d{1,5}(\.\d{1,5}){1,2}", writer)
    wrote, package = (f", written by edgead {writer}", f"'edgead>={writer}'") if known else ("", "edgead")
    return (
        f"{path} has format {version}{wrote}; this edgead reads up to {FORMAT}.\n"
        f"Upgrade with:  pip install --upgrade {package}"
    )


def read_manifest(path: Path) -> Manifest:
    """Read a bundle's manifest without checking signature and other files.

    Raises:
        BundleError: not a bundle, a newer format, or a changed manifest.
    """
    return parse_manifest(path, read_manifest_file(path))


def read_manifest_file(path: Path) -> bytes:
    """Return the bytes of a bundle's manifest.

    Raises:
        BundleError: not a bundle.
    """
    if not path.is_dir():
        raise BundleError(f"{path} is not a bundle: " + ("it is a file." if path.exists() else "it does not exist."))
    if (path / MANIFEST).is_symlink() and (path / MANIFEST).resolve().parent != path.resolve():
        raise BundleError(f"{path / MANIFEST} is a link to a file outside the bundle. {EXPORT_AGAIN}")
    try:
        return schema.read_json_file(path / MANIFEST)
    except FileNotFoundError as error:
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}.") from error
    except OSError as error:
        raise BundleError(f"{path / MANIFEST} cannot be read: {error.strerror or error}.") from error
    except SchemaError as error:
        raise BundleError(f"{path / MANIFEST} is damaged: {error}.\n{EXPORT_AGAIN}") from error


def parse_manifest(path: Path, content: bytes) -> Manifest:
    """Read a manifest from its bytes.

    Args:
        path: of the bundle, for messages.
        content: of its manifest.

    Raises:
        BundleError: a newer format, or a changed manifest.
    """
    try:
        values = schema.parse_json(content)
        version = values.get("format") if isinstance(values, dict) else None
        if not isinstance(version, int) or isinstance(version, bool):
            raise SchemaError("it has no format version")
        if version > FORMAT:
            raise BundleError(_newer(path, version, values.get("edgead")))
        manifest = schema.read(Manifest, values)
        manifest.check()
    except SchemaError as error:
        raise BundleError(f"{path / MANIFEST} is damaged: {error}.\n{EXPORT_AGAIN}") from error
    if manifest.digest != manifest_digest(values):
        raise BundleError(f"{path / MANIFEST} is damaged: it was changed after it was written.\n{EXPORT_AGAIN}")
    return manifest
