"""Disks with room for few bytes: of each file, or of all together."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

APART = ("unshare", "--map-root-user", "--mount")


def run_on_small_disk(code: str, disk: Path, kilobytes: int) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process that has a disk of this size in a folder, its `sys.argv[1]`."""
    disk.mkdir(exist_ok=True)
    mounted = f"mount -t tmpfs -o size={kilobytes}k tmpfs {disk}"
    if not shutil.which("unshare") or subprocess.run([*APART, "sh", "-c", mounted], check=False).returncode:
        pytest.skip("a disk of its own needs Linux with unshare")
    command = [*APART, "sh", "-c", f'{mounted} && exec "$@"', "sh", sys.executable, "-c", code, str(disk)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """Let no file of this process grow above a size in bytes, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
