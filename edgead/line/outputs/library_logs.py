"""What the protocol libraries log."""

from __future__ import annotations

import logging


def quiet(library: str) -> None:
    """Leave it to our own messages to report what fails; a level that the user has set stays."""
    log = logging.getLogger(library)
    if log.level == logging.NOTSET:
        log.setLevel(logging.CRITICAL + 1)
