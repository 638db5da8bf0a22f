"""Watched folders: each image once, whatever happens to the folder, with the system's notifications and without."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import cv2
import numpy as np
import pytest
from waiting import wait_until

from edgead.errors import ConfigError, SourceError
from edgead.images import PixelFormat, encode_png
from edgead.runtime.sources import Captured, notify, open_source, rewritten, watch
from edgead.runtime.sources.notify import Notifier, file_system, open_notifier
from edgead.runtime.sources.opening import open_all

PICTURE = encode_png(np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8))
POLL = 0.02


class Listener:
    """Reads a watched folder in a thread."""

    def __init__(self, uri: str) -> None:
        self.source = open_source(uri)
        self.captured: list[Captured] = []
        self.thread = Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with self.source as frames:
            self.captured.extend(iter_kept(frames, self.captured))

    def count(self) -> Counter[str]:
        return Counter(Path(each.path).name for each in list(self.captured) if not each.cause)

    def causes(self) -> list[str]:
        return [each.cause for each in list(self.captured) if each.cause]

    def wait_for(self, *names: str) -> None:
        wait_until(lambda: set(names) <= self.count().keys())

    def close(self) -> None:
        self.source.stop()
        self.thread.join(5)
        assert not self.thread.is_alive()


def iter_kept(frames: Iterator[Captured], kept: list[Captured]) -> list[Captured]:
    for captured in frames:
        kept.append(captured)
    return []


@pytest.fixture(params=["notified", "polled"])
def listen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Listener]]:
    """Opens a watched folder in both ways; the slow check of the first one is so slow that it does not help."""
    if request.param == "polled":
        monkeypatch.setattr(watch, "open_notifier", lambda *_: (None, "a test wants it so"))
        monkeypatch.setattr(watch, "LOOK_SHARE", 1.0)
    monkeypatch.setattr(watch, "CHECK_SECONDS", 3600.0)
    opened: list[Listener] = []

    def open_one(uri: str) -> Listener:
        opened.append(Listener(uri))
        if request.param == "notified":
            assert isinstance(getattr(opened[-1].source, "_notifier", None), Notifier)
        return opened[-1]

    yield open_one
    for listener in opened:
        listener.close()


def put(path: Path, data: bytes = PICTURE) -> Path:
    """Write a file elsewhere and rename it into its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")
    temporary.write_bytes(data)
    return temporary.rename(path)


Listen = Callable[[str], Listener]


def test_a_share_that_drops_out_gives_nothing_again(tmp_path: Path, listen: Listen) -> None:
    share = tmp_path / "share"
    for number in range(5):
        put(share / f"old{number}.png")
    listener = listen(f"watch:{share}?poll={POLL}")
    put(share / "first.png")
    listener.wait_for("first.png")
    for mount_point in (False, True):
        share.rename(tmp_path / "gone")
        if mount_point:
            share.mkdir()
        else:
            wait_until(lambda: "lost" in listener.causes())
        time.sleep(10 * POLL)
        put(tmp_path / "gone" / f"while-gone-{mount_point}.png")
        if mount_point:
            share.rmdir()
        (tmp_path / "gone").rename(share)
        listener.wait_for(f"while-gone-{mount_point}.png")
    put(share / "last.png")
    listener.wait_for("last.png")
    assert set(listener.count().values()) == {1}
    assert not any(name.startswith("old") for name in listener.count())


def test_files_that_are_deleted_once_inspected(tmp_path: Path, listen: Listen) -> None:
    listener = listen(f"watch:{tmp_path}?poll={POLL}")
    for number in range(60):
        put(tmp_path / f"{number}.png")
        for path in [Path(each.path) for each in list(listener.captured) if each.path]:
            path.unlink(missing_ok=True)
    wait_until(lambda: len(listener.count()) == 60)
    time.sleep(5 * POLL)
    assert set(listener.count().values()) == {1}


def test_replaced_files_come_again_and_unchanged_ones_do_not(tmp_path: Path, listen: Listen) -> None:
    listener = listen(f"watch:{tmp_path}?poll={POLL}")
    put(tmp_path / "a.png")
    listener.wait_for("a.png")
    shutil.copy2(tmp_path / "a.png", tmp_path / "same.tmp")
    (tmp_path / "same.tmp").rename(tmp_path / "a.png")  # the same bytes, time and size
    put(tmp_path / "b.png")
    listener.wait_for("b.png")
    put(tmp_path / "a.png")
    wait_until(lambda: listener.count()["a.png"] == 2)
    (tmp_path / "a.png").write_bytes(PICTURE)  # in its place: the same picture again, of a frozen camera
    put(tmp_path / "c.png")
    wait_until(lambda: listener.count()["a.png"] >= 3)


def test_a_picture_that_is_renamed_or_linked_after_it_was_inspected_does_not_come_again(
    tmp_path: Path, listen: Listen
) -> None:
    """It came again under its new name, and counted as taken then: the next part got the picture of this one."""
    listener = listen(f"watch:{tmp_path}?poll={POLL}")
    for number in range(3):  # the camera's program keeps the last pictures: latest, latest.1, latest.2
        for older in range(number, 0, -1):
            os.rename(tmp_path / f"latest{older - 1 or ''}.png", tmp_path / f"latest{older}.png")
        put(tmp_path / "latest.png", encode_png(np.full((24, 32, 3), number, np.uint8)))
        wait_until(lambda: listener.count()["latest.png"] > number)  # noqa: B023
    os.link(tmp_path / "latest.png", tmp_path / "linked.png")
    time.sleep(5 * POLL)
    put(tmp_path / "next.png")
    listener.wait_for("next.png")
    assert listener.count() == {"latest.png": 3, "next.png": 1}
    assert not listener.causes()


def test_a_picture_whose_time_is_set_after_it_was_inspected_does_not_come_again(
    tmp_path: Path, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a server that gives an uploaded file the time of the camera: one part had two results."""
    monkeypatch.setattr(watch, "CHECK_SECONDS", POLL)
    listener = listen(f"watch:{tmp_path}?poll={POLL}")
    put(tmp_path / "a.png")
    listener.wait_for("a.png")
    for moment in (1_700_000_000, 1_700_000_001):
        os.utime(tmp_path / "a.png", (moment, moment))
        put(tmp_path / f"{moment}.png")
        listener.wait_for(f"{moment}.png")
    time.sleep(5 * POLL)
    assert listener.count()["a.png"] == 1
    assert listener.causes() == []


@pytest.mark.parametrize("how", ["in its place", "renamed", "deleted before"])
@pytest.mark.parametrize("second", [1_700_000_000, None], ids=["coarse", "kept"])
def test_another_picture_of_the_same_name_size_and_time(
    tmp_path: Path, listen: Listen, how: str, second: int | None
) -> None:
    """As from a clock of whole seconds, or a copy that keeps the time of the original."""
    listener = listen(f"watch:{tmp_path}?poll={POLL}")
    path = tmp_path / "latest.bmp"

    def levels() -> list[int]:
        pictures = [each.image for each in list(listener.captured) if Path(each.path) == path]
        return [int(image[0, 0, 0]) for image in pictures if image is not None]

    for number in range(4):
        data = cv2.imencode(".bmp", np.full((24, 32, 3), 50 * number + 40, np.uint8))[1].tobytes()
        before = path.stat().st_mtime_ns if number else time.time_ns() - 10**9
        moment = second * 10**9 if second else before
        other = path if how == "in its place" else tmp_path / "latest.part"
        if how == "deleted before":
            path.unlink(missing_ok=True)
        other.write_bytes(data)
        os.utime(other, ns=(moment, moment))
        other.replace(path)
        wait_until(lambda number=number: len(levels()) == number + 1)
    path.chmod(0o600)
    os.utime(path, ns=(moment, moment))
    put(tmp_path / "end.png")
    listener.wait_for("end.png")
    assert levels() == [40, 90, 140, 190]
    assert listener.count() == {"latest.bmp": 4, "end.png": 1}
    # A busy machine may interrupt a write in place for longer than the source waits; what is there then is no picture.
    assert set(listener.causes()) <= ({"unreadable"} if how == "in its place" else set())


def test_a_picture_that_is_replaced_before_it_is_inspected_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was lost without a word: of a camera that writes one name ten times a second, nearly all."""
    monkeypatch.setattr(watch, "CHECK_SECONDS", 3600.0)
    folder = watch.WatchedFolder(tmp_path, poll=POLL)
    path = tmp_path / "latest.png"

    def look() -> list[Captured]:
        folder._next_check = 0
        return list(folder._captured(0))

    put(path)
    assert look() == []
    put(path)
    [replaced] = look()
    assert (replaced.image, replaced.cause, replaced.path) == (None, "unreadable", str(path))
    assert "was replaced or changed before it could be inspected" in replaced.error
    assert [each.cause for each in look()] == [""]
    assert look() == []
    with path.open("ab") as file:  # one that is written slowly is the same file
        for _ in range(3):
            file.write(b"more")
            file.flush()
            assert look() == []
    assert [each.path for each in look()] == [str(path)]
    folder.close()


def test_a_picture_that_is_replaced_while_it_waits_for_its_turn_is_told_and_comes_again(tmp_path: Path) -> None:
    """The new picture was inspected in the place of the old one, and then again."""
    folder = watch.WatchedFolder(tmp_path, poll=POLL)
    put(tmp_path / "a.png")
    put(tmp_path / "b.png")
    found = []
    for _ in range(5):
        folder._next_check = 0
        for captured in folder._captured(0):
            if not found:
                put(tmp_path / "b.png", PICTURE + b"longer")
            found.append((Path(captured.path).name, captured.cause))
    folder.close()
    assert found == [("a.png", ""), ("b.png", "unreadable"), ("b.png", "")]


@pytest.mark.parametrize("subfolders", [0, 1])
def test_images_behind_a_link_come_at_once(tmp_path: Path, listen: Listen, subfolders: int) -> None:
    """The system reported changes of the link itself: they came with the next look at everything, 10 s later."""
    (tmp_path / "day").mkdir()
    (tmp_path / "current").symlink_to("day")
    listener = listen(f"watch:{tmp_path / 'current'}?poll={POLL}&subfolders={subfolders}")
    put(tmp_path / "day" / "a.png")
    listener.wait_for("a.png")
    assert Path(listener.captured[0].path) == tmp_path / "current" / "a.png"
    (tmp_path / "next-day").mkdir()
    (tmp_path / "link").symlink_to("next-day")
    (tmp_path / "link").replace(tmp_path / "current")
    put(tmp_path / "next-day" / "b.png")
    listener.wait_for("b.png")
    put(tmp_path / "next-day" / "c.png")
    listener.wait_for("c.png")


def test_folders_with_linked_ones_are_polled(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in" / "camera").symlink_to(tmp_path / "elsewhere")
    notifier, why = open_notifier(tmp_path / "in", True)
    assert notifier is None
    assert why == f"{tmp_path}/in/camera is a link, and changes behind it are not reported"


def test_only_the_latest_files_are_read_again(tmp_path: Path) -> None:
    folder = watch.WatchedFolder(tmp_path, poll=POLL)
    for number in range(2 * rewritten.LATEST):
        put(tmp_path / f"{number}.png")
        for _ in range(2):
            folder._next_check = 0
            list(folder._captured(0))
    folder.close()
    assert len(folder._latest._files) == rewritten.LATEST


@pytest.mark.parametrize("subfolders", [0, 1])
def test_subfolders(tmp_path: Path, listen: Listen, subfolders: int) -> None:
    put(tmp_path / "2026-11-27" / "old.png")
    listener = listen(f"watch:{tmp_path}?poll={POLL}&subfolders={subfolders}")
    assert ("subfolders are not watched" in listener.source.remark) == (not subfolders)  # type: ignore[attr-defined]
    put(tmp_path / "2026-11-27" / "deep.png")
    put(tmp_path / "2026-11-28" / "new" / "deeper.png")
    put(tmp_path / "@eaDir" / "thumbnail.png")
    put(tmp_path / "top.png")
    if subfolders:
        listener.wait_for("deep.png", "deeper.png", "top.png")
    listener.wait_for("top.png")
    time.sleep(5 * POLL)
    assert listener.count() == dict.fromkeys(["top.png", *(["deep.png", "deeper.png"] * subfolders)], 1)


def test_a_subfolder_that_cannot_be_read_is_told_once_and_old_images_in_it_are_old(
    tmp_path: Path, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "locked" / "old.png")
    real, closed = os.scandir, [True]

    def scandir(path: str) -> object:
        if str(path).endswith("locked") and closed[0]:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    listener = listen(f"watch:{tmp_path}?poll={POLL}&subfolders=1")
    wait_until(listener.causes)
    closed[0] = False
    put(tmp_path / "locked" / "new.png")
    put(tmp_path / "top.png")
    listener.wait_for("top.png")
    listener.wait_for("new.png")
    assert listener.causes() == ["unreadable"]
    assert "locked" in listener.captured[0].error
    assert "old.png" not in listener.count()


def test_a_folder_watched_before_its_share_was_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on the share then was there at the beginning, but for what was written since."""
    folder = watch.WatchedFolder(tmp_path, poll=POLL)
    put(tmp_path / "old.png")
    os.utime(tmp_path / "old.png", (1, 1))
    put(tmp_path / "new.png")
    monkeypatch.setattr(folder, "_identify", lambda: (99, 2))
    given = [Path(captured.path).name for _ in range(3) for captured in folder._captured(0)]
    folder.close()
    assert given == ["new.png"]


@pytest.mark.parametrize("ahead", [-50 * 365.0 * 86400.0, -3600.0, 3600.0], ids=["since 1970", "behind", "ahead"])
def test_a_clock_that_is_set_before_the_share_is_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """A Jetson starts in 1970: all old images had results. With a clock that was ahead, new ones had none."""
    with monkeypatch.context() as before:
        set_clock(before, ahead)
        folder = watch.WatchedFolder(tmp_path, poll=POLL)
    time.sleep(2 * watch.FILE_TICK)
    put(tmp_path / "old.png")
    os.utime(tmp_path / "old.png", (time.time() - 60, time.time() - 60))
    put(tmp_path / "new.png")
    monkeypatch.setattr(folder, "_identify", lambda: (99, 2))
    given = [Path(captured.path).name for _ in range(3) for captured in folder._captured(0)]
    folder.close()
    assert given == ["new.png"]


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_an_image_came_when_it_came_although_the_clock_was_set_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    """It counted as of the look before or of this one, and a trigger between them gave it to another part."""
    folder = watch.WatchedFolder(tmp_path, poll=POLL)
    if not folder._has_our_clock:
        pytest.skip(f"the time of files on {file_system(tmp_path)} is not of this machine's clock")
    time.sleep(0.4)
    put(tmp_path / "a.png")
    came = time.monotonic()
    time.sleep(0.4)
    set_clock(monkeypatch, step)
    [captured] = [captured for _ in range(2) for captured in folder._captured(0)]
    folder.close()
    assert captured.made == pytest.approx(came, abs=0.2)


def set_clock(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    """Let the wall clock be ahead of the real one by so many seconds."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    monkeypatch.setattr(time, "time_ns", lambda: round((real() + ahead) * 1e9))


@pytest.mark.parametrize("target", ["gone.png", "link.png"])
def test_a_broken_link_is_told(tmp_path: Path, listen: Listen, target: str) -> None:
    """One to itself was taken for a folder that cannot be read, and a run did not start."""
    listener = listen(f"watch:{tmp_path}?poll={POLL}")
    (tmp_path / "link.png").symlink_to(tmp_path / target)
    wait_until(listener.causes)
    put(tmp_path / "a.png")
    listener.wait_for("a.png")
    assert listener.causes() == ["unreadable"]
    assert listener.captured[0].path.endswith("link.png")
    listen(f"watch:{tmp_path}?poll={POLL}")


def test_more_changes_than_wait_lead_to_a_look_at_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "MOST_WAITING", 10)
    monkeypatch.setattr(watch, "CHECK_SECONDS", 3600.0)
    listener = Listener(f"watch:{tmp_path}?poll={POLL}")
    try:
        for number in range(200):
            put(tmp_path / f"{number}.png")
        wait_until(lambda: len(listener.count()) == 200)
        assert set(listener.count().values()) == {1}
    finally:
        listener.close()


def test_what_was_not_reported_is_found_by_the_slow_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "CHECK_SECONDS", 0.3)
    monkeypatch.setattr(Notifier, "_take_in", lambda self, event: None)  # an overflow that nobody reports
    listener = Listener(f"watch:{tmp_path}?poll={POLL}")
    try:
        put(tmp_path / "a.png")
        listener.wait_for("a.png")
    finally:
        listener.close()


def test_memory_is_bounded_and_what_is_there_is_never_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "REMEMBERED", 10)
    put(tmp_path / "stays.png")
    folder = watch.WatchedFolder(tmp_path, existing=True, poll=POLL)
    given = Counter[str]()
    for number in range(40):
        put(tmp_path / f"{number}.png")
        for _ in range(2):
            folder._next_check = 0
            given.update(Path(captured.path).name for captured in folder._captured(0))
        (tmp_path / f"{number}.png").unlink()
    folder.close()
    assert set(given.values()) == {1}
    assert len(given) == 41
    assert len(folder._given) <= 12


def test_network_drives_are_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    lines = [
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw",
        rf"2 1 0:9 / {tmp_path}/the\040share rw shared:1 - cifs //nas/line rw",
        f"3 1 0:8 / {tmp_path}/local rw - tmpfs tmpfs rw",
    ]
    mounts.write_text("\n".join(lines))
    monkeypatch.setattr(notify, "MOUNTS", mounts)
    for name, kind in (("the share/in", "cifs"), ("local", "tmpfs"), ("other", "ext4")):
        (tmp_path / name).mkdir(parents=True)
        assert file_system(tmp_path / name) == kind
    notifier, why = open_notifier(tmp_path / "the share", False)
    assert notifier is None
    assert why == "its file system (cifs) does not report changes"
    monkeypatch.setattr(notify, "is_installed", lambda module: False)
    assert "edgead[watch]" in open_notifier(tmp_path / "local", False)[1]


@pytest.mark.parametrize(("other", "options"), [("in", ""), ("in/../in", ""), (".", "?subfolders=1")])
def test_a_folder_is_not_watched_twice(tmp_path: Path, other: str, options: str) -> None:
    """Each image had two results."""
    (tmp_path / "in" / "night").mkdir(parents=True)
    uris = {"one": f"watch:{tmp_path / 'in'}", "other": f"watch:{tmp_path}/{other}{options}"}
    with pytest.raises(ConfigError, match="watch one folder: each of its images would have two results"):
        open_all(uris)
    for source in open_all({"day": f"watch:{tmp_path / 'in'}", "night": f"watch:{tmp_path / 'in' / 'night'}"}):
        source.__exit__(None, None, None)


@pytest.mark.parametrize("poll", ["0", "inf"])
def test_a_folder_is_not_watched_without_a_pause(tmp_path: Path, poll: str) -> None:
    """It took a core from the engine."""
    with pytest.raises(ConfigError, match="poll must be"):
        open_source(f"watch:{tmp_path}?poll={poll}")


def test_a_folder_that_cannot_be_read_at_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: str) -> object:
        raise OSError(116, "Stale file handle", str(path))

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(SourceError, match="Stale file handle"):
        open_source(f"watch:{tmp_path}")


DEPTH = PixelFormat(depth_range=(0.0, 254.0))


def put_part(folder: Path, number: int, *kinds: str, name: str = "part") -> None:
    """Write colour and depth of a part in the given order. The clock of a file system ticks in steps."""
    for kind in kinds:
        time.sleep(0.02)
        put(folder / kind / f"{name}.png", encode_png(np.full((8, 8), number, np.uint8)))


def test_no_picture_is_inspected_with_the_depth_of_another_part(tmp_path: Path) -> None:
    """A camera that writes one name again and again, the depth first, and does not wait for the inspection."""
    put_part(tmp_path, 1, "xyz", "rgb")
    folder = watch.WatchedFolder(tmp_path / "rgb", pixels=DEPTH)

    def inspected() -> list[tuple[int, int] | str]:
        found = []
        for _ in range(2):  # an image is complete when it is unchanged between two looks
            folder._next_check = 0
            found += list(folder._captured(0))
        return [
            each.error if each.image is None else (int(each.image[0, 0, 0]), int(each.image[0, 0, 3]) - 1)
            for each in found
        ]

    put_part(tmp_path, 2, "xyz", "rgb")
    assert inspected() == [(2, 2)]
    put_part(tmp_path, 3, "xyz", "rgb")
    put_part(tmp_path, 4, "xyz")
    [error] = inspected()
    assert "rgb/part.png: its depth image was written after it" in str(error)
    put_part(tmp_path, 4, "rgb")
    assert inspected() == [(4, 4)]
    put_part(tmp_path, 5, "rgb")  # the depth camera missed it
    [error] = inspected()
    assert "rgb/part.png: its depth image was not written again" in str(error)
    put_part(tmp_path, 6, "xyz", "rgb")
    assert inspected() == [(6, 6)]
    put_part(tmp_path, 7, "rgb", "xyz", name="new")  # a name that was never used has one depth
    assert inspected() == [(7, 7)]
    folder.close()


def test_a_depth_that_changes_while_it_is_read_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_part(tmp_path, 1, "xyz", "rgb")
    read = watch.capture_file

    def read_late(*arguments: Any) -> Captured:
        put_part(tmp_path, 2, "xyz")
        return read(*arguments)

    monkeypatch.setattr(watch, "capture_file", read_late)
    with watch.WatchedFolder(tmp_path / "rgb", existing=True, pixels=DEPTH) as frames:
        captured = next(frames)
    assert captured.image is None
    assert "its depth image was replaced or changed" in captured.error


def test_depth_images_and_masks_are_not_inspected(tmp_path: Path, listen: Listen) -> None:
    """A listing left them out; what the system reported as changed was inspected, and a depth image got a verdict."""
    for kind in ("rgb", "xyz", "gt"):
        (tmp_path / "hole" / kind).mkdir(parents=True)
    listener = listen(f"watch:{tmp_path}?poll={POLL}&subfolders=1")
    put_part(tmp_path / "hole", 1, "xyz", "gt", "rgb")
    (tmp_path / "alone").mkdir()
    put_part(tmp_path / "alone", 1, "xyz", name="alone")  # no colour images are beside it
    listener.wait_for("part.png", "alone.png")
    assert [Path(each.path).parent.name for each in listener.captured] == ["rgb", "xyz"]
