"""Makes any engine thread-safe and checks its frames, its outputs and that it is open."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import Any

import numpy as np

from edgead.bundle import Bundle, Outputs
from edgead.errors import DataError, DeviceError, EdgeadError
from edgead.geometry import Geometry
from edgead.runtime.engines import Engine, first_line
from edgead.runtime.engines.device_frames import DeviceFrames, find_device_frames

LONGEST_CALL = 10.0
"""Seconds that `CheckedEngine.close` waits for a running call."""


class CheckedEngine:
    """A thread-safe wrapper of an `Engine`. `open_engine` always returns one.

    It belongs to the process that opened it: the threads of its library do not exist in a copy of that process (fork),
    where an inference would wait for them without end.

    Args:
        engine: the wrapped engine.
        shape: of a frame: (height, width, channels).
        singly: the graph takes one frame at a time.

    Attributes:
        inner: the wrapped engine.
        exact: it computes at the graph's precision; with bf16 or TF32 it does not.
    """

    def __init__(self, engine: Engine, shape: tuple[int, int, int], *, singly: bool = False) -> None:
        self.inner, self.name, self.closed = engine, engine.name, False
        self.exact: bool = getattr(engine, "exact", True)
        self._shape, self._singly = shape, singly
        # A signal handler runs in the middle of the main thread's call: with another lock it would wait for itself.
        self._lock, self._process = threading.RLock(), os.getpid()
        self._running = self._to_release = self._released = False
        _open.add(self)

    def infer(self, frames: Any, geometry: Geometry | None = None) -> Outputs:
        """Run the graph. Calls from several threads wait for each other.

        Args:
            frames: ``[N, H, W, C] uint8`` of the graph's size and channels, N at least 1. A NumPy array, or for the
                engines on a GPU also an array in its memory, see `edgead.runtime.engines.device_frames`.
            geometry: by which frames in a GPU's memory that have another size are fitted there; None to refuse them.

        Returns:
            scores ``[N]`` and maps ``[N, H, W]``, both float32, new arrays owned by the caller. Any value is possible,
            including NaN.

        Raises:
            DataError: the frames have another shape or type.
            DeviceError: the engine is closed, of another process, failed, or returned outputs of another shape or type;
                or this is called by a signal handler that has interrupted a call.
        """
        if os.getpid() != self._process:
            raise DeviceError(
                f"The engine {self.name} was opened before this process was forked, and cannot be used here.\n"
                "Load the bundle in each process."
            )
        if (on_device := find_device_frames(frames)) is not None:
            if not getattr(self.inner, "on_device", False):
                raise DataError(
                    f"The frames are in the GPU's memory, and the engine {self.name} does not read there.\n"
                    "Use the engine tensorrt or onnxruntime-cuda, or copy them:  frames.get(), frames.cpu().numpy()"
                )
            frames = on_device
        fits = geometry is not None and on_device is not None and self._can_fit(on_device)
        if not fits and (
            frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != self._shape or not len(frames)
        ):
            raise DataError(
                f"The engine takes uint8 frames [N, {', '.join(map(str, self._shape))}], not {_kind(frames)}."
            )
        if on_device is None:
            frames = np.ascontiguousarray(frames)  # engines read the memory in place
        with self._lock:
            if self._running:
                raise DeviceError(
                    f"The engine {self.name} was interrupted by this call, from a signal handler or a finalizer.\n"
                    "Set a flag there, and inspect afterwards."
                )
            self._running = True  # before the next line: a handler that closes between the two must not release
            try:
                if self.closed:
                    raise DeviceError(f"The engine {self.name} is closed. Load the bundle again.")
                if fits:
                    frames = self.inner.fit(frames, self._shape[:2], geometry)  # type: ignore[attr-defined]
                if not self._singly or len(frames) == 1:
                    return check_outputs(self.name, self.inner.infer(frames), frames)
                ones = [frames[index : index + 1] for index in range(len(frames))]
                each = [check_outputs(self.name, self.inner.infer(one), one) for one in ones]
            except EdgeadError:
                raise
            except Exception as error:  # a plug-in's engine may raise anything
                raise DeviceError(f"The engine {self.name} failed: {first_line(error)}") from error
            finally:
                self._running = False
                if self._to_release:
                    self._release()
        scores, maps = zip(*each)
        return np.concatenate(scores), np.concatenate(maps)

    def _can_fit(self, frames: DeviceFrames) -> bool:
        """Whether frames differ from the model's in size alone, and the engine has a resize."""
        differs = frames.ndim == 4 and frames.shape[1:3] != self._shape[:2] and frames.shape[3] == self._shape[2] == 3
        return differs and frames.nbytes > 0 and hasattr(self.inner, "fit")

    def close(self) -> None:
        """Release the device after the running call. Waiting and later calls raise a DeviceError.

        A call that does not end within `LONGEST_CALL`, or that a signal handler has interrupted to close the engine,
        releases it when it returns.
        """
        self.closed = True
        if os.getpid() != self._process:  # what is released here would be the other process's
            return
        self._to_release = True
        if not self._lock.acquire(timeout=LONGEST_CALL):
            return
        try:
            if not self._running:
                self._release()
        finally:
            self._lock.release()

    def _release(self) -> None:
        if not self._released:
            self._released = True
            self.inner.close()

    def end(self) -> None:
        """Wait for the running call; later ones raise a DeviceError."""
        self.closed = True
        if os.getpid() == self._process and self._lock.acquire(timeout=LONGEST_CALL):
            self._lock.release()


_open: weakref.WeakSet[CheckedEngine] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """End the calls of daemon threads while Python still runs: one that returns to it later aborts the process."""
    for engine in list(_open):
        engine.end()


def check(engine: Engine, bundle: Bundle) -> CheckedEngine:
    """Return an engine as a `CheckedEngine` for the frames of a bundle."""
    if isinstance(engine, CheckedEngine):
        return engine
    return CheckedEngine(engine, bundle.manifest.shape, singly=bundle.manifest.input.batch == 1)


def check_outputs(name: str, outputs: Any, frames: Any) -> Outputs:
    """Return an engine's outputs on frames ``[N, H, W, C]``.

    Raises:
        DeviceError: they are not float32 scores ``[N]`` and maps ``[N, H, W]``.
    """
    wanted = (frames.shape[:1], frames.shape[:3])
    try:
        scores, maps = outputs
        right = (scores.shape, maps.shape) == wanted and scores.dtype == maps.dtype == np.float32
    except (TypeError, ValueError, AttributeError):
        raise DeviceError(f"The engine {name} returned no scores and maps.") from None
    if not right:
        raise DeviceError(
            f"The engine {name} returned scores {_kind(scores)} and maps {_kind(maps)}, "
            f"not float32 {wanted[0]} and {wanted[1]}."
        )
    return scores, maps


def _kind(array: Any) -> str:
    return f"{array.dtype} {array.shape}"
