"""Nothing half-written looks whole: not after an error, not on a full disk, not after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgead.files import atomic_file, atomic_folder, file_lock, is_path, refuse_unwritable, stays_below, write_json

LIMITED = """
# The system refuses to let a file grow further, as a full disk does.
import resource, signal, sys
from pathlib import Path
from edgead.files import atomic_file, atomic_folder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
target = Path(sys.argv[2])
try:
    if sys.argv[1] == "file":
        with atomic_file(target) as stream:
            stream.write(b"x" * 5000)
    else:
        with atomic_folder(target) as folder:
            (folder / "small").write_bytes(b"x" * 10)
            (folder / "large").write_bytes(b"x" * 5000)
except OSError:
    sys.exit(3)
"""


def test_a_file_appears_whole(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "sub" / "file") as stream:
        stream.write(b"new")
        assert not (tmp_path / "sub" / "file").exists()
    assert (tmp_path / "sub" / "file").read_bytes() == b"new"
    assert len(list((tmp_path / "sub").iterdir())) == 1


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "caf\udce9" * 63])
def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path, name: str) -> None:
    """The name of the file that comes before it was longer."""
    with atomic_file(tmp_path / "in" / name) as stream:
        stream.write(b"all of it")
    with atomic_folder(tmp_path / "folders" / name) as folder:
        (folder / "file").write_bytes(b"all of it")
    assert [path.name for path in (tmp_path / "in").iterdir()] == [name]
    assert [path.name for path in (tmp_path / "folders").iterdir()] == [name]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(TypeError), atomic_file(target) as stream:
        stream.writelines([b"half", "not bytes"])  # type: ignore[list-item]
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("existing", [False, True])
def test_an_error_leaves_the_old_folder(tmp_path: Path, existing: bool) -> None:
    target = tmp_path / "folder"
    if existing:
        target.mkdir()
        (target / "file").write_text("old")
    with pytest.raises(FileNotFoundError), atomic_folder(target) as folder:
        (folder / "file").write_text("half") and (folder / "absent").read_text()
    assert target.exists() == existing
    if existing:
        assert (target / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == existing


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "stale").write_text("old")
    with atomic_folder(target) as folder:
        (folder / "file").write_text("new")
    assert [path.name for path in target.iterdir()] == ["file"]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, kind: str) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, kind, str(tmp_path / "target")], check=False)
    assert done.returncode == 3
    assert list(tmp_path.iterdir()) == []


def test_a_kill_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    code = (
        "import os, signal, sys; from pathlib import Path; from edgead.files import atomic_file\n"
        "with atomic_file(Path(sys.argv[1])) as stream:\n"
        "    stream.write(b'half'); stream.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"


def test_json_refuses_what_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nan"):
        write_json(tmp_path / "file.json", {"score": float("nan")})
    assert os.listdir(tmp_path) == []


HOLD = """
import sys
from pathlib import Path
from edgead.files import file_lock
with file_lock(Path(sys.argv[1]), lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_free_when_its_process_was_killed(tmp_path: Path) -> None:
    path, busy = tmp_path / "x.lock", []
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        def kill() -> None:
            busy.append(True)
            holder.kill()

        with file_lock(path, kill):
            pass
    with file_lock(path, kill):  # the file is left behind, and no one holds it
        pass
    assert busy == [True]


def test_a_lock_keeps_out_other_threads(tmp_path: Path) -> None:
    path, order, waits = tmp_path / "x.lock", [], threading.Event()

    def wait() -> None:
        with file_lock(path, waits.set):
            order.append("second")

    thread = threading.Thread(target=wait)
    with file_lock(path, lambda: None):
        thread.start()
        assert waits.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_busy_lock_may_be_refused(tmp_path: Path) -> None:
    def refuse() -> None:
        raise OSError("busy")

    path = tmp_path / "x.lock"
    with file_lock(path, refuse), pytest.raises(OSError, match="busy"), file_lock(path, refuse):
        pass
    with file_lock(path, refuse):
        pass


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 256, "é" * 128, "x/" * 3000 + "y"])
def test_what_cannot_be_a_path_is_known_before_the_system_is_asked(tmp_path: Path, text: str) -> None:
    assert not is_path(text)
    assert not stays_below(text)
    with pytest.raises((OSError, ValueError)):
        (tmp_path / text).stat()


@pytest.mark.parametrize("text", ["a", "a/b.png", "x" * 255, "\udcff", "", "é"])
def test_other_names_can(text: str) -> None:
    """Also one that is not UTF-8, as Python stores it."""
    assert is_path(text)
    assert stays_below(text)
    assert not stays_below(f"../{text}")


def test_where_nothing_can_be_written_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path, tmp_path / "a" / "b", Path("a", "b"), Path()):
        refuse_unwritable(place)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", Path("file", "a"), Path("/proc/a")):
        with pytest.raises(OSError, match=str(place)):
            refuse_unwritable(place)
