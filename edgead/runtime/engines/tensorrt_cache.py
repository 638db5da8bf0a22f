"""Cache of the plans that were built on this device, in ``tensorrt/`` of the cache folder.

KEY.plan   the plan
KEY.json   its inputs, device, SHA-256 and seal, and the trtexec command that builds it in the bundle's folder
KEY.lock   held by the process that builds the plan; the system releases it when that process ends
resize-*.onnx   the graph of a resize on the device; its plan is another KEY.plan

A plan is code: it is loaded only if this user has built it (`edgead.signatures.seal`). Another one is built again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from edgead.bundle import MODEL, Bundle
from edgead.console import Console
from edgead.errors import ConfigError
from edgead.files import file_lock, sha256, write_json
from edgead.home import cache_folder
from edgead.machine import Gpu
from edgead.runtime.engines.tensorrt_build import BuildRequest, BuildSettings
from edgead.runtime.engines.tensorrt_process import build_in_process, disk_error
from edgead.runtime.engines.tensorrt_trtexec import trtexec_line
from edgead.runtime.engines.tensorrt_types import is_strong
from edgead.schema import parse_json
from edgead.signatures.seal import NotOursError, holds, mac, private_folder, read_own


@dataclasses.dataclass(frozen=True)
class PlanFacts:
    """Everything that a plan depends on: model, TensorRT, GPU, batch sizes and resolved settings."""

    model: str
    tensorrt: str
    gpu: str
    capability: str
    driver: str
    batches: list[int]
    settings: BuildSettings


@dataclasses.dataclass(frozen=True)
class CachedPlan:
    """The plan of one bundle for one device, built or not.

    Attributes:
        path: of the plan.
        request: how it is built.
        facts: what the plan depends on; the file name is their hash.
        precision: of the bundle, for messages.
    """

    path: Path
    request: BuildRequest
    facts: PlanFacts
    precision: str

    @property
    def note(self) -> Path:
        """The file beside it."""
        return self.path.with_suffix(".json")

    def read(self, console: Console, refused: bytes = b"") -> bytes:
        """Return the plan. Build it first if it is missing, damaged or not this user's own.

        If several processes need the same plan, one builds it and the others wait. Reading a complete plan needs no
        lock and no write access.

        Args:
            console: shows that a build takes long.
            refused: a cached plan that does not load. If it is still in the cache, it is rebuilt.

        Raises:
            BundleError, ConfigError, DeviceError: see `edgead.runtime.engines.tensorrt_process.build_in_process`;
                DeviceError also where the cache's folder cannot be written.
        """
        ours = True
        try:
            if plan := self._load(refused):
                return plan
        except NotOursError as error:
            ours = False
            console.say(f"The cached engine {self.path} {error}. edgead ignores it and builds the engine again.")
        try:
            private_folder(self.path.parent)
            busy = partial(console.say, "Another process is building this engine. Waiting for it.")
            with file_lock(self.path.with_suffix(".lock"), busy):
                with contextlib.suppress(NotOursError):
                    if ours and (plan := self._load(refused)):  # another process has built it
                        return plan
                self._discard()
                self._build(console)
                return self.path.read_bytes()
        except OSError as error:
            raise disk_error(self.path, error) from error

    def _discard(self) -> None:
        """Make room for a new plan; only under the lock, because another process may be writing there."""
        for path in (self.note, self.path, Path(self.request.plan)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)  # not written by edgead, but in the plan's place
            else:
                path.unlink(missing_ok=True)

    def _load(self, refused: bytes) -> bytes:
        """Return the plan if it is complete and not the refused one, else nothing.

        The note is written last: a plan without a note, or with another hash, is incomplete, damaged or just being
        replaced.

        Raises:
            NotOursError: it is complete, and not this user's own.
        """
        try:
            plan = read_own(self.path)
            note = self._read_note()
            is_whole = note["sha256"] == hashlib.sha256(plan).hexdigest()
        except NotOursError:
            raise
        except (OSError, ValueError, KeyError, TypeError):
            return b""
        if is_whole and not holds(note.get("seal"), *self._sealed(note)):
            raise NotOursError("has no seal of this user")
        return plan if is_whole and plan != refused else b""

    def _read_note(self) -> dict[str, Any]:
        found = parse_json(read_own(self.note))
        if not isinstance(found, dict):
            raise TypeError("a note is an object")
        return found

    def _sealed(self, note: dict[str, Any]) -> tuple[str, str]:
        """Return what the seal is over: the name, which stands for all that the plan depends on, and the note."""
        content = {name: value for name, value in note.items() if name != "seal"}
        return self.path.name, json.dumps(content, sort_keys=True)

    def write_note(self, facts: dict[str, Any]) -> None:
        """Write the note beside a plan that this process has built, with its seal.

        Raises:
            OSError: it cannot be written.
            ConfigError: there is no folder for the key.
        """
        note = {"sha256": sha256(self.path), **facts}
        write_json(self.note, {**note, "seal": mac(*self._sealed(note))})

    def _build(self, console: Console) -> None:
        what = f"Building the TensorRT engine for this device ({self.precision})."
        console.say(f"{what} This takes minutes, once. Ctrl-C stops it.")
        built = build_in_process(self.request, console)
        # The model's folder is temporary during an export, so the note has a relative path.
        line = self._trtexec(dataclasses.replace(self.request, model=MODEL), built.strong, built.precision)
        os.replace(self.request.plan, self.path)
        self.path.chmod(0o600)
        try:
            self.write_note({**dataclasses.asdict(self.facts), **dataclasses.asdict(built), "trtexec": line})
        except ConfigError as error:
            console.say(f"The engine is built again at the next start: {error}")
        console.say(f"Built in {built.seconds} s: {self.path}")

    def build_command(self) -> str:
        """Return the trtexec command that builds the plan from its bundle; empty if the plan is not built."""
        try:
            note = self._read_note()
            if not holds(note.get("seal"), *self._sealed(note)):
                return ""
            return self._trtexec(self.request, note["strong"], note["precision"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def _trtexec(self, request: BuildRequest, strong: bool, precision: list[str]) -> str:
        return trtexec_line(request, self.facts.tensorrt, strong, precision)


@dataclasses.dataclass(frozen=True)
class GraphFile:
    """A graph to build a plan of.

    Attributes:
        path: of the ONNX file.
        sha256: of its content.
        size: (height, width) of its frames in pixels.
        channels: of a frame.
        precision: for messages.
    """

    path: Path
    sha256: str
    size: tuple[int, int]
    channels: int
    precision: str


def find_plan(
    bundle: Bundle, trt: Any, gpu: Gpu, settings: BuildSettings, batches: tuple[int, ...] = (1,)
) -> CachedPlan:
    """Locate the plan of a bundle for a device. The file name covers everything that a plan depends on.

    Raises:
        ConfigError: a setting that this version of TensorRT does not have.
    """
    manifest = bundle.manifest
    digest, channels = manifest.files[MODEL], manifest.pixels.channels
    graph = GraphFile(bundle.model, digest, manifest.size, channels, manifest.precision)
    return find_plan_of(graph, trt, gpu, settings, batches)


def find_plan_of(
    graph: GraphFile, trt: Any, gpu: Gpu, settings: BuildSettings, batches: tuple[int, ...] = (1,)
) -> CachedPlan:
    """Locate the plan of a graph, as `find_plan` does."""
    resolved = dataclasses.replace(settings, typing="strong" if is_strong(trt, settings.typing) else "weak")
    facts = PlanFacts(
        model=graph.sha256,
        tensorrt=str(trt.__version__),
        gpu=gpu.name,
        capability=gpu.capability,
        driver=gpu.driver,
        batches=list(batches),
        settings=resolved,
    )
    folder = cache_folder() / "tensorrt"
    path = folder / f"{_digest(dataclasses.asdict(facts))}.plan"
    device = [facts.tensorrt, facts.gpu, facts.capability, facts.driver]
    request = BuildRequest(
        model=str(graph.path),
        size=graph.size,
        batches=batches,
        plan=str(path.with_suffix(".part")),
        timing_cache=str(folder / f"{_digest(device)}.timing"),
        settings=resolved,
        channels=graph.channels,
        sha256=graph.sha256,
    )
    return CachedPlan(path, request, facts, graph.precision)


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
