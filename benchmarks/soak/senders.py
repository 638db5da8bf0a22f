"""What sends frames to the line: an RTSP server, a looped video, and a program that writes images into a folder."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
from pictures import BUNDLES, draw

TESTS = Path(__file__).parents[2] / "tests" / "runtime"
sys.path.append(str(TESTS))
import videos  # type: ignore[import-not-found]  # noqa: E402

SYSTEM_PYTHON = "/usr/bin/python3"
RTSP_SIZES = ("160x120", "320x240", "160x160")
"""The last one has another aspect ratio."""
IMAGES_A_SECOND = 12
KEPT_FOR = 60.0
"""Seconds until an image is deleted."""


class RtspServer:
    """The RTSP server of the tests, which needs GStreamer.

    Args:
        port: of 127.0.0.1.

    Attributes:
        there: it can run here.
    """

    def __init__(self, port: int) -> None:
        self._port, self._size = port, RTSP_SIZES[0]
        self._process: subprocess.Popen[str] | None = None
        self.there = self.start()

    @property
    def uri(self) -> str:
        return f"rtsp://127.0.0.1:{self._port}/line"

    def start(self) -> bool:
        """Start it; return whether it listens."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [SYSTEM_PYTHON, str(TESTS / "rtsp_server.py"), str(self._port)]
        try:
            self._process = subprocess.Popen(
                command,
                env={**environment, "RTSP_SIZE": self._size},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        except OSError:
            return False
        assert self._process.stdout
        return self._process.stdout.readline() == "ready\n"

    def stop(self) -> None:
        """Kill it."""
        process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()
            assert process.stdout
            process.stdout.close()

    def freeze(self, frozen: bool) -> None:
        """Let it stand still, with its connections open; or go on."""
        if self._process:
            self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def change_size(self, number: int) -> None:
        """Restart it with another size of pictures."""
        self._size = RTSP_SIZES[number % len(RTSP_SIZES)]
        self.stop()
        self.start()


class LoopedVideo:
    """A link to a video. What it points to may change at any time.

    Args:
        folder: for the videos.

    Attributes:
        path: of the link.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.path = folder / "current.mp4"
        self._good = videos.write_video(folder / "good.mp4", videos.pictures(100, (48, 64)))
        self._other = videos.write_video(folder / "other.mp4", videos.pictures(50, (64, 64)))
        self._corrupt = folder / "corrupt.mp4"
        self.mend()

    def mend(self) -> None:
        """Show the good one."""
        self._link(self._good)

    def change_size(self) -> None:
        """Show one with another aspect ratio."""
        self._link(self._other)

    def corrupt(self, seed: int) -> None:
        """Show one with wrong bytes."""
        data, chance = bytearray(self._good.read_bytes()), random.Random(seed)
        for _ in range(chance.randint(1, 40)):
            place = chance.randrange(len(data))
            data[place] = chance.randrange(256)
        new = self._corrupt.with_suffix(".new")
        new.write_bytes(data[: chance.randrange(len(data) // 2, len(data) + 1)])
        new.replace(self._corrupt)
        self._link(self._corrupt)

    def remove(self) -> None:
        """Show none."""
        self.path.unlink(missing_ok=True)

    def _link(self, target: Path) -> None:
        link = self.path.with_suffix(".link")
        link.symlink_to(target.name)
        link.replace(self.path)


class ImageWriter:
    """Writes images into a folder that the line watches, in a thread.

    Args:
        folder: the folder.

    Attributes:
        written: time at which each intact image was there under its name, complete at once.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.written: dict[str, float] = {}
        self._aside = folder.with_name("aside")
        self._chance: random.Random | None = None
        self._unfinished = False
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._number = 0
        self._old: list[tuple[float, str]] = []
        self._thread = threading.Thread(target=self._run, name="images", daemon=True)
        self._thread.start()

    def spoil(self, seed: int | None, unfinished: bool = False) -> None:
        """Damage images, or write them in two halves; None for neither."""
        self._chance, self._unfinished = None if seed is None else random.Random(seed), unfinished

    def hide(self, hidden: bool) -> None:
        """Take the folder away, or bring it back."""
        with self._lock:
            if hidden and self.folder.exists():
                self.folder.rename(self._aside)
            elif not hidden and self._aside.exists():
                self._aside.rename(self.folder)

    def close(self) -> None:
        """End it."""
        self._stopped.set()
        self._thread.join(10.0)

    def _run(self) -> None:
        while not self._stopped.wait(1 / IMAGES_A_SECOND):
            with self._lock:
                if self.folder.exists():
                    self._write()
                    self._delete_old()

    def _write(self) -> None:
        self._number += 1
        name, chance = f"image-{self._number:07d}.png", self._chance
        picture = np.kron(draw(self._number, self._number % (1 << BUNDLES)), np.ones((2, 2, 1), np.uint8))
        data = cv2.imencode(".png", picture)[1].tobytes()
        if chance and self._unfinished:
            half = chance.randrange(1, len(data))
            (self.folder / name).write_bytes(data[:half])
            self._stopped.wait(chance.uniform(0.0, 0.6))
            with (self.folder / name).open("ab") as file:
                file.write(data[half:])
        elif chance:
            damaged = bytearray(data)
            damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            self._rename_into_place(name, bytes(damaged))
        else:
            self._rename_into_place(name, data)
            self.written[name] = time.monotonic()
        self._old.append((time.monotonic(), name))

    def _rename_into_place(self, name: str, data: bytes) -> None:
        hidden = self.folder / f".{name}.part"
        hidden.write_bytes(data)
        hidden.rename(self.folder / name)

    def _delete_old(self) -> None:
        while self._old and time.monotonic() - self._old[0][0] > KEPT_FOR:
            (self.folder / self._old.pop(0)[1]).unlink(missing_ok=True)


def copy_corrupt(good: Path, bad: Path, seed: int) -> None:
    """Make a bundle that must be refused: bytes changed, cut off, or a file missing."""
    chance = random.Random(seed)
    if bad.exists():
        shutil.rmtree(bad)
    shutil.copytree(good, bad)
    path = chance.choice(sorted(file for file in bad.iterdir() if file.is_file()))
    data = bytearray(path.read_bytes())
    action = chance.choice(("change", "cut", "remove"))
    if action == "remove":
        path.unlink()
    elif action == "cut":
        path.write_bytes(data[: chance.randrange(len(data) - 1)])  # without its last line break it is the same
    else:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
