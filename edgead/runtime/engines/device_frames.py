"""Frames that are in a GPU's memory already: those of pycuda, CuPy, torch or NVIDIA's decoders.

Two protocols describe them: `__cuda_array_interface__` (version 3, numba.readthedocs.io) and DLPack (version 0 and 1 of
the array API). Neither is a dependency.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.errors import DataError

DEFAULT_STREAM = 1  # cudaStreamLegacy
_CUDA, _MANAGED = 2, 13  # DLDeviceType
_UNSIGNED = 1  # DLDataTypeCode


@dataclass(frozen=True)
class DeviceFrames:
    """Frames at an address of the GPU: ``[N, H, W, C] uint8``, C-contiguous.

    Attributes:
        address: of the first frame.
        shape: [N, H, W, C].
        stream: the stream that writes them, as a number.
        owner: keeps the memory.
    """

    address: int
    shape: tuple[int, ...]
    stream: int
    owner: Any

    dtype = np.dtype(np.uint8)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all frames."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> DeviceFrames:
        start, stop, _ = part.indices(len(self))
        each = self.nbytes // max(len(self), 1)
        return replace(self, address=self.address + start * each, shape=(max(stop - start, 0), *self.shape[1:]))


Frames = NDArray[np.uint8] | DeviceFrames
"""What an engine on a GPU takes."""


def find_device_frames(frames: Any) -> DeviceFrames | None:
    """Describe frames in a GPU's memory; None if they are in no GPU's memory, for instance a NumPy array.

    Raises:
        DataError: they are on a GPU, but not uint8, or not C-contiguous.
    """
    if isinstance(frames, np.ndarray):
        return None
    if isinstance(frames, DeviceFrames):
        return frames
    if (facts := getattr(frames, "__cuda_array_interface__", None)) is not None:
        return _from_interface(facts, frames)
    device = getattr(frames, "__dlpack_device__", None)
    return _from_dlpack(frames) if device and device()[0] in (_CUDA, _MANAGED) else None


def _from_interface(facts: dict[str, Any], owner: Any) -> DeviceFrames:
    shape = tuple(facts["shape"])
    _refuse_other(str(facts["typestr"]) == "|u1", str(facts["typestr"]), shape, facts.get("strides"))
    # Without a stream, no one need be waited for. pycuda gives none for work that is still queued in the default one.
    return DeviceFrames(int(facts["data"][0]), shape, int(facts.get("stream") or DEFAULT_STREAM), owner)


class _Tensor(ctypes.Structure):
    """DLTensor, the first member of DLManagedTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )


def _from_dlpack(frames: Any) -> DeviceFrames:
    capsule = frames.__dlpack__(stream=DEFAULT_STREAM)  # from here on the default stream waits for the writer
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tensor = _Tensor.from_address(get_pointer(capsule, b"dltensor"))
    shape = tuple(tensor.shape[index] for index in range(tensor.ndim))
    strides = [tensor.strides[index] for index in range(tensor.ndim)] if tensor.strides else None
    is_uint8 = (tensor.code, tensor.bits, tensor.lanes) == (_UNSIGNED, 8, 1)
    _refuse_other(is_uint8, f"type {tensor.code} of {tensor.bits} bits", shape, strides)
    # Not renamed, the capsule frees the tensor when it goes; until then it is the owner.
    return DeviceFrames(int(tensor.data or 0) + tensor.offset, shape, DEFAULT_STREAM, (frames, capsule))


def _refuse_other(is_uint8: bool, kind: str, shape: Sequence[int], strides: Sequence[int] | None) -> None:
    if not is_uint8:
        raise DataError(f"Frames on the GPU must be uint8, not {kind}.")
    packed = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    if strides is not None and any(side > 1 and a != b for side, a, b in zip(shape, strides, packed)):
        raise DataError(
            f"Frames on the GPU must be C-contiguous. Those of shape {tuple(shape)} are not: copy them there."
        )
