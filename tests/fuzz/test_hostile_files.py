"""Every reader refuses hostile files with an error of edgead's own: kept ones, and changed ones from a seed.

`make fuzz` goes on from here with coverage. What it finds is kept in ``corpus/READER``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "runtime")]  # videos

from guard import Finding, install, watched  # noqa: E402
from reader import Reader, execute  # noqa: E402
from readers import READERS  # noqa: E402
from seeded import CORPUS, run  # noqa: E402

from edgead.errors import DataError  # noqa: E402

SLOW = {
    "results": 15,
    "metrics": 40,
    "run": 100,
    "video": 100,
    "foreign": 150,
    "bundle": 200,
    "line": 200,
    "sweep": 200,
}
"""Executions of readers that take milliseconds each; others take fewer than one."""
EXECUTIONS = 400


@pytest.mark.parametrize("name", READERS)
def test_hostile_files_are_refused_and_nothing_else_happens(name: str, tmp_path: Path) -> None:
    findings, attempts = {}, 0
    for data, finding in run(READERS[name], tmp_path, SLOW.get(name, EXECUTIONS)):
        attempts += 1
        if finding:  # all the data together would count as memory of the reader
            findings[str(finding)] = data
    assert not findings, f"keep the file in {CORPUS / name}: {findings}"
    assert attempts > SLOW.get(name, EXECUTIONS)


@pytest.mark.parametrize("name", READERS)
def test_the_seeds_are_accepted(name: str, tmp_path: Path) -> None:
    """Else the reader would be tested on what its first line refuses."""
    install()
    outcomes = [execute(READERS[name], data, tmp_path) for data in READERS[name].seeds(tmp_path)]
    assert "" in outcomes, outcomes


def test_kept_files_belong_to_readers() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= READERS.keys()
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 1 << 18


def _finding(read: object, tmp_path: Path) -> str:
    install()
    reader = Reader("wrong", read, lambda folder: [], lambda data, rng: data)  # type: ignore[arg-type]
    with pytest.raises(Finding) as caught:
        execute(reader, b"", tmp_path)
    return str(caught.value)


def test_what_a_reader_must_not_do_is_noticed(tmp_path: Path) -> None:
    """The guard of all these tests, seen to find what it is there for."""
    import pickle
    import socket
    import subprocess

    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    inside = tmp_path / "in"
    inside.mkdir()

    def hidden(_data: bytes, _folder: Path) -> None:
        try:
            outside.write_bytes(b"")
        except Exception as error:
            raise DataError("as if nothing had happened") from error

    def connect(_data: bytes, _folder: Path) -> None:
        with socket.socket() as plug:
            plug.connect(("127.0.0.1", 9))

    link = inside / "link"
    link.symlink_to("/etc")
    expected = {
        "writes outside": hidden,
        "reads outside its folder": lambda data, folder: (folder / "link" / "hostname").read_bytes(),
        "uses the network": connect,
        "starts a process": lambda data, folder: subprocess.run(["true"], check=True),
        "loads a pickle": lambda data, folder: pickle.loads(pickle.dumps(Path("x"))),
        "KeyError at": lambda data, folder: {}["x"],
        "RecursionError at": lambda data, folder: (lambda again: again(again))(lambda again: again(again)),
        "an error of 20000 characters": lambda data, folder: _refuse("x" * 20_000),
    }
    for words, read in expected.items():
        assert words in _finding(read, inside), words
    assert not outside.exists()


def _refuse(text: str) -> None:
    raise DataError(text)


def test_a_hang_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guard.SECONDS", 0.05)
    install()

    def spin() -> None:
        while True:
            pass

    with pytest.raises(Finding, match="longer than"), watched(tmp_path):
        spin()


GROWS = """
from guard import Memory
memory = Memory()
block = bytearray(b"x") * (64 << 20)
print(memory.grown)
"""


def test_memory_is_noticed() -> None:
    """In a process of its own: in this one, other tests may give memory back meanwhile."""
    done = subprocess.run([sys.executable, "-c", GROWS], cwd=CORPUS.parent, capture_output=True, text=True, check=True)
    assert float(done.stdout) > 60
