"""Executions from a seed, without coverage: what the tests run, and a campaign where atheris is not installed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from guard import Finding, Memory, install
from reader import Reader, execute

CORPUS = Path(__file__).parent / "corpus"
LARGEST = 1 << 20
"""Bytes of a changed file."""


def kept(reader: Reader) -> list[bytes]:
    """Return the files that once were findings, or nearly."""
    return [path.read_bytes() for path in sorted((CORPUS / reader.name).glob("*"))]


def run(reader: Reader, folder: Path, executions: int, seed: int = 0) -> Iterator[tuple[bytes, Finding | None]]:
    """Read the seeds, the kept files and so many changed ones; yield each with the finding, if it is one."""
    install()
    folder.mkdir(parents=True, exist_ok=True)
    whole = reader.seeds(folder)
    rng, pool = random.Random(seed), [*whole, *kept(reader)]
    for data in pool:
        yield data, attempt(reader, data, folder)
    memory = Memory()
    for _ in range(executions):
        data = rng.choice(pool)
        for _ in range(rng.choice((1, 1, 2, 3))):
            data = reader.change(data, rng)[:LARGEST]
        memory.restart()  # what the change took is not the reader's
        finding = attempt(reader, data, folder)
        if finding is None and memory.grown > reader.memory:
            finding = Finding(f"the process grew by {memory.grown:.0f} MiB")
        yield data, finding


def attempt(reader: Reader, data: bytes, folder: Path) -> Finding | None:
    """Execute; return the finding, if it is one."""
    try:
        execute(reader, data, folder)
    except Finding as finding:
        return finding
    return None
