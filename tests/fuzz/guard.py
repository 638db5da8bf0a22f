"""What a reader of hostile files must not do, noticed while it runs: hang, grow, write, connect, unpickle, start."""

from __future__ import annotations

import functools
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SECONDS = 5.0
"""CPU seconds of one execution. Not wall-clock time, so that a busy machine makes no finding."""
REPOSITORY = Path(__file__).parents[2]
READABLE = tuple(
    str(Path(path).resolve())
    for path in {sys.prefix, sys.base_prefix, *sys.path[1:], "/usr", "/proc", "/sys", "/dev", REPOSITORY / "edgead"}
    if path
)
"""What may be read beside the reader's own folder: the interpreter, its packages, and the system's facts."""
FORBIDDEN = {
    **dict.fromkeys(
        ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "urllib.Request"),
        "uses the network",
    ),
    **dict.fromkeys(
        ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn"), "starts a process"
    ),
    "pickle.find_class": "loads a pickle",
}
WRITES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod"}


class Finding(Exception):  # noqa: N818  not an error of a program, but of a reader
    """A reader did what it must not."""


class _Watch:
    folder: str = ""
    """Of the reader that runs; empty: none does."""
    noticed: str = ""
    """The first forbidden thing: readers may catch what an audit hook raises."""


_watch = _Watch()


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watch.folder or _watch.noticed:
        return
    what = FORBIDDEN.get(event) or (_touch(event, arguments) if event == "open" or event in WRITES else "")
    if what:
        _watch.noticed = f"{what}: {event} {str(arguments[:2])[:200]}"
        raise Finding(_watch.noticed)


def _touch(event: str, arguments: tuple[Any, ...]) -> str:
    path = arguments[0]
    if not isinstance(path, (str, bytes, os.PathLike)):
        return ""  # a number of a file that is open already
    name = os.fsdecode(path)
    above, _, last = name.rpartition(os.sep)
    if above == _watch.folder and last not in ("", ".", "..") and not os.path.islink(name):
        return ""  # what `realpath` would find too, in one step
    place = os.path.realpath(name)
    if place == _watch.folder or place.startswith(_watch.folder + os.sep):
        return ""
    flags = arguments[2] if event == "open" else os.O_WRONLY
    if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        is_bytecode = f"{os.sep}__pycache__{os.sep}" in place
        return "" if is_bytecode or place == os.devnull else "writes outside its folder"
    return "" if place.startswith(READABLE) else "reads outside its folder"


def _hang(_number: int, _frame: object) -> None:
    _watch.noticed = _watch.noticed or f"takes longer than {SECONDS:g} CPU seconds"
    raise Finding(_watch.noticed)


@functools.cache
def _resolved(folder: Path) -> str:
    return str(folder.resolve())


def install() -> None:
    """Begin to listen; an audit hook stays until the process ends."""
    if not getattr(_watch, "installed", False):
        sys.addaudithook(_hear)
        _watch.installed = True  # type: ignore[attr-defined]


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Raise `Finding` if what runs inside does something forbidden; `folder` is its own.

    Call it in the main thread, after `install`.
    """
    before = signal.signal(signal.SIGPROF, _hang)
    _watch.folder, _watch.noticed = _resolved(folder), ""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    except Exception as error:
        if _watch.noticed:  # the reader turned it into an error of its own
            raise Finding(_watch.noticed) from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        _watch.folder = ""
    if _watch.noticed:  # the reader swallowed it
        raise Finding(_watch.noticed)


class Memory:
    """The growth of this process since its beginning or the last `restart`, MiB at its peak."""

    def __init__(self) -> None:
        self._status, self._peaks = -1, -1
        with suppress(OSError):  # opened once: it is asked after every execution
            self._status = os.open("/proc/self/status", os.O_RDONLY)
            self._peaks = os.open("/proc/self/clear_refs", os.O_WRONLY)
        self.restart()

    def __del__(self) -> None:
        for number in (self._status, self._peaks):
            if number >= 0:
                os.close(number)

    def restart(self) -> None:
        """Forget earlier peaks, where the system can."""
        with suppress(OSError):
            os.pwrite(self._peaks, b"5", 0)
        self._before = self._peak()

    @property
    def grown(self) -> float:
        """MiB since then."""
        return self._peak() - self._before

    def _peak(self) -> float:
        try:
            text = os.pread(self._status, 4096, 0)
            return int(text[text.index(b"VmHWM:") + 6 :].split(None, 1)[0]) / 1024
        except (OSError, ValueError):
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
