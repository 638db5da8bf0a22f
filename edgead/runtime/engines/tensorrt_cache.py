"""The plans that were built on this device: ``tensorrt/`` in the cache folder, each with a note of what it is.

KEY.plan   the plan
KEY.json   what it was built from and on, its SHA-256, and the trtexec line that builds the same in the bundle's folder
KEY.lock   held by the process that builds it; the system frees it when that process is gone
"""

from __future__ import annotations

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
from edgead.files import file_lock, sha256, write_json
from edgead.home import cache_folder
from edgead.machine import Gpu
from edgead.runtime.engines.tensorrt_build import BuildRequest, BuildSettings, is_strong, trtexec_line
from edgead.runtime.engines.tensorrt_process import build_in_process, disk_error


@dataclasses.dataclass(frozen=True)
class CachedPlan:
    """Where the plan of one bundle for one device is, or will be.

    Attributes:
        path: of the plan.
        request: how it is built.
        facts: all that the plan depends on; they make its name.
        precision: of the bundle, for a person.
    """

    path: Path
    request: BuildRequest
    facts: dict[str, Any]
    precision: str

    @property
    def note(self) -> Path:
        """The file beside it."""
        return self.path.with_suffix(".json")

    def read(self, console: Console, refused: bytes = b"") -> bytes:
        """Return the plan, built first where it is not there or not what was written.

        Of several processes that want the same plan, one builds and the others wait for it. One that is whole needs no
        lock, and no folder that can be written.

        Args:
            console: where is said what takes long.
            refused: a plan from here that does not load. If it is still the one in the cache, it is built again.

        Raises:
            BundleError, ConfigError, DeviceError: see `edgead.runtime.engines.tensorrt_process.build_in_process`;
                DeviceError also where the cache's folder cannot be written.
        """
        if plan := self._load(refused):
            return plan
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            busy = partial(console.say, "Another process is building this engine; waiting for it.")
            with file_lock(self.path.with_suffix(".lock"), busy):
                if plan := self._load(refused):  # another process has built it
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
                shutil.rmtree(path)  # nothing of ours, and in the place of the plan
            else:
                path.unlink(missing_ok=True)

    def _load(self, refused: bytes) -> bytes:
        """Return the plan if it is whole and not the one that was refused, or nothing.

        The note is written last, so that a plan without one, or with another's hash, was cut off or damaged, or is
        being replaced at this moment.
        """
        try:
            plan = self.path.read_bytes()
            note = json.loads(self.note.read_text(encoding="utf-8"))
            is_whole = note["sha256"] == hashlib.sha256(plan).hexdigest()
            return plan if is_whole and plan != refused else b""
        except (OSError, ValueError, KeyError, TypeError):
            return b""

    def _build(self, console: Console) -> None:
        what = f"Building the TensorRT engine for this device ({self.precision})."
        console.say(f"{what} It takes minutes, once; Ctrl-C stops it.")
        built = build_in_process(self.request, console)
        # A plan outlives the folder that its graph was in: an export builds before its bundle has its name.
        line = self._trtexec(dataclasses.replace(self.request, model=MODEL), built.strong, built.precision)
        os.replace(self.request.plan, self.path)
        write_json(self.note, {"sha256": sha256(self.path), **self.facts, **dataclasses.asdict(built), "trtexec": line})
        console.say(f"Built in {built.seconds} s: {self.path}")

    def by_hand(self) -> str:
        """Return the trtexec line that builds the plan from its bundle; empty where it is not built."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return self._trtexec(self.request, note["strong"], note["precision"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def _trtexec(self, request: BuildRequest, strong: bool, precision: list[str]) -> str:
        return trtexec_line(request, self.facts["tensorrt"], strong, precision)


def find_plan(
    bundle: Bundle, trt: Any, gpu: Gpu, settings: BuildSettings, batches: tuple[int, ...] = (1,)
) -> CachedPlan:
    """Name the plan of a bundle for a device. Whatever a plan depends on is in its name.

    Raises:
        ConfigError: a setting that this version of TensorRT does not have.
    """
    resolved = dataclasses.replace(settings, typing="strong" if is_strong(trt, settings.typing) else "weak")
    facts = {
        "model": bundle.manifest.files[MODEL],
        "tensorrt": str(trt.__version__),
        "gpu": gpu.name,
        "capability": gpu.capability,
        "driver": gpu.driver,
        "batches": list(batches),
        "settings": dataclasses.asdict(resolved),
    }
    folder = cache_folder() / "tensorrt"
    path = folder / f"{_digest(facts)}.plan"
    device = [facts[name] for name in ("tensorrt", "gpu", "capability", "driver")]
    request = BuildRequest(
        model=str(bundle.model),
        size=bundle.manifest.size,
        batches=batches,
        plan=str(path.with_suffix(".part")),
        timing_cache=str(folder / f"{_digest(device)}.timing"),
        settings=resolved,
        channels=bundle.manifest.pixels.channels,
        sha256=bundle.manifest.files[MODEL],
    )
    return CachedPlan(path, request, facts, bundle.manifest.precision)


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
