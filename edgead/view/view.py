"""The live page as an observer of a run."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edgead.audit import Audit
from edgead.errors import ConfigError, describe
from edgead.marks import Marks
from edgead.runtime.frame_inspector import FrameInspector
from edgead.runtime.metrics_server import as_url, parse_address
from edgead.runtime.observer import Line
from edgead.runtime.result import Result
from edgead.view.access import Access, read_token
from edgead.view.actions import Actions
from edgead.view.bundles import Bundles
from edgead.view.curves import Sample
from edgead.view.feed import Feed
from edgead.view.hub import Hub
from edgead.view.log import Log
from edgead.view.rejects import Rejects
from edgead.view.seen import Seen
from edgead.view.server import Answers, Server
from edgead.view.state import to_json
from edgead.view.what_if import histogram, what_if

TICK = 0.4
"""Seconds between two states while somebody watches."""
IDLE_TICK = 0.5
"""The same while nobody does: only counts are kept."""
FOLDER = Path("runs") / "view"


class View:
    """Serves the page of one run; see `edgead.runtime.observer.Observer`.

    Args:
        address: ``PORT``, ``ADDRESS:PORT`` or ``[IPV6]:PORT``; port 0 for any free one.
        token: ``${NAME}`` or ``${file:PATH}``; without one, nothing can be changed.
        bundles: bundles and folders of bundles for changeovers.
        folder: of marks and audit log; None for ``marks`` in the folder of a ``rejects:`` sink, else `FOLDER`.
        say: shows a line to the user.

    Raises:
        ConfigError: an address that cannot be used or needs a token, an unusable token, or a missing folder.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str = "",
        bundles: Sequence[Path] = (),
        folder: Path | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        host, port = parse_address(address, "--view")
        self._access = Access(host, read_token(token))
        self._bundles, self._folder, self._say = Bundles(bundles), folder, say
        self._link = _listen(host, port)
        self.port = int(self._link.getsockname()[1])
        self.url = as_url(host, self.port)
        self._seen, self._hub, self._rejects = Seen(), Hub(), Rejects()
        self._feed = Feed(self._hub, self._rejects)
        self._stopped, self._told = threading.Event(), ""
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def begin(self, line: Line) -> None:
        """Start the server and the thread that looks at the run."""
        beside = line.reject_folder
        folder = self._folder or (beside / "marks" if beside else FOLDER)
        marks = Marks(folder)
        self._line = line
        self._log = Log(line, self._seen, self._rejects, marks, self._bundles, self._access.may_change)
        actions = Actions(line, self._bundles, self._rejects, marks, Audit(folder), self._say)
        answers = Answers(actions.perform, self._large, self._scores, self._what_if)
        self._server = Server(self._link, self._access, self._hub, answers, self._say)
        self._thread = threading.Thread(target=self._watch, name="view", daemon=True)
        self._thread.start()
        self._say(f"Live page: {self.url}")

    def see(self, result: Result) -> None:
        """Keep references to a result. Nothing here waits or fails."""
        self._seen.see(result)

    def close(self) -> None:
        """Tell the viewers that the run has ended, and stop within a few seconds."""
        self._stopped.set()
        if self._thread:
            self._thread.join(1.0)
        if self._server:
            self._server.close()
        self._link.close()

    def _watch(self) -> None:
        """Look at the run until it ends. After an error no state is sent, so the page says that it is old."""
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                self._look()
            except Exception as error:  # the line goes on without its page
                self._tell(f"Warning: the live page shows nothing new, the run continues: {describe(error)}")
            tick = TICK if self._hub.viewers else IDLE_TICK
            self._stopped.wait(max(tick - (time.monotonic() - began), TICK / 4))

    def _look(self) -> None:
        ledger = self._log.update()
        if self._hub.viewers:
            self._hub.publish("state", "state", self._log.state(ledger).to_json())
            self._feed.send(self._log.pictures(), time.monotonic())
        else:
            self._feed.forget()
            self._hub.forget()

    def _tell(self, text: str) -> None:
        """Show a line that differs from the last one."""
        if text != self._told:
            self._told = text
            self._say(text)

    def _large(self, result_id: str) -> bytes | None:
        reject = self._rejects.get(result_id)
        return None if reject is None else to_json(reject.large)

    def _scores(self) -> bytes:
        inspector = self._line.inspector
        samples, held_out = self._known_scores(inspector)
        return to_json(histogram(samples, held_out, inspector.threshold))

    def _what_if(self, threshold: float) -> bytes:
        inspector = self._line.inspector
        samples, held_out = self._known_scores(inspector)
        has_rules = inspector.region is not None or inspector.min_area > 0
        unseen = inspector.bundle.manifest.data.unseen
        return to_json(what_if(threshold, samples, held_out, has_rules=has_rules, unseen=unseen))

    def _known_scores(self, inspector: FrameInspector) -> tuple[list[Sample], Sequence[float]]:
        manifest = inspector.bundle.manifest
        return self._log.samples.of((manifest.digest, inspector.recipe)), manifest.threshold.scores


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"The live page cannot be served on port {port} of {host}: {why}.") from error
