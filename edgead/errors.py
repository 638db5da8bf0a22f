"""Errors that a user can act on.

    EdgeadError                    exit 2   anything below; catch this one
    ├── DataError                  exit 2   images, masks and folders that cannot be used
    │   └── MisplacedError         exit 2   an image on which the part is not found where it may be
    ├── ConfigError                exit 2   an option or configuration value that makes no sense
    ├── TrainingError              exit 2   training cannot continue (for instance a loss that is not finite)
    ├── CheckpointError            exit 2   a checkpoint that is missing, damaged or of another method
    ├── ModelError                 exit 2   a third-party model that cannot be imported
    ├── BundleError                exit 2   a bundle that is missing, damaged or of a newer format
    ├── SourceError                exit 2   a frame source that cannot be opened
    ├── SinkError                  exit 2   a sink that did not take every result
    ├── MissingDependencyError     exit 2   an optional package is not installed
    ├── PullError                  exit 2   a bundle that cannot be fetched or put in place
    ├── RolledBackError            exit 3   a fetched bundle failed on the line, now or before; the old one decides
    ├── GateError                  exit 3   the exported graph is not close enough to the trained one
    └── DeviceError                exit 4   this machine cannot run what was asked for

The text of an error is one to three lines: what happened, why, and the next command to type.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import ClassVar

UNMET = 5
"""Exit code of `edgead plan` if nothing meets the numbers."""
LONGEST_NAME = 100
"""Characters of a wrong name that an error shows."""
INTERRUPTED = 130
"""Exit code of a process that Ctrl-C or TERM ended, as shells have it."""


class EdgeadError(Exception):
    """Base of all errors raised on purpose. `exit_code` is what the command line returns."""

    exit_code: ClassVar[int] = 2


class DataError(EdgeadError):
    """Images, masks or folders that cannot be used."""


class MisplacedError(DataError):
    """The part is not found on a frame, or lies too far from where it is on the reference picture.

    Args:
        message: what was found.
        why: the same in two or three words, by which such frames are counted.
    """

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


class ConfigError(EdgeadError):
    """An option or a configuration value that makes no sense."""


class DiskError(ConfigError):
    """A disk is full or fails, or has damaged a file: what cannot be opened now may be opened later."""


class TrainingError(EdgeadError):
    """Training cannot continue.

    Args:
        message: what happened.
        setting: its name; a lower value may prevent the error.
    """

    def __init__(self, message: str, setting: str) -> None:
        super().__init__(message)
        self.setting = setting


class CheckpointError(EdgeadError):
    """A checkpoint that is missing, damaged or of another method."""


class ModelError(EdgeadError):
    """A third-party model that cannot be imported."""


class BundleError(EdgeadError):
    """A bundle that is missing, damaged or of a newer format."""


class SourceError(EdgeadError):
    """A frame source that cannot be opened."""


class SinkError(EdgeadError):
    """A sink that did not take every result."""


class MissingDependencyError(EdgeadError):
    """An optional package is not installed."""


class PullError(EdgeadError):
    """A bundle that cannot be fetched or put in place."""


class RolledBackError(EdgeadError):
    """A fetched bundle failed on the line, now or in an earlier pull. The one before decides."""

    exit_code: ClassVar[int] = 3


class GateError(EdgeadError):
    """The exported graph is not close enough to the trained one."""

    exit_code: ClassVar[int] = 3


class DeviceError(EdgeadError):
    """This machine cannot run what was asked for."""

    exit_code: ClassVar[int] = 4


def describe(error: Exception) -> str:
    """Return an error's text, with its type if edgead did not raise it on purpose."""
    return str(error) if isinstance(error, EdgeadError) else f"{type(error).__name__}: {error}"


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its kind where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def unknown(kind: str, name: str, available: Iterable[str], owner: str = "") -> str:
    """Return the message for a name that does not exist, with the closest existing name where one is close.

    Args:
        kind: what the name stands for, in lower case, for instance ``"engine"``.
        name: the name that was given.
        available: the names that exist, in the order in which they are listed.
        owner: what has the names, for instance ``"the engine tensorrt"``.
    """
    names, name = list(available), name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
    lower = {each.lower(): each for each in names}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    question = f" Did you mean '{lower[close[0]]}'?" if close else ""
    of = f" of {owner}" if owner else ""
    return f"Unknown {kind} '{name}'{of}.{question} Available: {', '.join(names) or 'none'}."


def require(module: str, extra: str) -> ModuleType:
    """Import an optional package at its first use.

    Args:
        module: the name to import, for instance ``"cv2"``.
        extra: the extra of edgead that installs it, for instance ``"cpu"``.

    Raises:
        MissingDependencyError: with the command that installs it, or why the import failed and what helps.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if was_interrupted(error):
            raise KeyboardInterrupt from error
        if is_installed(module):
            raise MissingDependencyError(_broken(module, error)) from error
        raise _missing(module, extra) from error


def is_installed(module: str) -> bool:
    """Tell whether a package can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def require_installed(modules: tuple[str, ...], extra: str) -> None:
    """Check for packages that a whole subpackage needs, without importing them.

    Raises:
        MissingDependencyError: as `require` does.
    """
    for module in modules:
        if not is_installed(module):
            raise _missing(module, extra)


def was_interrupted(error: BaseException | None) -> bool:
    """Tell whether Ctrl-C caused an error: compiled modules report it as a failed import."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _missing(module: str, extra: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"The Python package '{module}' is needed here and cannot be imported.\n"
        f"Install it with:  pip install 'edgead[{extra}]'"
    )


def _broken(module: str, error: ImportError) -> str:
    """Return why an installed package cannot be imported, with the remedy if NumPy is too new for it."""
    text = f"The Python package '{module}' is installed but cannot be imported: "
    numpy = getattr(sys.modules.get("numpy"), "__version__", "0")
    if int(numpy.split(".")[0]) >= 2 and any(word in str(error) for word in ("multiarray", "_ARRAY_API")):
        return f"{text}it was built for NumPy 1, not {numpy}.\nInstall the older one with:  pip install 'numpy<2'"
    return f"{text}{error}."
