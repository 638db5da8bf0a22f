"""The line: `edgead run` in a process of its own, which can be killed."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from pictures import BUNDLES, make_bundle

HERE = Path(__file__).resolve().parent
PRODUCTS = tuple("abc"[:BUNDLES])
"""Product K − 1 has bundle K."""
RULES = {"within": 300, "window": 50}
"""Of parts, in milliseconds."""
TIMING = {"hold_ms": 1000, "late_ms": 300, "heartbeat_ms": 50}
"""Of the PLC output."""


class LineProcess:
    """Starts and ends lines, one at a time, at the same addresses.

    Args:
        folder: for bundles, files and results.
        camera: port of the camera.

    Attributes:
        plc: ``HOST:PORT`` of the Modbus server.
        results: file of the running line's results.
    """

    def __init__(self, folder: Path, camera: int) -> None:
        self._folder = folder
        self._trigger, self._control, modbus = free_ports(3)
        self.plc = ("127.0.0.1", modbus)
        self._camera, self._lives = camera, 0
        self.results = folder / "none"
        self._bundles = [make_bundle(folder / f"bundle-{number}.edgead", number) for number in range(1, BUNDLES + 1)]
        self._site = install_plugins(folder / "site", "[edgead.sources]\nsimulated = line_camera:open_simulated\n")
        self._process: subprocess.Popen[str] | None = None

    def start(self, with_products: bool, first: int) -> None:
        """Start a line.

        Args:
            with_products: it has all products, and changes over; otherwise it has one bundle, which can be replaced.
            first: number of the bundle that decides first.
        """
        self._lives += 1
        self.results = self._folder / f"results-{self._lives}.jsonl"
        command = [sys.executable, "-m", "edgead", "run", "--json", "--engine", "onnxruntime", "--health", "off"]
        if with_products:
            command += ["--config", str(self._write_file(first))]
        else:
            self.link(first)
            command += [str(self._folder / "current.edgead"), *self._options()]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self._site), str(HERE), *filter(None, sys.path)]),
            "OMP_NUM_THREADS": "1",
        }
        log = (self._folder / f"log-{self._lives}.txt").open("w")
        with log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def _options(self) -> list[str]:
        options = [f"--part={name}={value}" for name, value in RULES.items()]
        options += [f"--source={self._source}", f"--trigger={self._trigger_uri}"]
        return options + [f"--sink={uri}" for uri in self._sinks]

    @property
    def _source(self) -> str:
        return f"camera=simulated:{self._camera}"

    @property
    def _trigger_uri(self) -> str:
        return f"http://127.0.0.1:{self._trigger}/part?debounce=0.2"

    @property
    def _sinks(self) -> list[str]:
        timing = "&".join(f"{name}={value}" for name, value in TIMING.items())
        return [f"modbus-server:127.0.0.1:{self.plc[1]}?{timing}", f"jsonl:{self.results}"]

    def _write_file(self, first: int) -> Path:
        lines = [
            f'product = "{PRODUCTS[first - 1]}"',
            f'triggers = ["{self._trigger_uri}"]',
            f'control = ["http://127.0.0.1:{self._control}/product"]',
            f"sinks = {json.dumps(self._sinks)}",
            "[cameras.camera]",
            f'source = "simulated:{self._camera}"',
            "[part]",
            *(f"{name} = {value}" for name, value in RULES.items()),
        ]
        for name, bundle in zip(PRODUCTS, self._bundles):
            lines += [f"[products.{name}]", f'bundle = "{bundle.name}"', 'version = "1"']
        path = self._folder / "line.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def link(self, number: int) -> None:
        """Let ``current.edgead`` be a bundle; `reload` makes the line take it."""
        link = self._folder / "next.edgead"
        link.symlink_to(self._bundles[number - 1].name)
        os.replace(link, self._folder / "current.edgead")

    def reload(self) -> None:
        """Send HUP."""
        self._signal(signal.SIGHUP)

    def fire(self, part_id: str) -> tuple[int, str]:
        """Announce a part; return the status and the id in the answer.

        Raises:
            OSError, http.client.HTTPException: the line is not there.
        """
        status, answer = _post(self._trigger, "/part", {"part_id": part_id})
        return status, str(answer.get("part_id", ""))

    def change_over(self, product: str) -> str:
        """Ask for a product; return its recipe.

        Raises:
            OSError, http.client.HTTPException: the line is not there.
        """
        return str(_post(self._control, "/product", {"product": product})[1].get("recipe", ""))

    def kill(self) -> None:
        """End it as a loss of power would."""
        self._signal(signal.SIGKILL)
        self._leave()

    def end(self) -> dict[str, Any]:
        """End it as a user would, and return its summary."""
        self._signal(signal.SIGTERM)
        return dict(json.loads(self._leave()))

    def _signal(self, number: int) -> None:
        assert self._process
        self._process.send_signal(number)

    def _leave(self) -> str:
        assert self._process
        out, _ = self._process.communicate(timeout=30)
        self._process = None
        return out

    @property
    def died(self) -> str:
        """What a line that has ended by itself has said; empty while it runs."""
        if self._process is None or self._process.poll() is None:
            return ""
        return (self._folder / f"log-{self._lives}.txt").read_text() or f"exit code {self._process.returncode}"

    def close(self) -> None:
        """End it, whatever it does."""
        if self._process:
            self.kill()


def _post(port: int, path: str, value: dict[str, str]) -> tuple[int, dict[str, Any]]:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=10.0)
    try:
        link.request("POST", path, json.dumps(value), {"Content-Type": "application/json"})
        answer = link.getresponse()
        return answer.status, dict(json.loads(answer.read()))
    finally:
        link.close()


def install_plugins(site: Path, entry_points: str) -> Path:
    """Make a folder in which Python finds entry points, given as in ``entry_points.txt``. Return it."""
    info = site / "simulated_line-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: simulated-line\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    return site


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 on which nothing listens now."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
