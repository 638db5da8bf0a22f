"""Errors that a user can act on.

    EdgeadError                    exit 2   anything below; catch this one
    ├── DataError                  exit 2   images, masks and folders that cannot be used
    ├── ConfigError                exit 2   an option or configuration value that makes no sense
    ├── TrainingError              exit 2   training cannot go on (for instance a loss that is not finite)
    ├── CheckpointError            exit 2   a checkpoint that is missing, damaged or of another method
    ├── BundleError                exit 2   a bundle that is missing, damaged or of a newer format
    ├── SourceError                exit 2   a frame source that cannot be opened
    ├── SinkError                  exit 2   a sink that did not take every result
    ├── MissingDependencyError     exit 2   an optional package is not installed
    ├── GateError                  exit 3   the exported graph is not close enough to the trained one
    └── DeviceError                exit 4   this machine cannot run what was asked for

The text of an error is one to three lines: what happened, why, and the next command to type.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import ClassVar


class EdgeadError(Exception):
    """Base of all errors raised on purpose. `exit_code` is what the command line returns."""

    exit_code: ClassVar[int] = 2


class DataError(EdgeadError):
    """Images, masks or folders that cannot be used."""


class ConfigError(EdgeadError):
    """An option or a configuration value that makes no sense."""


class TrainingError(EdgeadError):
    """Training cannot go on."""


class CheckpointError(EdgeadError):
    """A checkpoint that is missing, damaged or of another method."""


class BundleError(EdgeadError):
    """A bundle that is missing, damaged or of a newer format."""


class SourceError(EdgeadError):
    """A frame source that cannot be opened."""


class SinkError(EdgeadError):
    """A sink that did not take every result."""


class MissingDependencyError(EdgeadError):
    """An optional package is not installed."""


class GateError(EdgeadError):
    """The exported graph is not close enough to the trained one."""

    exit_code: ClassVar[int] = 3


class DeviceError(EdgeadError):
    """This machine cannot run what was asked for."""

    exit_code: ClassVar[int] = 4


def require(module: str, extra: str) -> ModuleType:
    """Import an optional package at its first use.

    Args:
        module: name to import, for instance ``"cv2"``.
        extra: the extra of this distribution that brings it, for instance ``"cpu"``.

    Raises:
        MissingDependencyError: with the exact command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"The Python package '{module}' is needed here and cannot be imported ({error}).\n"
            f"Install it with:  pip install 'edgead[{extra}]'"
        ) from error
