"""The audit log: one JSON line for every change that somebody made on the page."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

from edgead.runtime.sinks.lines import LineFile


class Audit:
    """Appends to ``audit.jsonl``. A line is written before its change: no line, no change.

    Args:
        folder: of the file; created with the first line.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "audit.jsonl"

    def write(self, who: str, address: str, action: str, **values: object) -> None:
        """Append a line: when, who (as they said), from which address, what, and its values.

        Raises:
            OSError: it cannot be written.
        """
        at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = {"at": at, "who": who, "address": address, "action": action, **values}
        file = LineFile(self.path)
        try:
            file.write(json.dumps(line).encode())
        finally:
            file.close()
