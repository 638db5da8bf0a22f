"""The surroundings of the line: senders, receivers and disk, and how each fault happens to them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from line_process import free_ports
from lives import Event
from pictures import BUNDLES, make_bundle
from plugins import RAISES, REPEATS, SILENT, SLOW, Control
from receivers import MOSQUITTO, Broker, Plc, Webhook
from senders import ImageWriter, LoopedVideo, RtspServer, copy_corrupt
from soaked_line import HERE, SoakedLine
from troubles import Troubles

DISK_MB = 512
PRIVATE = "SOAK_PRIVATE_MOUNTS"
"""Environment variable: this process may mount file systems, which end with it."""
Begin = Callable[[Event], None]
End = Callable[[], None]


class World:
    """Everything but the line.

    Args:
        folder: for files.
        video_fps: of the looped video.

    Attributes:
        line: what is tested.
        troubles: what happened, and when.
        swaps: numbers of the bundles that were offered to the running line, the first one included.
        missing: faults that cannot happen on this machine, and why.
        sinks: short name of each sink by the beginning of its name in the metrics.
    """

    def __init__(self, folder: Path, video_fps: float) -> None:
        self._folder, self._stack = folder, ExitStack()
        self.troubles, self.swaps, self.missing = Troubles(), list[int](), dict[str, str]()
        rtsp, webhook, broker, plc, metrics = free_ports(5)
        self.disk = folder / "disk"
        self.disk.mkdir()
        self._mount()
        self.control = Control(folder / "control", create=True)
        self._bundles = [make_bundle(folder / f"bundle-{number}.edgead", number) for number in range(1, BUNDLES + 1)]
        self._rtsp = RtspServer(rtsp)
        self._stack.callback(self._rtsp.stop)
        self._video = LoopedVideo(folder / "video")
        self.images = ImageWriter(folder / "images")
        self._stack.callback(self.images.close)
        self.webhook = Webhook(webhook)
        self._stack.callback(self.webhook.close)
        self.plc = Plc(plc)
        self._stack.callback(self.plc.close)
        self.broker = Broker(folder / "broker", broker) if MOSQUITTO else None
        if self.broker:
            self._stack.callback(self.broker.close)
        else:
            self._lack("broker", "no mosquitto (apt: mosquitto)")
        sources = [
            f"loop=loop:{video_fps:g}:{self._video.path}",
            f"watch=watch:{self.images.folder}",
            "synthetic=synthetic:?width=64&height=48&fps={fps}",
        ]
        if self._rtsp.there:
            sources.append(f"rtsp={self._rtsp.uri}")
        else:
            self._lack("rtsp", "no GStreamer RTSP server (apt: gir1.2-gst-rtsp-server-1.0 python3-gi)")
        self.sinks = {
            f"jsonl:{folder}/record": "record",
            f"jsonl:{self.disk}/results": "jsonl",
            f"sqlite:{self.disk}/results": "sqlite",
            f"rejects:{self.disk}/rejects": "rejects",
            self.webhook.uri: "webhook",
            f"modbus-server:127.0.0.1:{plc}": "modbus",
            **({self.broker.uri: "mqtt"} if self.broker else {}),
        }
        sinks = [
            f"jsonl:{folder}/record-{{life}}.jsonl",
            f"jsonl:{self.disk}/results-{{life}}.jsonl",
            f"sqlite:{self.database}",
            f"rejects:{self.rejects}?max_mb=2&per_minute=2000",
            self.webhook.uri,
            f"modbus-server:127.0.0.1:{plc}?hold_ms=500",
            *([f"{self.broker.uri}?store={self.disk}/mqtt.sqlite"] if self.broker else []),
        ]
        link = folder / "current.edgead"
        self.line = SoakedLine(folder, link, sources, sinks, metrics, folder / "control", self._build_clock())
        self._stack.callback(self.line.kill)
        self._ends: list[tuple[float, str, End]] = []
        self._faults = self._make_faults()

    @property
    def database(self) -> Path:
        return self.disk / "results.sqlite"

    @property
    def rejects(self) -> Path:
        return self.disk / "rejects"

    def begin(self, first: int) -> None:
        """Before a life: everything works, and a bundle decides."""
        self.mend()
        self.swaps = [first]
        self.plc.acknowledged.clear()
        self._link(self._bundles[first - 1])

    def strike(self, event: Event) -> bool:
        """Let a fault happen; return whether it can."""
        name = event.kind
        if any(name.startswith(each) for each in self.missing):
            return False
        begin, end = self._faults[name]
        self._end_if(lambda each: each.split()[0] == name.split()[0])  # one fault of a device at a time
        self.troubles.begin(name)
        begin(event)
        if event.seconds:
            self._ends.append((time.monotonic() + event.seconds, name, end))
        else:
            self.troubles.end(name)
        return True

    def work(self) -> None:
        """End what is over."""
        now = time.monotonic()
        over = {name for until, name, _ in self._ends if until <= now}
        self._end_if(lambda name: name in over)

    def mend(self) -> None:
        """End everything."""
        self._end_if(lambda name: True)
        self.control.set_clock(0.0)

    def _end_if(self, condition: Callable[[str], bool]) -> None:
        for each in [each for each in self._ends if condition(each[1])]:
            self._ends.remove(each)
            each[2]()
            self.troubles.end(each[1])

    def close(self) -> None:
        """End it."""
        self._end_if(lambda name: True)
        self._stack.close()

    def _lack(self, kinds: str, why: str) -> None:
        self.missing[kinds] = why

    def _mount(self) -> None:
        """Make a small disk of its own, if this machine allows it."""
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(self.disk)]
        if PRIVATE not in os.environ or subprocess.run(command, capture_output=True).returncode:
            self._lack("disk", "no file system may be mounted here")
        else:
            self._stack.callback(subprocess.run, ["umount", "-l", str(self.disk)], capture_output=True)

    def _build_clock(self) -> Path | None:
        library = self._folder / "clock.so"
        compiler = shutil.which("cc") or shutil.which("gcc")
        command = [str(compiler), "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "clock.c"), "-ldl"]
        if compiler and not subprocess.run(command, capture_output=True).returncode:
            return library
        self._lack("clock", "no C compiler")
        return None

    def _make_faults(self) -> dict[str, tuple[Begin, End]]:
        rtsp, video, images, webhook, broker = self._rtsp, self._video, self.images, self.webhook, self.broker
        faults: dict[str, tuple[Begin, End]] = {
            "rtsp disconnects": (lambda event: rtsp.stop(), lambda: _ignore(rtsp.start())),
            "rtsp freezes": (lambda event: rtsp.freeze(True), lambda: rtsp.freeze(False)),
            "rtsp changes size": (lambda event: rtsp.change_size(int(event.value)), _nothing),
            "video disconnects": (lambda event: video.remove(), video.mend),
            "video is silent": (lambda event: self._set_video(SILENT), lambda: self._set_video(0)),
            "video repeats a picture": (lambda event: self._set_video(REPEATS), lambda: self._set_video(0)),
            "video is corrupt": (lambda event: video.corrupt(int(event.value)), video.mend),
            "video changes size": (lambda event: video.change_size(), video.mend),
            "corrupt images": (lambda event: images.spoil(int(event.value)), lambda: images.spoil(None)),
            "unfinished images": (lambda event: images.spoil(int(event.value), True), lambda: images.spoil(None)),
            "folder is away": (lambda event: images.hide(True), lambda: images.hide(False)),
            "engine raises": (lambda event: self._set_engine(RAISES), lambda: self._set_engine(0)),
            "engine is slow": (lambda event: self._set_engine(SLOW), lambda: self._set_engine(0)),
            "webhook is slow": (lambda event: self._answer(0.2), self._answer),
            "webhook answers late": (lambda event: self._answer(6.0), self._answer),
            "webhook has errors": (lambda event: self._answer(0.0, int(event.value)), self._answer),
            "webhook cuts answers": (lambda event: self._answer(0.0, 0), self._answer),
            "webhook is dead": (lambda event: webhook.die(), webhook.revive),
            "plc does not read": (lambda event: self._let_plc(False), lambda: self._let_plc(True)),
            "clock jumps": (lambda event: self.control.set_clock(event.value), _nothing),
            "hot swap": (lambda event: self._swap(int(event.value)), _nothing),
            "swap to a corrupt bundle": (lambda event: self._swap_to_corrupt(int(event.value)), _nothing),
            "line is stopped": (
                lambda event: self.line.signal(signal.SIGSTOP),
                lambda: self.line.signal(signal.SIGCONT),
            ),
            "disk is full": (lambda event: self._fill(int(event.value)), self._free),
        }
        lock: list[sqlite3.Connection] = []
        faults["database is locked"] = (lambda event: lock.extend(_lock(self.database)), lambda: _unlock(lock))
        if broker:
            faults["broker restarts"] = (lambda event: broker.stop(), broker.start)
            faults["broker freezes"] = (lambda event: broker.freeze(True), lambda: broker.freeze(False))
        return faults

    def _set_video(self, mode: int) -> None:
        self.control.video = mode

    def _set_engine(self, mode: int) -> None:
        self.control.engine = mode

    def _answer(self, delay: float = 0.0, status: int = 200) -> None:
        self.webhook.delay, self.webhook.status = delay, status

    def _let_plc(self, reads: bool) -> None:
        self.plc.reads = reads

    def _fill(self, room: int) -> None:
        """Leave about so many bytes, which end in the middle of something."""
        while not self._resize(_used(self.disk) + room):  # the line has written more meanwhile
            room += 4096

    def _free(self) -> None:
        self._resize(DISK_MB << 20)

    def _resize(self, size: int) -> bool:
        command = ["mount", "-o", f"remount,size={size}", str(self.disk)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def _swap(self, number: int) -> None:
        self._link(self._bundles[number - 1])
        self.swaps.append(number)
        self.line.signal(signal.SIGHUP)

    def _swap_to_corrupt(self, seed: int) -> None:
        bad = self._folder / f"corrupt-{seed}.edgead"
        copy_corrupt(self._bundles[seed % BUNDLES], bad, seed)
        self._link(bad)
        self.line.signal(signal.SIGHUP)

    def _link(self, bundle: Path) -> None:
        link = self._folder / "next.edgead"
        link.symlink_to(bundle.name)
        os.replace(link, self._folder / "current.edgead")


def _nothing() -> None:
    """The fault has no end."""


def _ignore(_value: object) -> None:
    """The outcome does not matter."""


def _used(folder: Path) -> int:
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def _lock(database: Path) -> Iterator[sqlite3.Connection]:
    """Begin to write, as another program would."""
    with contextlib.suppress(sqlite3.Error):
        connection = sqlite3.connect(database, isolation_level=None, timeout=0.5, check_same_thread=False)
        connection.execute("BEGIN IMMEDIATE")
        yield connection


def _unlock(lock: list[sqlite3.Connection]) -> None:
    while lock:
        lock.pop().close()
