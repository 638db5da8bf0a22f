"""What takes results: a webhook, an MQTT broker with a listener, and a PLC. Each can fail."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import threading
import time
import zlib
from collections import deque
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from edgead.errors import SinkError, require
from edgead.line.outputs.modbus_plc import PollingPlc
from edgead.line.outputs.simulate import PlcProgram

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
POLL = 0.02
"""Seconds between two looks of the PLC."""
REMEMBERED = 4
"""Lives of the line in which a repetition of a result is known as such."""


@dataclass(frozen=True)
class Again:
    """A result that came again although its receipt was confirmed.

    Attributes:
        id: of the result.
        before, now: when it came, `time.monotonic` seconds.
        same: it was the same, byte for byte.
    """

    id: str
    before: float
    now: float
    same: bool


class Inbox:
    """The results that a receiver got. Thread-safe.

    Attributes:
        unconfirmed: how many came whose receipt was not confirmed; they must come again, or count as failed.
    """

    def __init__(self) -> None:
        self.unconfirmed = 0
        self._got: deque[dict[str, tuple[int, float]]] = deque([{}], REMEMBERED)
        self._again: list[Again] = []
        self._lock = threading.Lock()

    def put(self, text: bytes, confirmed: bool = True, came: float | None = None) -> None:
        """Take a result that came at a time, now if None: its receipt may have taken long."""
        identity, checksum, now = str(json.loads(text)["id"]), zlib.crc32(text), time.monotonic()
        came = now if came is None else came
        with self._lock:
            before = next((got[identity] for got in self._got if identity in got), None)
            if before and came >= before[1]:
                self._again.append(Again(identity, before[1], came, before[0] == checksum))
            elif before:
                self.unconfirmed += 1  # it was sent again while this one waited for its answer
            elif confirmed:
                self._got[0][identity] = checksum, now
            else:
                self.unconfirmed += 1

    def empty(self) -> tuple[dict[str, int], list[Again]]:
        """Return checksum by id of what was got and confirmed since the last call, and what came again."""
        with self._lock:
            got, again, self._again = self._got[0], self._again, []
            self._got.appendleft({})
        return {identity: checksum for identity, (checksum, _) in got.items()}, again


class Webhook:
    """An HTTP server.

    Args:
        port: of 127.0.0.1.

    Attributes:
        inbox: results whose answer 200 was sent whole.
        delay: seconds until it answers.
        status: that it answers with; 0 to end the connection without an answer.
    """

    def __init__(self, port: int) -> None:
        self.inbox = Inbox()
        self.delay, self.status = 0.0, 200
        self._port = port
        self._server: ThreadingHTTPServer | None = None
        self.revive()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}/results"

    def revive(self) -> None:
        """Listen."""
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook._answer(self, body)

            def log_message(self, format: str, *values: object) -> None:
                """Log nothing."""

        if self._server is None:
            self._server = _QuietServer(("127.0.0.1", self._port), Handler)
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        status, delay, came = self.status, self.delay, time.monotonic()
        time.sleep(delay)
        sent = False
        if status and not _has_left(handler.connection):
            try:
                handler.send_response(status)
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                sent = True
            except OSError:  # the line is gone, or has given up
                sent = False
        self.inbox.put(body, sent and status == 200 and delay < 4.0, came)

    def die(self) -> None:
        """Refuse connections."""
        server, self._server = self._server, None
        if server:
            server.shutdown()
            server.server_close()

    close = die


def _has_left(link: socket.socket) -> bool:
    """Return whether the other end has closed a connection in which it has nothing more to say."""
    link.setblocking(False)
    try:
        return not link.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        link.setblocking(True)


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect early, as a killed line does."""


class Broker:
    """A real mosquitto and a listener, which get everything that was acknowledged to the line.

    Args:
        folder: for its files.
        port: of 127.0.0.1.

    Attributes:
        inbox: what the listener got.
    """

    def __init__(self, folder: Path, port: int) -> None:
        mqtt: Any = require("paho.mqtt.client", "mqtt")
        folder.mkdir()
        self.inbox, self._port, self._config = Inbox(), port, folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\n"
            f"persistence_location {folder}/\nmax_queued_messages 0\nmax_inflight_messages 0\n"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="listener", clean_session=False)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_message = lambda client, data, message: self.inbox.put(bytes(message.payload))
        self._client.on_connect = lambda client, *rest: client.subscribe("line/results", qos=1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    @property
    def uri(self) -> str:
        return f"mqtt://127.0.0.1:{self._port}/line/results"

    def start(self) -> None:
        """Start it, with what it knew."""
        self._process = subprocess.Popen([str(MOSQUITTO), "-c", str(self._config)], stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while time.monotonic() < until and not _listens(self._port):
            time.sleep(0.02)

    def stop(self) -> None:
        """End it; it writes down what it knows."""
        process, self._process = self._process, None
        if process:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait()

    def freeze(self, frozen: bool) -> None:
        """Let it stand still, with its connections open; or go on."""
        if self._process:
            self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def close(self) -> None:
        """End both."""
        self._client.disconnect()
        self._client.loop_stop()
        self.stop()


def _listens(port: int) -> bool:
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0


class Plc:
    """Reads and acknowledges results over Modbus TCP, in a thread.

    Args:
        port: of the line.

    Attributes:
        reads: it does.
        acknowledged: session and sequence of each result that it has tried to acknowledge.
    """

    def __init__(self, port: int) -> None:
        self.reads, self.acknowledged = True, set[tuple[int, int]]()
        self._link, self._stopped = PollingPlc("127.0.0.1", port), threading.Event()
        self._thread = threading.Thread(target=self._run, name="plc", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        program = PlcProgram()
        while not self._stopped.wait(POLL):
            if not self.reads:
                continue
            try:
                seen = self._link.read()
                program.see(seen, time.monotonic())
                if program.alive and seen.verdict:
                    self.acknowledged.add((seen.session, seen.sequence))  # the line may take it without our knowing
                    self._link.acknowledge(seen.sequence)
            except SinkError:
                self._stopped.wait(0.1)

    def close(self) -> None:
        """End it."""
        self._stopped.set()
        self._thread.join(10.0)
        self._link.close()
