"""Watches a running line through its metrics: does it take a bundle, and does it decide as before?"""

from __future__ import annotations

import contextlib
import http.client
import math
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgead.binomial import upper_limit
from edgead.errors import ConfigError, PullError
from edgead.runtime.metrics_server import is_local, parse_address
from edgead.timed_answer import TimedAnswer

POLL = 1.0
"""Seconds between two looks."""
TAKEN_WITHIN = 900.0
"""Seconds for a line to open a bundle; TensorRT may build its engine."""
DECIDES_WITHIN = 15.0
"""Seconds after a reload within which the loaded bundle decides: a frame may still be in the engine."""
GONE, UNHEALTHY = 15.0, 15.0
"""Seconds without an answer, or with late decisions, after which a line has failed."""
FEWEST, MOST = 20, 10_000
"""Results before the change from which its shares are known, and as how many they count at most."""
LARGEST_ANSWER = 4 << 20
_SAMPLE = re.compile(r"^(edgead_\w+)\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Counts:
    """Results of a line, over all sources."""

    passed: int = 0
    failed: int = 0
    unknown: int = 0

    @property
    def all(self) -> int:
        return self.passed + self.failed + self.unknown

    def since(self, before: Counts) -> Counts:
        """Return the results that came after others; a line that was restarted counts from zero."""
        if before.all > self.all:
            return self
        return Counts(self.passed - before.passed, self.failed - before.failed, self.unknown - before.unknown)


@dataclass(frozen=True)
class Seen:
    """What a line's metrics say.

    Attributes:
        digest: of the bundle that decides.
        counts: of its results since it started.
        reloaded, refused: reloads that it has done and refused.
        unhealthy: why decisions are not on time; empty if they are.
    """

    digest: str
    counts: Counts
    reloaded: int
    refused: int
    unhealthy: str


@dataclass
class Report:
    """What became of a bundle on the line.

    Attributes:
        before, after: results under the old bundle, since the line started, and under the new one.
        seconds: watched.
        failed: why it was taken back; empty if it was not.
    """

    before: Counts = field(default_factory=Counts)
    after: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    failed: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


class RunningLine:
    """An `edgead run` on this machine.

    Args:
        process: its number, or a file that holds it.
        metrics: its ``--metrics``: PORT or ADDRESS:PORT of this machine.
        token: its ``--metrics-token``.

    Raises:
        ConfigError: not such a number, or an address of another machine.
    """

    def __init__(self, process: str, metrics: str, token: str = "") -> None:
        host, port = parse_address(metrics)
        if not is_local(host):
            raise ConfigError(f"--metrics {metrics} is on another machine. Pull where the line runs.")
        self._host, self._port, self._token, self._process = host, port, token, process
        self.pid()

    def pid(self) -> int:
        """Return the number of the process.

        Raises:
            ConfigError: there is none, or it is no process of edgead.
        """
        text = self._process
        with contextlib.suppress(OSError, ValueError):
            text = Path(text).read_text(encoding="utf-8").strip() if not text.isdecimal() else text
        if not text.isdecimal() or not 1 < int(text) < 1 << 31:
            raise ConfigError(f"--pid takes the number of a process, or a file that holds it, not '{self._process}'.")
        command = Path(f"/proc/{text}/cmdline")
        if Path("/proc/self").exists() and b"edgead" not in (command.read_bytes() if command.exists() else b""):
            raise ConfigError(f"Process {text} is not an edgead run.")
        return int(text)

    def reload(self) -> None:
        """Ask it to load its bundle again.

        Raises:
            PullError: it cannot be signalled.
        """
        try:
            os.kill(self.pid(), signal.SIGHUP)
        except OSError as error:
            raise PullError(f"Process {self._process} cannot be signalled: {error.strerror}.") from error

    def look(self) -> Seen | None:
        """Return what its metrics say; None if it does not answer."""
        try:
            _, text = self._get("/metrics")
            status, health = self._get("/healthz")
        except (OSError, http.client.HTTPException):
            return None
        digest, reloads, counts = "", {"done": 0, "refused": 0}, {"PASS": 0, "FAIL": 0, "UNKNOWN": 0}
        for name, labels, value in _SAMPLE.findall(text):
            known = dict(_LABEL.findall(labels))
            if name == "edgead_bundle_info":
                digest = known.get("digest", "")
            elif name == "edgead_bundle_reloads_total" and known.get("outcome") in reloads:
                reloads[known["outcome"]] = int(float(value))
            elif name == "edgead_frames_inferred_total" and known.get("verdict") in counts:
                counts[known["verdict"]] += int(float(value))
        unhealthy = "" if status == 200 else health.strip()[:200]
        decided = Counts(counts["PASS"], counts["FAIL"], counts["UNKNOWN"])
        return Seen(digest, decided, reloads["done"], reloads["refused"], unhealthy)

    def _get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=5)
        connection.response_class = TimedAnswer
        try:
            headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            if answer.status == 401:
                raise ConfigError("The line's metrics need a token:  --metrics-token '${NAME}'")
            return answer.status, answer.read(LARGEST_ANSWER).decode("utf-8", "replace")
        finally:
            connection.close()


def wait_for(line: RunningLine, digest: str, before: Seen | None, gone: float = GONE) -> str:
    """Wait until a bundle decides; return why it does not, or an empty text.

    Args:
        line: that was told.
        digest: of the bundle.
        before: what its metrics said then.
        gone: seconds without an answer that are allowed.
    """
    began = answered = time.monotonic()
    reloaded, refused = (before.reloaded, before.refused) if before else (0, 0)
    done_at: float | None = None
    while time.monotonic() - began < TAKEN_WITHIN:
        seen, now = line.look(), time.monotonic()
        if seen is None and now - answered > gone:
            return "the line does not answer any more"
        if seen is not None:
            answered = now
            if seen.digest == digest:
                return ""
            if seen.refused > refused:
                return "the line refused it; its log says why"
            done_at = done_at or (now if seen.reloaded > reloaded else None)
            if done_at and now - done_at > DECIDES_WITHIN:
                return "the line has loaded a bundle from another path, perhaps after a changeover on its live page"
        time.sleep(POLL)
    return f"the line did not take it within {TAKEN_WITHIN / 60:g} minutes"


def watch(
    line: RunningLine, digest: str, before: Counts, seconds: float, most: float, say: Callable[[str], None]
) -> Report:
    """Watch a line that has taken a bundle.

    Args:
        line: the line.
        digest: of the bundle.
        before: results under the old bundle.
        seconds: to watch.
        most: largest growth of the shares of FAIL and of UNKNOWN.
        say: shows a line.
    """
    report = Report(before)
    start: Counts | None = None
    began = answered = healthy = time.monotonic()
    while not report.failed and report.seconds < seconds:
        time.sleep(min(POLL, seconds))
        seen, now = line.look(), time.monotonic()
        report.seconds = round(now - began, 1)
        if seen is None:
            if now - answered > GONE:
                report.failed = "the line does not answer any more"
            continue
        answered = now
        start = start or seen.counts
        report.after = seen.counts.since(start)
        if not seen.unhealthy:
            healthy = now
        if seen.digest != digest:
            report.failed = "another bundle decides now"
        elif now - healthy > UNHEALTHY:
            report.failed = seen.unhealthy.rstrip(".")
        else:
            report.failed = judge(before, report.after, most)
    if not report.failed and not report.after.all:
        say("Warning: the line has decided nothing while it was watched.")
    return report


def judge(before: Counts, after: Counts, most: float) -> str:
    """Return why the results under a new bundle are too bad, or an empty text.

    A share has grown too much if its lower 95 % limit is that far above the upper 95 % limit of the share before. FAIL
    is judged only where the share before is known.
    """
    for name, old, new in (("UNKNOWN", before.unknown, after.unknown), ("FAIL", before.failed, after.failed)):
        known = before.all >= FEWEST
        if not after.all or (name == "FAIL" and not known):
            continue
        allowed = (_highest_share(old, before.all) if known else 0.0) + most
        if new / after.all > allowed and 1 - upper_limit(after.all - new, after.all) > allowed:
            return f"{new} of {after.all} results are {name}, before {old} of {before.all}"
    return ""


def _highest_share(count: int, of: int) -> float:
    """Return the upper 95 % limit of a share. More than `MOST` results would take long, and narrow it hardly more."""
    counted = min(of, MOST)
    return upper_limit(math.ceil(count * counted / of), counted)
