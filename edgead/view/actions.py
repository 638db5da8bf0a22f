"""What people may change on the page. Each change is written to the audit log before it is made."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from edgead.audit import Audit
from edgead.errors import ConfigError, EdgeadError, describe
from edgead.marks import Marks, check_mark
from edgead.redaction import printable, shown
from edgead.runtime.observer import OTHER_DECIDES, Line
from edgead.schema import SchemaError, parse_json
from edgead.view.access import Refused
from edgead.view.bundles import Bundles
from edgead.view.marks import mark_reject
from edgead.view.rejects import Rejects

LONGEST_NAME = 60

Do = Callable[[], None]


class Actions:
    """The changes.

    Args:
        line: that is changed.
        bundles: for changeovers.
        rejects: that can be marked.
        marks: where marks go.
        audit: the log.
        say: shows a line to whoever watches the process.
    """

    def __init__(
        self, line: Line, bundles: Bundles, rejects: Rejects, marks: Marks, audit: Audit, say: Callable[[str], None]
    ) -> None:
        self._line, self._bundles, self._rejects, self._marks = line, bundles, rejects, marks
        self._audit, self._say = audit, say
        self._prepare: dict[str, Callable[[dict[str, Any], str], tuple[dict[str, object], Do]]] = {
            "threshold": self._threshold,
            "pause": self._pause,
            "resume": self._resume,
            "changeover": self._changeover,
            "mark": self._mark,
        }

    def perform(self, action: str, body: bytes, address: str) -> None:
        """Make a change and return when it is made.

        Args:
            action: its name.
            body: JSON object with its values, and with ``who``: the person's name.
            address: of the client.

        Raises:
            Refused: it is not possible, with the reason.
        """
        if action not in self._prepare:
            raise Refused(404, "There is no such change.")
        values = _read(body)
        who = printable(str(values.get("who", "")))[:LONGEST_NAME]
        try:
            noted, do = self._prepare[action](values, who)
        except EdgeadError as error:
            raise Refused(409, str(error)) from error
        try:
            self._audit.write(who, address, action, **noted)
        except OSError as error:
            raise Refused(
                500, f"Nothing was changed, because the audit log cannot be written: {error.strerror}."
            ) from error
        try:
            do()
        except (EdgeadError, OSError) as error:
            why = shown(describe(error))
            self._note_failure(who, address, action, why)
            raise Refused(409, why) from error
        if action != "mark":
            told = ", ".join(f"{name} {value}" for name, value in noted.items())
            self._say(f"Live page: {action} by {who or 'unknown'} at {address}{': ' if told else ''}{told}")

    def _note_failure(self, who: str, address: str, action: str, why: str) -> None:
        try:
            self._audit.write(who, address, action, failed=why)
        except OSError as error:
            self._say(f"Warning: the audit log cannot be written: {error.strerror}")

    def _threshold(self, values: dict[str, Any], _who: str) -> tuple[dict[str, object], Do]:
        wanted = values.get("threshold")
        if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not math.isfinite(wanted):
            raise ConfigError("The threshold must be a finite number.")
        inspector = self._line.inspector
        digest, recipe = inspector.bundle.manifest.digest, inspector.recipe
        if (values.get("digest"), values.get("recipe", "")) != (digest, recipe):
            raise ConfigError(OTHER_DECIDES)
        noted: dict[str, object] = {"from": inspector.threshold, "to": wanted, "bundle": inspector.bundle.manifest.name}
        return noted, lambda: self._line.set_threshold(digest, wanted, recipe)

    def _pause(self, _values: dict[str, Any], _who: str) -> tuple[dict[str, object], Do]:
        return {}, self._line.pause

    def _resume(self, _values: dict[str, Any], _who: str) -> tuple[dict[str, object], Do]:
        return {}, self._line.resume

    def _changeover(self, values: dict[str, Any], _who: str) -> tuple[dict[str, object], Do]:
        name = str(values.get("bundle", ""))
        path = self._bundles.path(name)
        noted: dict[str, object] = {"from": self._line.inspector.bundle.manifest.name, "to": name}
        return noted, lambda: self._line.change_over(path)

    def _mark(self, values: dict[str, Any], who: str) -> tuple[dict[str, object], Do]:
        reject, mark = self._rejects.get(str(values.get("id", ""))), str(values.get("mark", ""))
        if reject is None:
            raise ConfigError("This reject is no longer on the page.")
        check_mark(mark)
        saved = self._line.reject_folder
        return {"id": reject.result.id, "mark": mark}, lambda: mark_reject(self._marks, reject, mark, who, saved)


def _read(body: bytes) -> dict[str, Any]:
    try:
        values = parse_json(body)
    except SchemaError:
        values = None
    if not isinstance(values, dict):
        raise Refused(400, "Send a JSON object.")
    return values
