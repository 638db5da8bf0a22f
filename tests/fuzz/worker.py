"""Fuzzes one reader with atheris: libFuzzer, guided by the coverage of Python code. See `campaign`."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
from pathlib import Path

import atheris
from guard import Finding, Memory, install
from reader import Reader
from seeded import LARGEST, attempt, kept


def fuzz(reader: Reader, folder: Path, options: list[str]) -> None:
    """Fuzz until libFuzzer's options end it, and the process with it.

    Args:
        reader: under test.
        folder: gets ``corpus/`` and ``findings/``, where libFuzzer also leaves what ended the process.
        options: of libFuzzer.
    """
    memory_disk = Path("/dev/shm")
    scratch = Path(tempfile.mkdtemp(prefix=f"fuzz-{reader.name}-", dir=memory_disk if memory_disk.is_dir() else None))
    os.environ["XDG_CACHE_HOME"] = str(scratch)
    corpus, findings = folder / "corpus", folder / "findings"
    for each in (corpus, findings):
        each.mkdir(parents=True, exist_ok=True)
    install()
    for data in [*reader.seeds(scratch), *kept(reader)]:
        (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
        attempt(reader, data, scratch)  # imports what the first use imports
    memory, known = Memory(), set[str]()

    def keep(finding: Finding, data: bytes) -> None:
        what = str(finding).partition(": ")[0][:150]
        if what not in known:
            known.add(what)
            stem = hashlib.sha1(what.encode()).hexdigest()[:12]
            (findings / f"{stem}.bin").write_bytes(data)
            (findings / f"{stem}.txt").write_text(f"{finding}\n", errors="backslashreplace")

    def once(data: bytes) -> None:
        memory.restart()  # what the change took is not the reader's
        finding = attempt(reader, data, scratch)
        if finding is None and memory.grown > reader.memory:
            finding = Finding(f"the process grew by more than {reader.memory} MiB")
        if finding is not None:
            keep(finding, data)

    def change(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.3:
            return bytes(atheris.Mutate(data, most))
        return reader.change(data, rng)[: min(most, LARGEST)]

    atheris.Setup(["fuzz", str(corpus), f"-artifact_prefix={findings}/", *options], once, custom_mutator=change)
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
