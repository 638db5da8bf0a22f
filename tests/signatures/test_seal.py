"""The key of the cache, and what it seals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgead.errors import ConfigError
from edgead.signatures.seal import KEY, holds, mac, read_sealed, write_sealed


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CONFIG", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    return tmp_path


def test_the_key_is_made_once_for_its_owner_alone(folders: Path) -> None:
    first = mac("a", b"b")
    key = folders / "config" / "edgead" / KEY
    assert (key.stat().st_mode & 0o777, len(key.read_bytes())) == (0o600, 32)
    assert mac("a", b"b") == first
    assert os.listdir(key.parent) == [KEY]
    assert not (folders / "state").exists()
    assert len({mac("ab"), mac("a", "b"), mac("b", "a"), mac("a", "b", ""), first}) == 4  # "b" is b"b"


def test_several_processes_make_one_key(folders: Path) -> None:
    program = [sys.executable, "-c", "from edgead.signatures.seal import mac; print(mac('x'))"]
    processes = [subprocess.Popen(program, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate(timeout=60)[0] for process in processes}) == 1


@pytest.mark.parametrize("damage", ["read by others", "short", "link", "another user's"])
def test_a_key_that_others_know_is_replaced(folders: Path, damage: str) -> None:
    before, key = mac("x"), folders / "config" / "edgead" / KEY
    if damage == "read by others":
        key.chmod(0o640)
    elif damage == "short":
        key.write_bytes(b"short")
    elif damage == "link":
        key.rename(folders / "elsewhere")
        key.symlink_to(folders / "elsewhere")
    elif os.geteuid() == 0:
        os.chown(key, 12345, 12345)
    else:
        pytest.skip("only root gives files away")
    assert not holds(before, "x")
    assert mac("x") != before
    assert key.stat().st_mode & 0o777 == 0o600


def test_the_key_is_kept_with_the_state_where_there_is_no_configuration(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under systemd, where a service has the folders that its unit names."""
    (folders / "config").write_text("a file in the folder's place")
    assert holds(mac("x"), "x")
    assert (folders / "state" / "edgead" / KEY).exists()
    (folders / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(folders / "file"))
    with pytest.raises(ConfigError, match=r"(?s)cannot be kept.*XDG_CONFIG_HOME"):
        mac("x")
    assert not holds("0" * 64, "x")


def test_sealed_files(folders: Path) -> None:
    path = folders / "x.timing"
    write_sealed(path, b"one\ntwo")
    assert read_sealed(path) == b"one\ntwo"
    content = path.read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x80
        path.write_bytes(changed)
        assert read_sealed(path) == b"", place
    path.write_bytes(content)
    assert read_sealed(path.rename(folders / "y.timing")) == b""
    assert read_sealed(folders / "absent") == b""
