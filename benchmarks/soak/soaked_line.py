"""`edgead run` in a process of its own, and what can be seen of it from outside: metrics, memory, files."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from line_process import install_plugins
from plugins import ENTRY_POINTS, VARIABLE

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
START_WITHIN, END_WITHIN, ANSWER_WITHIN = 120.0, 30.0, 20.0
"""Seconds. A run promises to end within 15 s; the rest is for a busy machine."""
_LINE = re.compile(r"edgead_(\w+)\{(.*)\} (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Stuck(Exception):  # noqa: N818
    """The line does not start, answer or end."""


@dataclass
class Sample:
    """What the line says of itself at one moment, and what the system says of it.

    Attributes:
        at: `time.monotonic` seconds.
        captured, results, dropped, in_flight: by source.
        unknown: UNKNOWN results by source, and ``by_cause`` the same as the sum over their causes.
        sinks: fate ↦ number, by the sink's name in the metrics; ``waiting`` and its details too.
        reloads: by outcome.
        rss_mib: resident memory.
        files: open file descriptors.
    """

    at: float
    captured: Counter[str] = field(default_factory=Counter)
    results: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    by_cause: Counter[str] = field(default_factory=Counter)
    sinks: dict[str, Counter[str]] = field(default_factory=dict)
    reloads: Counter[str] = field(default_factory=Counter)
    rss_mib: float = 0.0
    files: int = 0


def read_metrics(text: str, at: float) -> Sample:
    """Read what ``/metrics`` answers."""
    sample = Sample(at)
    for found in map(_LINE.fullmatch, text.splitlines()):
        if found is None:
            continue
        name, labels, value = found[1], dict(_LABEL.findall(found[2])), int(float(found[3]))
        if name == "frames_captured_total":
            sample.captured[labels["source"]] += value
        elif name == "frames_inferred_total":
            sample.results[labels["source"]] += value
            sample.unknown[labels["source"]] += value if labels["verdict"] == "UNKNOWN" else 0
        elif name == "frames_unknown_total":
            sample.by_cause[labels["source"]] += value
        elif name == "frames_dropped_total":
            sample.dropped[labels["source"]] += value
        elif name == "frames_in_flight":
            sample.in_flight[labels["source"]] += value
        elif name == "bundle_reloads_total":
            sample.reloads[labels["outcome"]] += value
        elif name.startswith("sink_"):
            key = labels.get("fate") or labels.get("name") or ("waiting" if name == "sink_waiting" else "")
            sample.sinks.setdefault(labels["sink"], Counter())[key] += value
    return sample


class SoakedLine:
    """Starts and ends lines, one at a time.

    Args:
        folder: for files; logs and results of each life are in it.
        bundle: link to the bundle.
        sources, sinks: URIs. ``{life}`` becomes the number of the life, ``{fps}`` the rate of its drawn frames.
        metrics: port.
        control: file of the control page.
        clock: library that moves the wall clock; None for none.

    Attributes:
        log: what the running line says.
    """

    def __init__(
        self,
        folder: Path,
        bundle: Path,
        sources: Sequence[str],
        sinks: Sequence[str],
        metrics: int,
        control: Path,
        clock: Path | None,
    ) -> None:
        self._folder, self._port = folder, metrics
        self._command = [sys.executable, "-X", "faulthandler", "-m", "edgead", "run", str(bundle), "--json"]
        self._command += ["--engine", "soak", "--metrics", str(metrics), "--health", "live"]
        self._arguments = [f"--source={uri}" for uri in sources] + [f"--sink={uri}" for uri in sinks]
        site = install_plugins(folder / "site", ENTRY_POINTS)
        paths = [str(site), str(HERE), str(ROOT), *filter(None, sys.path)]
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
            VARIABLE: str(control),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_STATE_HOME": str(folder / "state"),
            **({"LD_PRELOAD": str(clock)} if clock else {}),
        }
        self._process: subprocess.Popen[str] | None = None
        self.log = folder / "none"

    def start(self, life: int, fps: float) -> Sample:
        """Start a line and wait until it captures.

        Raises:
            Stuck: it does not, or it has ended.
        """
        self.log = self._folder / f"log-{life}.txt"
        given = [argument.replace("{life}", str(life)).replace("{fps}", f"{fps:g}") for argument in self._arguments]
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                self._command + given,
                cwd=self._folder,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        until = time.monotonic() + START_WITHIN
        while time.monotonic() < until:
            if not self.runs:
                raise Stuck("it ended while it started")
            try:
                sample = self.sample()
                if sample.captured.total():
                    return sample
            except OSError:
                pass
            time.sleep(0.1)
        raise Stuck(f"it did not start within {START_WITHIN:g} s")

    @property
    def runs(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def has_ended(self, within: float) -> bool:
        """Return whether the process is gone, or goes within so many seconds."""
        try:
            return self._process is None or self._process.wait(within) is not None
        except subprocess.TimeoutExpired:
            return False

    def sample(self) -> Sample:
        """Look at it.

        Raises:
            OSError: it does not answer.
        """
        assert self._process
        at, status = time.monotonic(), Path(f"/proc/{self._process.pid}")
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_WITHIN)
        try:
            link.request("GET", "/metrics")
            sample = read_metrics(link.getresponse().read().decode(), at)
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            link.close()
        pages = int((status / "statm").read_text().split()[1])
        sample.rss_mib = pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
        sample.files = len(list((status / "fd").iterdir()))
        return sample

    def signal(self, number: int) -> None:
        """Send a signal, if it is there."""
        if self._process:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a loss of power would."""
        if self._process:
            self.signal(signal.SIGKILL)
            self._process.communicate()
            self._process = None

    def end(self, number: int) -> tuple[int, dict[str, Any]]:
        """End it by a signal; return its exit code and its summary.

        Raises:
            Stuck: it does not end, or says nothing.
        """
        assert self._process
        self.signal(number)
        try:
            out, _ = self._process.communicate(timeout=END_WITHIN)
        except subprocess.TimeoutExpired as error:
            raise Stuck(f"it did not end within {END_WITHIN:g} s") from error
        code, self._process = self._process.returncode, None
        try:
            return code, dict(json.loads(out))
        except ValueError as error:
            raise Stuck(f"it ended with code {code} and without a summary") from error

    def show_threads(self) -> None:
        """Let it write where its threads are into its log, and end it."""
        if self._process:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGABRT)
            try:
                self._process.communicate(timeout=10.0)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None


def floors(samples: Sequence[Sample], of: Callable[[Sample], float]) -> tuple[float, float]:
    """Return the 10th percentile of the second and of the last third of a life."""
    third = len(samples) // 3
    parts = samples[third : 2 * third], samples[2 * third :]
    low = [sorted(map(of, part))[len(part) // 10] for part in parts]
    return low[0], low[1]
