"""Listing a folder: what is data, what is litter, and that an error never looks like an empty folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgead.cli import cli
from edgead.errors import DataError
from edgead.folders import expand, list_folder, list_images
from edgead.runtime.sources import open_source

Write = Callable[..., Path]
LITTER = (".ipynb_checkpoints", "@eaDir", "__MACOSX", "#recycle", ".Trash-1000", "lost+found", "$RECYCLE.BIN")


@pytest.fixture
def locked(tmp_path: Path, write_image: Write, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of images with a subfolder that cannot be listed, for root neither."""
    folder = tmp_path / "photos"
    write_image(folder / "a.png")
    write_image(folder / "locked" / "b.png")
    (folder / "locked").chmod(0)
    if os.access(folder / "locked", os.R_OK):  # root reads everything
        real = os.scandir

        def scandir(path: str) -> object:
            if str(path).endswith("locked"):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)
    yield folder
    (folder / "locked").chmod(0o755)


def test_litter_is_left_out_and_counted(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "a.PNG")
    write_image(tmp_path / "#12" / "b.jpg")  # the number of a lot
    for name in LITTER:
        write_image(tmp_path / name / "copy.png")
    for name in ("._a.png", "Thumbs.db", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    listing = list_folder(tmp_path, recursive=True)
    assert [path.name for path in listing.images] == ["b.jpg", "a.PNG"]
    assert listing.left_out == {**{f"{name}/": 1 for name in LITTER}, "hidden file": 1, ".db file": 1, ".txt file": 1}
    assert listing.describe().startswith("left out: 1 × ")
    source = open_source(str(tmp_path))
    assert len(list(source.__enter__())) == 2
    assert "@eaDir/" in getattr(source, "remark", "")


def test_a_folder_that_is_asked_for_is_read_whatever_its_name(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / ".hidden" / "a.png")
    assert len(list_images(tmp_path / ".hidden")) == 1


def test_links_pipes_and_folders_named_like_images(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "folder.png" / "inside.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "current").symlink_to(tmp_path / "unmounted")
    os.mkfifo(tmp_path / "pipe.png")
    assert [path.name for path in list_folder(tmp_path).images] == ["broken.png", "loop.png"]
    captured = {Path(c.path).name: (c.cause, c.error) for c in open_source(str(tmp_path)).__enter__()}
    assert captured.keys() == {"broken.png", "loop.png", "current", "pipe.png", "inside.png"}
    assert {name for name, (cause, _) in captured.items() if not cause} == {"inside.png"}
    assert "No such file" in captured["broken.png"][1]
    assert "not a regular file" in captured["pipe.png"][1]
    assert "the link is broken" in captured["current"][1]


def test_a_folder_that_cannot_be_read_is_an_error_by_name(locked: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot read .*locked: Permission denied"):
        list_images(locked, recursive=True)
    for uri in (str(locked), f"{locked}/**/*.png", f"{locked}/*/*.png"):
        causes = {Path(captured.path).name: captured.cause for captured in open_source(uri).__enter__()}
        assert causes["locked"] == "unreadable"


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--method", "draem", "--preset", "nano", "--data", "{}"),
        ("train", "--method", "draem", "--preset", "nano", "--data", "{parts}", "--textures", "{}"),
        ("benchmark", "{bundle}", "--data", "{}"),
        ("export", "--checkpoint", "{run}", "--precision", "int8", "--calib-data", "{}"),
    ],
)
def test_every_verb_names_it(
    locked: Path, parts: Path, trained: Path, bundle: object, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    made = [each.format(locked, parts=parts, run=trained, bundle=getattr(bundle, "path", "")) for each in arguments]
    outcome = CliRunner().invoke(cli, [*made, "--out", str(tmp_path / "out.edgead")])
    assert isinstance(outcome.exception, DataError)
    assert f"Cannot read {locked / 'locked'}" in str(outcome.exception)
    assert not (tmp_path / "out.edgead").exists()


def test_predict_decides_unknown_on_it(locked: Path, bundle: object) -> None:
    outcome = CliRunner().invoke(cli, ["predict", str(getattr(bundle, "path", "")), str(locked)])
    assert outcome.exit_code == 0
    assert any(line.startswith("UNKNOWN") and "locked" in line for line in outcome.output.splitlines())


def test_globs(tmp_path: Path, write_image: Write) -> None:
    for name in ("a/1.png", "a/b/2.png", "c/3.png", "@eaDir/4.png", ".x/5.png"):
        write_image(tmp_path / name)
    (tmp_path / "a" / "b" / "back").symlink_to(tmp_path)

    def names(pattern: str) -> list[str]:
        return [path.name for path in expand(f"{tmp_path}/{pattern}").images]

    assert names("**/*.png") == ["1.png", "2.png", "3.png"]
    assert names("?/*.png") == ["1.png", "3.png"]
    assert names("[ab]/**/2.png") == ["2.png"]
    assert names(".x/*.png") == ["5.png"]  # asked for
    for kind in ("rgb", "xyz", "gt"):
        write_image(tmp_path / "hole" / kind / f"{kind}.png")
    assert names("hole/*/*.png") == names("hole/**/*.png") == ["rgb.png"]  # neither depth nor masks
    assert names("hole/xyz/*.png") == ["xyz.png"]  # asked for
    assert names("nothing/*.png") == []
    assert names("a/1.png/*.png") == []
