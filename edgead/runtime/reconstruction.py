"""The network's estimate of the defect-free image, for display: a tensor inside the graph, computed on request.

It is not an output of the graph, so the engines of a running line neither copy nor return it.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Bundle
from edgead.errors import BundleError, DeviceError, MissingDependencyError, require
from edgead.images import Frame
from edgead.onnx_session import new_session
from edgead.runtime.engines import cpu_model, first_line

GRAPH, OUTPUT, NAME = 7, 12, 1
"""Fields of ONNX's ModelProto, GraphProto and ValueInfoProto."""


def open_reconstructor(bundle: Bundle) -> Reconstructor | None:
    """Open a bundle's reconstructor; None if it has no reconstruction, or ONNX Runtime is missing."""
    with suppress(MissingDependencyError):
        return Reconstructor(bundle) if bundle.manifest.reconstruction else None
    return None


class Reconstructor:
    """Reconstructs fitted frames, with ONNX Runtime on the CPU.

    Args:
        bundle: one with `Manifest.reconstruction`.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        BundleError: the graph does not contain the tensor in the manifest.
    """

    def __init__(self, bundle: Bundle) -> None:
        facts = bundle.manifest.reconstruction
        if facts is None:
            raise BundleError(f"{bundle.path} has no reconstruction.")
        self.tensor, self.black, self.white = facts.tensor, facts.black, facts.white
        name = cpu_model(bundle)
        ort = require("onnxruntime", "cpu")
        graph = bundle.content(name) + _one_more_output(self.tensor)
        try:
            self._session = new_session(ort, graph)
        except Exception as error:  # ONNX Runtime's errors have no common base but this
            raise BundleError(f"{bundle.folder / name} has no tensor '{self.tensor}': {first_line(error)}") from error

    def __call__(self, fitted: Frame) -> NDArray[np.uint8]:
        """Return the reconstruction ``(h, w, 3) uint8 BGR`` of a fitted frame ``(h, w, C) uint8``.

        Raises:
            DeviceError: ONNX Runtime failed.
        """
        try:
            [found] = self._session.run([self.tensor], {"frames": fitted[None]})
        except Exception as error:  # as above
            raise DeviceError(f"ONNX Runtime failed: {first_line(error)}") from error
        image = found[0, :3].astype(np.float32).transpose(1, 2, 0)
        grey = (image - self.black) * (255 / (self.white - self.black))
        return np.ascontiguousarray(np.clip(np.rint(grey), 0, 255), np.uint8)


def _one_more_output(name: str) -> bytes:
    """Return bytes that, appended to an ONNX model, make one of its tensors an output.

    Protocol buffers merge repeated messages and append their lists, so no ONNX package is needed.
    """
    return _field(GRAPH, _field(OUTPUT, _field(NAME, name.encode())))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
