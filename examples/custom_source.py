"""Frames from a camera that edgead does not know: any function that returns the next frame is a source.

python examples/custom_source.py BUNDLE
"""

import sys

import numpy as np

import edgead
from edgead.runtime.sources.python import CallableSource

if len(sys.argv) < 2:
    sys.exit("Usage: " + __doc__.splitlines()[2])


class MyCamera:
    """Stands for your camera's SDK."""

    def __init__(self) -> None:
        self.left = 20

    def grab(self) -> "np.ndarray | None":
        """Return the next frame, (H, W, 3) uint8 BGR; None at the end."""
        self.left -= 1
        return None if self.left < 0 else np.full((480, 640, 3), 100 + self.left, np.uint8)


source = CallableSource(MyCamera().grab, name="my-camera", live=False)  # live: frames come by themselves
with edgead.load(sys.argv[1]) as inspector:
    for result in inspector.stream(source):
        print(result.source_id, result.frame_id, result.verdict.value)
