"""Videos made with PyAV, whole and damaged, and an RTSP server that loses packets."""

from __future__ import annotations

import base64
import random
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from camera_server import CameraServer

H264 = {
    "CAVLC": {"preset": "ultrafast", "x264-params": "keyint=12:bframes=0"},
    "CABAC": {"preset": "veryfast", "x264-params": "keyint=12:bframes=0"},
    "slices": {"preset": "ultrafast", "x264-params": "keyint=12:bframes=0:slice-max-mbs=20"},
    "B frames": {"preset": "medium", "x264-params": "keyint=12:bframes=3"},
    "open GOP": {"preset": "medium", "x264-params": "keyint=12:bframes=3:open-gop=1:repeat-headers=1:threads=3"},
}
HEVC = {
    "HEVC": {"preset": "ultrafast", "x265-params": "log-level=none:keyint=12:bframes=0"},
    "HEVC B frames": {"preset": "fast", "x265-params": "log-level=none:keyint=12"},
}
ENCODERS = {**{name: ("libx264", options) for name, options in H264.items()}} | {
    name: ("libx265", options) for name, options in HEVC.items()
}
SIZE = (120, 160)


def pictures(count: int, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """A coarse texture that moves: each ``(h, w, 3) uint8`` differs from all others."""
    (h, w), rng = size, np.random.default_rng(0)
    coarse = rng.integers(0, 256, (h // 4 + count, w // 4 + count, 3), dtype=np.uint8)
    texture = np.kron(coarse, np.ones((4, 4, 1), np.uint8))
    return [np.ascontiguousarray(texture[2 * n : 2 * n + h, 3 * n : 3 * n + w]) for n in range(count)]


def write_video(
    path: Path, frames: Iterable[np.ndarray], codec: str = "libx264", times: list[int] | None = None, **options: str
) -> Path:
    """Write a video at 25 frames a second, or with the given times in milliseconds."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=25)
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.options = options
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(frames):
            if not number:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts = times[number] if times else number
            frame.time_base = Fraction(1, 1000) if times else Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


class Data(NamedTuple):
    """What a packet holds, so that it can be damaged."""

    data: bytes
    pts: int
    dts: int | None
    is_key: bool

    def packet(self, time_base: Fraction) -> av.Packet:
        made = av.Packet(self.data)
        made.pts, made.dts, made.time_base, made.is_keyframe = self.pts, self.dts, time_base, self.is_key
        return made


def damage(packets: list[Data], kind: str, rng: random.Random) -> list[Data]:
    """Return packets of which one, or some in a row, are damaged. The first, a key frame, stays."""
    packets = list(packets)
    at = rng.randrange(1, len(packets) - 1)
    data = packets[at].data
    if kind == "lost":
        del packets[at : at + rng.choice((1, 1, 2, 5))]
        return packets
    first, length = rng.randrange(5, len(data) - 1), rng.choice((16, 64, 512))
    if kind == "cut":
        data = data[:first]
    elif kind == "hole":
        data = data[:first] + data[first + length :]
    elif kind == "zeros":
        data = data[:first] + bytes(len(data[first : first + length])) + data[first + length :]
    elif kind == "flipped":
        data = data[:first] + bytes((data[first] ^ 1 << rng.randrange(8),)) + data[first + 1 :]
    packets[at] = packets[at]._replace(data=data)
    return packets


class LossyRtsp(CameraServer):
    """An RTSP server on loopback that sends one video over TCP, and leaves out some of its RTP packets.

    Args:
        packets: Annex B.
        codec: ``h264`` or ``hevc``.
        lost: numbers of the RTP packets that are left out.
        pause: seconds between two pictures.
        context: of TLS.
    """

    def __init__(
        self,
        packets: list[Data],
        codec: str,
        lost: Iterable[int] = (),
        pause: float = 0.01,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.packets, self.codec, self.lost, self.pause = packets, codec, set(lost), pause
        self.count = sum(len(list(self._payloads(each.data))) for each in packets)
        super().__init__(context)
        self.address = f"rtsp{'s' if context else ''}://127.0.0.1:{self.port}/line"

    def talk(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            while self._answer(connection, lines):
                pass

    def _answer(self, connection: socket.socket, lines: Any) -> bool:
        request = lines.readline().decode()
        header = {}
        while (line := lines.readline().decode().strip()) and request:
            header[line.partition(":")[0].lower()] = line.partition(":")[2].strip()
        method = request.partition(" ")[0]
        more, body = "", ""
        if method == "OPTIONS":
            more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == "DESCRIBE":
            body = self._sdp()
            more = f"Content-Type: application/sdp\r\nContent-Base: {self.address}/\r\nContent-Length: {len(body)}\r\n"
        elif method == "SETUP":
            more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        if not method or method == "TEARDOWN":
            return False
        answer = f"RTSP/1.0 200 OK\r\nCSeq: {header.get('cseq', 0)}\r\nSession: 1\r\n{more}\r\n{body}"
        connection.sendall(answer.encode())
        if method == "PLAY":
            self._play(connection)
            return False
        return True

    def _sdp(self) -> str:
        sets_of = list(units(self.packets[0].data))
        if self.codec == "h264":
            sets = ",".join(base64.b64encode(unit).decode() for unit in sets_of if unit[0] & 31 in (7, 8))
            more = f"packetization-mode=1; sprop-parameter-sets={sets}"
        else:
            named = {32: "sprop-vps", 33: "sprop-sps", 34: "sprop-pps"}
            kinds = ((named.get(unit[0] >> 1 & 63), unit) for unit in sets_of)
            more = "; ".join(f"{name}={base64.b64encode(unit).decode()}" for name, unit in kinds if name)
        name = "H264" if self.codec == "h264" else "H265"
        return (
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=line\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
            f"a=rtpmap:96 {name}/90000\r\na=fmtp:96 {more}\r\na=control:track1\r\n"
        )

    def _payloads(self, data: bytes) -> Iterator[bytes]:
        """Split a picture into payloads: units as they are, or in fragments (RFC 6184 and 7798)."""
        for unit in units(data):
            if len(unit) <= 400:
                yield unit
                continue
            head = 1 if self.codec == "h264" else 2
            body = [unit[at : at + 400] for at in range(head, len(unit), 400)]
            for number, part in enumerate(body):
                edge = (number == 0) << 7 | (number == len(body) - 1) << 6
                if self.codec == "h264":
                    yield bytes((unit[0] & 0x60 | 28, edge | unit[0] & 31)) + part
                else:
                    yield bytes((unit[0] & 0x81 | 49 << 1, unit[1], edge | unit[0] >> 1 & 63)) + part

    def _play(self, connection: socket.socket) -> None:
        sequence = 0
        for each in self.packets:
            payloads = list(self._payloads(each.data))
            for number, payload in enumerate(payloads):
                marker = 0x80 * (number == len(payloads) - 1)
                stamp = (each.pts * 3600 & 0xFFFFFFFF).to_bytes(4, "big")
                rtp = bytes((0x80, marker | 96)) + (sequence & 0xFFFF).to_bytes(2, "big") + stamp + b"edge" + payload
                if sequence not in self.lost:
                    connection.sendall(b"$\0" + len(rtp).to_bytes(2, "big") + rtp)
                sequence += 1
            time.sleep(self.pause)


def units(data: bytes) -> Iterator[bytes]:
    """The units of an Annex B stream."""
    for unit in data.split(b"\0\0\1")[1:]:
        if unit.rstrip(b"\0"):
            yield unit.rstrip(b"\0")


def encode(name: str, count: int = 48) -> tuple[list[Data], str]:
    """Encode `pictures`, one of `ENCODERS`; return Annex B packets and the decoder's name."""
    codec, options = ENCODERS[name]
    context: Any = av.CodecContext.create(codec, "w")
    context.height, context.width = SIZE
    context.pix_fmt, context.time_base, context.framerate = "yuv420p", Fraction(1, 25), Fraction(25)
    context.options = options
    made: list[Data] = []
    for number, picture in enumerate([*pictures(count), None]):
        frame = None if picture is None else av.VideoFrame.from_ndarray(picture, format="bgr24")
        if frame is not None:
            frame.pts, frame.time_base = number, Fraction(1, 25)
        made += [Data(bytes(each), each.pts, each.dts, each.is_keyframe) for each in context.encode(frame)]
    return made, "h264" if codec == "libx264" else "hevc"
