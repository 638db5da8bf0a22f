"""The cameras' own triggers: every picture of a camera that the line fires is a part."""

from __future__ import annotations

from dataclasses import dataclass

from edgead.errors import ConfigError
from edgead.line.triggers.trigger import BaseTrigger
from edgead.runtime.sources.uri import redact, split_options


@dataclass(frozen=True)
class CameraOptions:
    """Options of ``camera:``, see `CameraTrigger`. `tolerance` is in milliseconds."""

    tolerance: float = 20.0


def open_camera(uri: str) -> CameraTrigger:
    """``camera:?tolerance=20``.

    Raises:
        ConfigError: an unknown option, or a name.
    """
    name, options = split_options(uri, CameraOptions)
    if name:
        raise ConfigError(f"{redact(uri)}: camera: means all cameras of the run and takes no name.")
    return CameraTrigger(options.tolerance / 1e3)


class CameraTrigger(BaseTrigger):
    """A frame opens a part, or joins the one that it was made with and that has no frame of its camera yet.

    Where that part is answered already, the frame is dropped.

    Args:
        tolerance: seconds between the pictures that several cameras make of one part.
    """

    def __init__(self, tolerance: float = 0.02) -> None:
        super().__init__("camera:")
        self.tolerance = tolerance
