"""Decides on single frames and batches: fits them, runs the engine and applies the rules."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Bundle
from edgead.decision import Verdict
from edgead.depth import DepthRange
from edgead.errors import ConfigError, DataError, DeviceError, MisplacedError
from edgead.geometry import STRETCH, Geometry
from edgead.geometry.alignment import locate
from edgead.images import Frame, Mask, fit_frame, to_frame
from edgead.runtime.engines import Engine
from edgead.runtime.engines.device_frames import find_device_frames
from edgead.runtime.engines.tiled import check_canvases
from edgead.runtime.health import HealthLimits
from edgead.runtime.identity import new_id
from edgead.runtime.result import Result
from edgead.runtime.rules import LiveRules, Rules
from edgead.runtime.sources.source import Captured, why_no_moment
from edgead.settings import check_count

T = TypeVar("T", bound="FrameInspector")


@dataclass(slots=True)
class Prepared:
    """A captured frame on its way to the engine.

    Attributes:
        captured: the frame as its source delivered it.
        fitted: ``(h, w, C) uint8``, the model's canvas; None if nothing is inferred.
        frame_size: (height, width) as captured.
        error, cause: why the result will be UNKNOWN: a text, and a word of `edgead.runtime.result.CAUSES`.
        began, fitted_at: when fitting began and ended, `time.monotonic` seconds.
        inspector: that was chosen for it; None for the stream's.
        geometry: by which it was fitted, with where the part lies.
        limits: of a healthy frame, by which it was checked; None for none.
    """

    captured: Captured
    fitted: Frame | None
    frame_size: tuple[int, int]
    error: str
    cause: str
    began: float
    fitted_at: float
    inspector: FrameInspector | None = None
    geometry: Geometry = STRETCH
    limits: HealthLimits | None = None


class FrameInspector(LiveRules):
    """Decides on frames. Close it (or use ``with``) to release the engine. Users get its subclass `Inspector`.

    Any number of threads may use it; the engine processes their frames one after the other. `threshold`, `region`,
    `min_area` and `shapes` may be set at any time. They are checked when they are set. A frame is decided by the
    values at the beginning of its inference.

    Args:
        bundle: the bundle.
        engine: an engine from `edgead.runtime.engines.opening.open_validated`. An engine of your own is not compared
            with the reference outputs.
        threshold: see `edgead.runtime.inspector.load`.
        region: ``bool`` of `Manifest.region_size`, the inspected part of the whole frame, see
            `edgead.runtime.rules.read_region`. It does not change the score: a frame fails if its score is above the
            threshold and its defect overlaps the region.
        min_area: pixels of the frame. If the mask's largest connected part is smaller, the frame passes.
        shapes: which of ``"boxes"`` and ``"contours"`` of the mask go into `Result.to_dict`.

    Attributes:
        size, shape: (height, width) of the canvas that frames are fitted to, and the same with its channels. Without
            tiles it is the model's input.
        geometry: how they are fitted: what they are aligned to, crop, stretch or letterbox, tiles.
        recipe: name and version, copied to the results; empty for none.

    Raises:
        ConfigError: an invalid threshold, region, area or shape.
        BundleError: ``fpr:`` for a bundle without held-out scores.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        *,
        threshold: float | str | None = None,
        region: Mask | None = None,
        min_area: int = 0,
        shapes: Sequence[str] = (),
    ) -> None:
        self.bundle, self.engine = bundle, check_canvases(engine, bundle)
        self.size, self.geometry, self.pixels = bundle.manifest.canvas, bundle.manifest.geometry, bundle.manifest.pixels
        self.shape = (*self.size, self.pixels.channels)
        super().__init__(bundle.manifest, threshold, region, min_area, shapes)
        self.recipe = ""
        self._blank = np.zeros((1, *self.shape), np.uint8)

    def __reduce__(self) -> NoReturn:
        """Refuse to be sent to another process.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "An inspector belongs to its process and cannot be sent to another one.\n"
            f"Load the bundle there:  edgead.load({str(self.bundle.path)!r})"
        )

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"threshold {self.threshold:.6g}"
        return f"<Inspector {self.bundle.manifest.name} on {self.engine.name}, {state}>"

    @property
    def closed(self) -> bool:
        """Whether the engine was released, so that nothing can be inferred."""
        return self.engine.closed

    @property
    def depth_range(self) -> DepthRange | None:
        """The argument of `edgead.with_depth`; None if the model takes no depth."""
        return self.pixels.depth_range

    def keep_warm(self) -> None:
        """Infer on a blank frame, so that the next frame after a pause is not slow."""
        self.engine.infer(self._blank)

    def inspect(
        self, frame: NDArray[Any], *, source_id: str = "", frame_id: int = 0, t_capture: float | None = None
    ) -> Result:
        """Decide on one frame.

        Args:
            frame: ``(H, W, 3) uint8 BGR``, or anything that `edgead.images.to_frame` takes. It is not changed. A model
                with depth takes what ``edgead.with_depth(frame, depth, inspector.depth_range)`` returns. The result
                refers to it; to let it go, set ``result.frame = None``.
            source_id, frame_id: copied to the result. The number is at least 0.
            t_capture: when the frame arrived, `time.monotonic` seconds; now where None.

        Raises:
            ConfigError: a time that cannot be, or another `source_id` or `frame_id`.
            DataError: not a frame.
            DeviceError: the engine failed, or the inspector is closed.
        """
        frame_id = _check_place(source_id, frame_id)
        captured = Captured(frame, "", source_id, frame_id, _arrival(t_capture, time.monotonic()))
        result = self.infer([self.prepare(captured)])[0]
        result.frame = to_frame(frame, self.pixels)
        return result

    def inspect_on_gpu(
        self, frames: Any, *, source_id: str = "", frame_id: int = 0, t_capture: float | None = None
    ) -> list[Result]:
        """Decide on frames that are in the GPU's memory already: only scores and maps leave it.

        Args:
            frames: ``[N, H, W, C] uint8 BGR``, C-contiguous, with `__cuda_array_interface__` or DLPack, in the GPU's
                primary context. Frames of the model's size (`size`) are taken as they are: cropped and fitted. Those of
                another size are whole, and are fitted on the GPU; the first one of a size prepares this, which takes
                seconds, with TensorRT once on a device longer. They may be written again when this returns.
                docs/tensorrt.md shows how.
            source_id, t_capture: see `inspect`.
            frame_id: of the first frame; the others count on.

        Returns:
            One result for each frame, without `Result.frame`.

        Raises:
            ConfigError: see `inspect`.
            DataError: another shape, type or context, an engine that does not run on a GPU, frames with depth of
                another size, a bundle that aligns frames or cuts them to tiles, or a region with fitted frames of a
                bundle that crops or letterboxes.
            DeviceError: the engine failed, or the inspector is closed.
        """
        if self.geometry.count > 1 or self.geometry.align:
            does, option = ("aligns frames", "--align") if self.geometry.align else ("cuts frames to tiles", "--tiles")
            raise DataError(
                f"The bundle {self.bundle.manifest.name} {does}, which is done in the host's memory.\n"
                f"Pass the frames to inspect(), or export a run without {option}."
            )
        frame_id = _check_place(source_id, frame_id)
        start, rules, found = time.monotonic(), self.rules, find_device_frames(frames)
        whole = found is not None and found.ndim == 4 and found.shape[1:3] != self.size
        geometry, size = (self.geometry, found.shape[1:3]) if found and whole else (STRETCH, self.size)
        if rules.region is not None and not whole and self.geometry != STRETCH:
            raise DataError(
                "The region is a part of the whole frame, and these frames are cropped or letterboxed already.\n"
                "Pass whole frames, or set  inspector.region = None"
            )
        arrived = _arrival(t_capture, start)
        scores, maps = self.engine.infer(frames if found is None else found, self.geometry)
        inferred_at, results = time.monotonic(), []
        for index, (score, anomaly_map) in enumerate(zip(scores, maps)):
            captured = Captured(None, "", source_id, frame_id + index, arrived)
            prepared = Prepared(captured, None, (size[0], size[1]), "", "", start, start, geometry=geometry)
            results.append(self._decide(prepared, rules, float(score), anomaly_map, start, inferred_at))
        return results

    def prepare(
        self,
        captured: Captured,
        out: Frame | None = None,
        check: Callable[[Frame, Frame], tuple[str, str]] | None = None,
    ) -> Prepared:
        """Fit a frame to the model. Any thread may do this while another infers.

        Args:
            captured: from a source.
            out: ``(h, w, C) uint8``, written to if given.
            check: returns cause and reason why the frame must not be judged, see `edgead.runtime.health.Health.check`.

        Raises:
            DataError: not a frame.
        """
        began = time.monotonic()
        if captured.image is None:
            error = captured.error or "no image"
            return Prepared(captured, None, (0, 0), error, captured.cause or "unreadable", began, began)
        frame = to_frame(captured.image, self.pixels)
        geometry, misplaced = _find(frame, self.geometry)
        fitted: Frame | None = fit_frame(frame, self.size, out, geometry)
        cause, error = captured.cause or ("unreadable" if captured.error else ""), captured.error
        if check and fitted is not None and not error:  # also of a misplaced frame: it may be black
            cause, error = check(frame, fitted)
            fitted = None if error else fitted
        if misplaced:
            fitted = None
            cause, error = (cause, error) if error else ("misplaced", misplaced)
        size = (frame.shape[0], frame.shape[1])
        return Prepared(captured, fitted, size, error, cause, began, time.monotonic(), geometry=geometry)

    def infer(self, batch: Sequence[Prepared], buffer: NDArray[np.uint8] | None = None) -> list[Result]:
        """Decide on prepared frames in one call of the engine.

        Args:
            batch: one or more; those without a fitted frame become UNKNOWN.
            buffer: ``[N, h, w, C] uint8`` with N at least the number of frames; scratch space.

        Raises:
            DeviceError: the engine failed.
        """
        if self.closed:
            raise DeviceError(f"The inspector of {self.bundle.manifest.name} is closed. Load the bundle again.")
        start = time.monotonic()
        rules = self.rules
        fitted = [self._refit(prepared) for prepared in batch]
        frames = [frame for frame in fitted if frame is not None]
        if len(frames) == 1:
            scores, maps = self.engine.infer(frames[0][None])
        elif frames:
            scores, maps = self.engine.infer(np.stack(frames, out=None if buffer is None else buffer[: len(frames)]))
        inferred_at = time.monotonic()
        results, index = [], 0
        for prepared, frame in zip(batch, fitted):
            if frame is None:
                results.append(self.unknown(prepared, prepared.cause, prepared.error))
                continue
            results.append(self._decide(prepared, rules, float(scores[index]), maps[index], start, inferred_at))
            index += 1
        return results

    def _refit(self, prepared: Prepared) -> Frame | None:
        """Return the fitted frame, fitted again if a swap has changed the model's shape or geometry since.

        None if nothing is inferred, also because the part is not found as the new model looks for it.
        """
        if prepared.fitted is None or prepared.captured.image is None:
            return None
        if prepared.fitted.shape == self.shape and prepared.geometry == self.geometry:
            return prepared.fitted
        frame = to_frame(prepared.captured.image, self.pixels)
        prepared.geometry, misplaced = _find(frame, self.geometry)
        if misplaced:
            prepared.cause, prepared.error = "misplaced", misplaced
            return None
        return fit_frame(frame, self.size, geometry=prepared.geometry)

    def _decide(
        self,
        prepared: Prepared,
        rules: Rules,
        score: float,
        anomaly_map: NDArray[np.float32],
        start: float,
        inferred_at: float,
    ) -> Result:
        result = self._blank_result(prepared.captured, score)
        result.anomaly_map, result.frame_size = anomaly_map, prepared.frame_size
        result.threshold, result.mask_threshold, result.region = rules.threshold, rules.mask_threshold, rules.region
        result.geometry = prepared.geometry
        result.verdict, result.reason = rules.decide(score, anomaly_map, prepared.frame_size, prepared.geometry)
        if result.verdict is Verdict.UNKNOWN:
            result.cause = "score"
        if prepared.error:
            result.verdict, result.reason, result.cause = Verdict.UNKNOWN, prepared.error, prepared.cause
        done, captured = time.monotonic(), prepared.captured
        fit = prepared.fitted_at - prepared.began
        result.latency_ms = {
            "source": (captured.t_capture - captured.made) * 1e3,
            "queue": (start - captured.t_capture - fit) * 1e3,
            "fit": fit * 1e3,
            "infer": (inferred_at - start) * 1e3,
            "post": (done - inferred_at) * 1e3,
            "total": (done - captured.made) * 1e3,
        }
        return result

    def unknown(self, prepared: Prepared, cause: str, reason: str) -> Result:
        """Return the UNKNOWN result of a frame that is not inferred."""
        result = self._blank_result(prepared.captured, math.nan)
        result.frame_size, result.reason, result.cause = prepared.frame_size, reason, cause
        result.latency_ms = {"total": (time.monotonic() - prepared.captured.made) * 1e3}
        return result

    def _blank_result(self, captured: Captured, score: float) -> Result:
        made = time.time() - (time.monotonic() - captured.made)
        return Result(
            score=score,
            verdict=Verdict.UNKNOWN,
            reason="",
            threshold=self.threshold,
            source_id=captured.source_id,
            frame_id=captured.frame_id,
            t_capture=captured.made,
            engine=self.engine.name,
            path=captured.path,
            precision=self.bundle.manifest.precision,
            bundle=self.bundle.manifest.name,
            bundle_digest=self.bundle.manifest.digest,
            captured_at=datetime.fromtimestamp(made, timezone.utc).isoformat(timespec="milliseconds"),
            shapes=self.shapes,
            id=new_id(),
            recipe=self.recipe,
        )

    def judge(self, captured: Captured) -> Result:
        """Decide on what a source delivered. An error becomes the reason of an UNKNOWN; nothing is raised."""
        prepared = self.try_to_prepare(captured)
        return self.try_to_infer([prepared])[0]

    def try_to_prepare(
        self,
        captured: Captured,
        out: Frame | None = None,
        check: Callable[[Frame, Frame], tuple[str, str]] | None = None,
    ) -> Prepared:
        """Call `prepare`; an error becomes the reason of an UNKNOWN."""
        try:
            return self.prepare(captured, out, check)
        except Exception as error:  # on a line, any failure is an UNKNOWN and not the end of the run
            now = time.monotonic()
            return Prepared(captured, None, (0, 0), _words(error), "unreadable", now, now)

    def try_to_infer(self, batch: Sequence[Prepared], buffer: NDArray[np.uint8] | None = None) -> list[Result]:
        """Call `infer`; an error becomes the reason of UNKNOWNs."""
        try:
            return self.infer(batch, buffer)
        except Exception as error:  # as above
            reason = _words(error)
            return [self.unknown(prepared, prepared.cause or "failed", prepared.error or reason) for prepared in batch]

    def close(self) -> None:
        """Release the engine after the running inference. Later calls raise a DeviceError."""
        self.engine.close()

    def __enter__(self: T) -> T:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def refuse_closed(inspector: FrameInspector) -> None:
    """Refuse a closed inspector, and what is none, such as the path of a bundle.

    Raises:
        ConfigError: it is closed, or none.
    """
    if not isinstance(inspector, FrameInspector):
        raise ConfigError(f"An inspector is needed, not {inspector!r}. Load the bundle:  edgead.load(BUNDLE)")
    if inspector.closed:
        raise ConfigError(f"The inspector of {inspector.bundle.manifest.name} is closed. Load the bundle again.")


def refuse_other_depth(successor: FrameInspector, inspector: FrameInspector) -> None:
    """Refuse an inspector that cannot share the frames of another one.

    Raises:
        ConfigError: it is closed, or it reads depth or 16-bit images differently.
    """
    refuse_closed(successor)
    if successor.depth_range != inspector.depth_range:
        one, other = (
            f"{each.bundle.manifest.name} reads {f'depth over {each.depth_range}' if each.depth_range else 'no depth'}"
            for each in (successor, inspector)
        )
        raise ConfigError(f"{one}, {other}: they cannot share frames.")
    if successor.pixels != inspector.pixels:
        one, other = (
            f"{each.bundle.manifest.name} reads {each.pixels.bit_depth} bits" for each in (successor, inspector)
        )
        raise ConfigError(f"{one} of 16-bit images, {other}: they cannot share frames.")


def _check_place(source_id: object, frame_id: Any) -> int:
    """Return the number of a frame, which may be one of NumPy's; refuse what sinks could not write.

    Raises:
        ConfigError: no text, or no number of a frame.
    """
    if not isinstance(source_id, str):
        raise ConfigError(f"source_id must be text, not {source_id!r}.")
    number = int(frame_id) if isinstance(frame_id, np.integer) else frame_id
    check_count("frame_id", number, 0)
    return int(number)


def _arrival(t_capture: float | None, now: float) -> float:
    """Return when a frame arrived. Ages count from it, so that another clock is an error.

    Raises:
        ConfigError: a time that cannot be.
    """
    if t_capture is None:
        return now
    if why := why_no_moment("t_capture", t_capture, now):
        raise ConfigError(f"{why}.")
    return t_capture


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _find(frame: Frame, geometry: Geometry) -> tuple[Geometry, str]:
    """Return the geometry with where the part lies, and nothing; or that of the frame as it is, and why not."""
    try:
        return locate(frame, geometry), ""
    except MisplacedError as error:
        return dataclasses.replace(geometry, align=None), str(error)
