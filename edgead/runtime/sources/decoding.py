"""Decodes packets of a video stream through PyAV and reports damage that FFmpeg would conceal.

Damage is detected by the demuxer, by the decoder, which is set to stop at errors, in a JPEG by its completeness check
and in H.264 by the picture count. Pictures after a damaged one are predicted from it, so none is delivered until the
next key frame. Decoding then continues with a new decoder: after an error, FFmpeg's H.264 decoder keeps coefficients of
the damaged block and adds them to a later, intact picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgead.errors import require
from edgead.formats.limits import MAX_DECODED_BYTES
from edgead.runtime.sources.h264 import FrameCount
from edgead.runtime.sources.mjpeg import decode_picture
from edgead.runtime.sources.nal import Units

_OPTIONS = {"err_detect": "crccheck+bitstream+buffer+explode", "max_pixels": str(MAX_DECODED_BYTES // 3)}
_OF_UNITS = ("h264", "hevc")
"""Codecs with one picture per packet."""
_DAMAGED = "the picture is damaged: "
_MOST_HELD_BACK = 32
"""Pictures that a decoder may hold back for reordering; both standards allow 16."""
_COPIED = ("extradata", "width", "height", "pix_fmt", "codec_tag", "bits_per_coded_sample")


class Picture(NamedTuple):
    """One picture of a video.

    Attributes:
        image: ``(H, W, 3) uint8 BGR``; None if there is a flaw.
        flaw: why it must not be judged; empty if it is intact.
        stamp: presentation time in seconds of the video's clock, if known.
    """

    image: NDArray[Any] | None
    flaw: str
    stamp: float | None


_UNDECODED = Picture(None, _DAMAGED + "it cannot be decoded", None)


class Decoder:
    """Decodes one stream.

    Args:
        stream: PyAV's.
        before_key: the flaw of pictures before the first key frame; empty to skip them.
    """

    def __init__(self, stream: Any, before_key: str) -> None:
        self._av = require("av", "rtsp")
        self._stream, self._codec = stream, stream.codec_context.codec.name
        if self._codec == "mjpeg":
            require("simplejpeg", "jpeg")  # now, and not at the first frame
        extradata = stream.codec_context.extradata
        self._units = Units(self._codec, extradata) if self._codec in _OF_UNITS else None
        self._count = FrameCount(extradata) if self._codec == "h264" else None
        self._waits_for_key, self._cause = True, before_key
        self._fed: list[int] = []
        self._rotation = 0
        self._context = self._prepare(stream.codec_context)

    def _new_context(self) -> Any:
        source = self._stream.codec_context
        context = self._av.CodecContext.create(source.name, "r")
        for name in _COPIED:
            value = getattr(source, name, None)
            if value:
                setattr(context, name, value)
        return self._prepare(context)

    def _prepare(self, context: Any) -> Any:
        context.options = _OPTIONS
        # Frame threads hold back as many frames as there are threads; with slice threads, FFmpeg's H.264 decoder does
        # not detect missing parts of a picture.
        context.thread_count = 1
        return context

    def decode(self, packet: Any, lost: str = "") -> Iterator[Picture]:
        """Yield the pictures that this packet completes, in presentation order.

        Args:
            packet: PyAV's.
            lost: what was lost before or in it; empty for nothing.
        """
        flaw, missing = lost or ("" if packet.size else "it is empty"), False
        if self._codec == "mjpeg":
            yield Picture(None, _DAMAGED + flaw, None) if flaw else self._decode_jpeg(packet)
            return
        if self._units is not None:
            damage, missing = self._look_at(bytes(packet), self._units)
            flaw = flaw or damage
        if missing and not flaw and not self._waits_for_key:
            if packet.is_keyframe:  # needs no earlier picture
                yield from self._restart("a picture is missing")
            else:
                flaw = "a picture that it is predicted from is missing"
        if flaw:
            yield from self._restart(flaw)
            yield Picture(None, _DAMAGED + flaw, None)
        elif self._waits_for_key and not packet.is_keyframe:
            if self._cause:
                yield Picture(None, self._cause, None)
        else:
            self._waits_for_key = False
            yield from self._decode(packet)

    def _look_at(self, packet: bytes, units: Units) -> tuple[str, bool]:
        """Return the damage in a packet, and whether a picture before it is missing."""
        missing = False
        try:
            for unit in units.split(packet):
                missing |= self._count is not None and self._count.is_missing(unit)
        except (IndexError, ValueError) as error:
            return str(error), missing
        return "", missing

    def _decode_jpeg(self, packet: Any) -> Picture:
        image, flaw = decode_picture(bytes(packet))
        if image is not None and 2 * image.shape[0] == self._stream.codec_context.height:
            image, flaw = None, "the picture is one of two fields (interlaced MJPEG), which is not supported"
        return Picture(image, flaw, self._seconds(packet))

    def _decode(self, packet: Any) -> Iterator[Picture]:
        is_counted = self._codec in _OF_UNITS and packet.pts is not None and not packet.is_discard
        if is_counted:
            self._fed.append(packet.pts)
        try:
            frames = self._context.decode(packet)
        except self._av.FFmpegError as error:
            cause = error.strerror or str(error)
            yield from self._restart(cause, packet.pts)
            if not is_counted:
                yield Picture(None, _DAMAGED + cause, None)
            return
        yield from self._take(frames)
        if any(frame.is_corrupt for frame in frames):
            # Pictures decoded since may be predicted from it: none of them is delivered.
            self._context = self._new_context()
            yield from self._restart("its errors were concealed")

    def _take(self, frames: list[Any], damaged: int | None = None) -> Iterator[Picture]:
        """Yield frames up to the first damaged one; report missing and damaged ones."""
        corrupt = False
        for frame in frames:
            if frame.pts is not None:
                yield from self._left_out(frame)
            corrupt |= frame.is_corrupt
            if corrupt or (damaged is not None and frame.pts == damaged):
                yield Picture(None, _DAMAGED + "its errors were concealed", None)
            else:
                yield Picture(self._to_bgr(frame), "", self._seconds(frame))

    def _left_out(self, frame: Any) -> Iterator[Picture]:
        """Report pictures that the decoder did not return: those still missing long after their packet."""
        if getattr(frame, "interlaced_frame", False):
            self._fed.clear()  # a picture may have come in two packets
        elif frame.pts in self._fed:
            self._fed.remove(frame.pts)
        while len(self._fed) > _MOST_HELD_BACK:
            del self._fed[0]
            yield _UNDECODED

    def _restart(self, cause: str, damaged: int | None = None) -> Iterator[Picture]:
        """Yield the pictures still in the decoder, and continue with a new decoder at the next key frame."""
        yield from self.end(damaged)
        self._context = self._new_context()
        self._waits_for_key = True
        self._cause = f"the picture is predicted from a damaged one ({cause}); the next key frame is awaited"

    def interrupt(self, cause: str) -> Iterator[Picture]:
        """Yield the pictures still in the decoder after a loss, and wait for the next key frame."""
        return self._restart(cause)

    def end(self, damaged: int | None = None) -> Iterator[Picture]:
        """Yield the pictures still in the decoder.

        Args:
            damaged: the time stamp of a damaged one.
        """
        try:
            frames = self._context.decode(None)
        except self._av.FFmpegError:
            frames = []
        yield from self._take(frames, damaged)
        missing, self._fed = len(self._fed), []
        yield from [_UNDECODED] * missing

    def _to_bgr(self, frame: Any) -> NDArray[Any]:
        image: NDArray[Any] = frame.to_ndarray(format="bgr24")
        rotation = getattr(frame, "rotation", 0)
        if self._context is self._stream.codec_context:  # for a file, only the first decoder knows it
            self._rotation = rotation
        quarters = round((rotation or self._rotation) / 90) % 4
        return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image

    def _seconds(self, timed: Any) -> float | None:
        return None if timed.pts is None else float(timed.pts * self._stream.time_base)
