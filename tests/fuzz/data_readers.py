"""Readers of binary files: graphs, arrays, weights, images, videos, and a camera's stream."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mutate import change_bytes, change_message, change_png, change_safetensors, change_zip
from reader import Reader

from edgead import npz
from edgead.bundle.graph_file import GraphError, check_graph
from edgead.errors import BundleError, DataError, ModelError
from edgead.formats import limits
from edgead.formats.decoding import decode_image
from edgead.runtime.engines.onnx_nodes import read_nodes
from edgead.runtime.engines.onnx_types import float_types
from edgead.runtime.sources import pyav, video
from edgead.runtime.sources.h264 import FrameCount
from edgead.runtime.sources.multipart import Parts, StreamEndError
from edgead.runtime.sources.nal import Units
from edgead.runtime.sources.video import VideoSource

IMAGE_MIB = 16
"""Limit of decoded images here, so that a picture which breaks the real one need not be decoded."""
ARRAYS = 8 << 20
"""Limit of arrays here, bytes."""


# Graphs and arrays of a bundle


def _read_graph(data: bytes, folder: Path) -> object:
    """What a bundle's graph is checked by, and what is read of it afterwards."""
    try:
        check_graph(data)
    except GraphError as error:
        raise BundleError(str(error)) from error
    path = folder / "model.onnx"
    path.write_bytes(data)
    return [node.describe() for node in read_nodes(path)], float_types(path)


@functools.cache
def _graph(folder: Path) -> bytes:
    from level_bundle import make_level_bundle

    return make_level_bundle(folder / "graph.edgead").model.read_bytes()


def _graphs(folder: Path) -> list[bytes]:
    import onnx
    from onnx import helper, numpy_helper

    small = onnx.load_from_string(_graph(folder))
    values = numpy_helper.from_array(np.ones(2, np.float32), "v")
    body = helper.make_graph([helper.make_node("Constant", [], ["c"], value=values)], "b", [], [])
    small.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body))
    small.graph.node.append(helper.make_node("DequantizeLinear", ["x", "v"], ["q"]))
    small.graph.node.append(helper.make_node("Cast", ["x"], ["h"], to=10))
    del small.graph.initializer[2:]
    return [_graph(folder), small.SerializeToString()]


def _read_arrays(data: bytes, _folder: Path) -> object:
    before, npz.LARGEST = npz.LARGEST, ARRAYS
    try:
        return {name: each.sum() for name, each in npz.read_arrays(data).items() if each.dtype.kind in "iuf"}
    except ValueError as error:  # what `edgead.bundle` turns into its own
        raise BundleError(str(error)) from error
    finally:
        npz.LARGEST = before


def _arrays(_folder: Path) -> list[bytes]:
    found = []
    for save in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        save(stream, frames=np.zeros((2, 4, 4, 3), np.uint8), scores=np.ones(2, np.float32), maps=np.ones((2, 4, 4)))
        found.append(stream.getvalue())
    stream = io.BytesIO()
    np.savez(stream, a=np.array([object()]), b=np.array(["text"]))
    return [*found, stream.getvalue()]


# Weights


def _read_weights(data: bytes, folder: Path, suffix: str) -> object:
    from edgead.train.weights import read_weights

    path = folder / f"w{suffix}"
    path.write_bytes(data)
    return {name: tuple(value.shape) for name, value in read_weights(path).items()}


def _read_safetensors(data: bytes, folder: Path) -> object:
    """As weights, as the state of a stopped run, and as what was learned from a donor."""
    from edgead.errors import CheckpointError
    from edgead.train.donors import _read_facts
    from edgead.train.training_state import load_position

    (folder / "state.safetensors").write_bytes(data)
    load_position(folder)
    with contextlib.suppress(CheckpointError):
        _read_facts(folder / "state.safetensors", "drept")
    return _read_weights(data, folder, ".safetensors")


def _safetensors(_folder: Path) -> list[bytes]:
    import torch
    from safetensors.torch import save

    facts = {
        "stage": "1",
        "step": "7",
        "method": "drept",
        "source": "s",
        "root": "r",
        "paths": "[]",
        "fingerprint": "f",
    }
    return [save({"a.weight": torch.ones(2, 3), "b": torch.zeros(1, dtype=torch.int64)}, facts)]


def _checkpoints(_folder: Path) -> list[bytes]:
    import torch

    found = []
    for value in (
        {"a.weight": torch.ones(2, 3), "b": torch.zeros(1, dtype=torch.int64)},
        {"state_dict": {"module.a": torch.ones(2)}, "epoch": 3},
        {"whole": torch.nn.Linear(2, 2)},
    ):
        for new in (True, False):
            stream = io.BytesIO()
            torch.save(value, stream, _use_new_zipfile_serialization=new)
            found.append(stream.getvalue())
    return found


# ONNX files of others


def _read_foreign(data: bytes, folder: Path) -> object:
    from edgead.export.imports import anomalib
    from edgead.export.imports.third_party_onnx import detect_precision, find_channels, find_input, read_onnx

    path = folder / "m.onnx"
    path.write_bytes(data)
    (folder / "w.bin").write_bytes(np.ones(3, np.float32).tobytes())
    model = read_onnx(path)
    detect_precision(model)
    channels = find_channels(find_input(model, None))
    try:
        return channels, anomalib.find_heads(model)
    except ModelError:  # no export of anomalib's
        return channels


def _foreign(_folder: Path) -> list[bytes]:
    from onnx import parser

    plain = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        main (float[N, 3, 16, 16] image) => (float[N, 1, 16, 16] heat) <float[1, 3, 1, 1] w = {0.2, 0.3, 0.5}>
        { heat = Conv (image, w) }""")
    old = parser.parse_model("""<ir_version: 4, opset_import: ["" : 9]>
        main (float[1, 3, 8, 8] image) => (float[1, 3, 8, 8] heat) { heat = Relu (image) }""")
    function = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        main (float[N, 3, 16, 16] image) => (float[N, 3, 16, 16] heat) { heat = local.f (image) }
        <domain: "local", opset_import: ["" : 17]> f (x) => (y) { y = Relu (x) }""")
    outside = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        main (float[N, 3, 16, 16] image) => (float[N, 1, 16, 16] heat) <float[1, 3, 1, 1] w = {0.2, 0.3, 0.5}>
        { heat = Conv (image, w) }""")
    tensor = outside.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = 1
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", "12")):
        tensor.external_data.add(key=key, value=value)
    return [each.SerializeToString() for each in (plain, old, function, outside)]


# Images


def _read_image(data: bytes, _folder: Path) -> object:
    before = os.environ.get(limits.VARIABLE)
    os.environ[limits.VARIABLE] = str(IMAGE_MIB)
    try:
        shape = decode_image(data).shape
        return shape, decode_image(data, cv2.IMREAD_UNCHANGED).shape
    finally:
        os.environ.pop(limits.VARIABLE)
        if before is not None:
            os.environ[limits.VARIABLE] = before


def _encoded(suffix: str, *parameters: list[int]) -> list[bytes]:
    y, x = np.mgrid[:24, :20]
    picture = np.stack([x * 12, y * 10, (x + y) * 5], axis=2).astype(np.uint8)
    pictures = [picture, picture[:, :, 0].copy()]
    if suffix in (".png", ".tiff"):
        pictures.append(picture.astype(np.uint16) << 8)
    return [cv2.imencode(suffix, each, each_one)[1].tobytes() for each in pictures for each_one in parameters or ([],)]


def _tiffs(_folder: Path) -> list[bytes]:
    return _encoded(".tiff", *([cv2.IMWRITE_TIFF_COMPRESSION, number] for number in (1, 5, 8, 32773)))


def _jpegs(_folder: Path) -> list[bytes]:
    found = _encoded(".jpg", [], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 1])
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    return [*found, found[0][:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + found[0][2:]]


def _plain(_folder: Path) -> list[bytes]:
    colour = bytes(range(24))
    bitmap = np.packbits(np.eye(8, dtype=np.uint8)).tobytes()
    pnm = [b"P6\n4 2\n255\n" + colour, b"P5 # c\n8 3 65535\n" + colour * 2, b"P4\n8 8\n" + bitmap]
    return [*_encoded(".bmp"), *pnm]


def _pngs(_folder: Path) -> list[bytes]:
    found = _encoded(".png")
    bomb = (100_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    chunk = len(bomb).to_bytes(4, "big") + b"IHDR" + bomb + zlib.crc32(b"IHDR" + bomb).to_bytes(4, "big")
    return [*found, found[0][:8] + chunk + found[0][33:]]


# Videos and streams


def _read_video(data: bytes, folder: Path) -> object:
    """The first pictures of a video, as a stream takes them."""
    path = folder / "v.mp4"
    path.write_bytes(data)
    with _asked_once(), VideoSource(path) as frames:
        return [frame.error for frame, _ in zip(frames, range(4))]


@contextlib.contextmanager
def _asked_once() -> Iterator[None]:
    """Without the search for PyAV's version, a third of the time of each execution."""
    before = pyav.has_pyav
    pyav.has_pyav = video.has_pyav = _has_pyav  # type: ignore[assignment,attr-defined]
    try:
        yield
    finally:
        pyav.has_pyav = video.has_pyav = before  # type: ignore[attr-defined]


_has_pyav = functools.cache(pyav.has_pyav)


def _videos(folder: Path) -> list[bytes]:
    from videos import pictures, write_video

    found = []
    for suffix, codec in ((".mp4", "libx264"), (".mkv", "libx264"), (".avi", "mjpeg"), (".ts", "libx264")):
        path = folder / f"seed{suffix}"
        options = {} if codec == "mjpeg" else {"preset": "ultrafast", "x264-params": "keyint=12:bframes=0"}
        found.append(write_video(path, pictures(3, (32, 48)), codec, **options).read_bytes())
    return [*found, b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n", b"ffconcat version 1.0\nfile /etc/passwd\n"]


def _read_units(data: bytes, _folder: Path) -> object:
    """The units of H.264 and their count: a stream's record, its length in the first byte, then a packet."""
    if not data:
        return None
    record, packet = data[1 : 1 + data[0]], data[1 + data[0] :]
    with contextlib.suppress(ValueError):
        [*Units("hevc", record).split(packet)]
    try:
        count = FrameCount(record)
        return [count.is_missing(unit) for unit in Units("h264", record).split(packet)]
    except ValueError as error:  # what the decoder turns into a flaw of the picture
        raise DataError(str(error)) from error


def _units(folder: Path) -> list[bytes]:
    import av

    found = []
    for data, suffix in zip(_videos(folder)[:2], (".mp4", ".mkv")):
        path = folder / f"units{suffix}"
        path.write_bytes(data)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            record = bytes(stream.codec_context.extradata or b"")[:255]
            found += [bytes([len(record)]) + record + bytes(each) for each in container.demux(stream) if each.size]
    return found


class _Answer:
    """A camera's answer that comes in pieces."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read1(self, size: int) -> bytes:
        return self._stream.read(min(size, 100))


def _read_stream(data: bytes, _folder: Path) -> object:
    answer: Any = _Answer(data)
    parts, found = Parts(answer, "frame", 5.0), []
    try:
        while len(found) < 100:
            found.append(parts.next())
    except (StreamEndError, OSError, ValueError) as error:  # what `MjpegCapture` turns into a lost camera
        if not found:
            raise DataError(type(error).__name__) from error
    return found


STREAM = (
    b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 5\r\nX-Timestamp: 1.5\r\n\r\nabcde\r\n"
    b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 9\r\n\r\nabcde\r\n--frame\r\n\r\nab\r\n--frame--\r\n"
)


def _always(*values: bytes) -> Callable[[Path], list[bytes]]:
    return lambda _folder: list(values)


DATA = (
    Reader("graph", _read_graph, _graphs, change_message),
    Reader("arrays", _read_arrays, _arrays, change_zip),
    Reader("safetensors", _read_safetensors, _safetensors, change_safetensors),
    Reader("checkpoint", lambda data, folder: _read_weights(data, folder, ".pth"), _checkpoints, change_zip),
    Reader("foreign", _read_foreign, _foreign, change_message),
    Reader("png", _read_image, _pngs, change_png),
    Reader("jpeg", _read_image, _jpegs, change_bytes),
    Reader("tiff", _read_image, _tiffs, change_bytes),
    Reader("webp", _read_image, lambda _folder: _encoded(".webp"), change_bytes),
    Reader("plain", _read_image, _plain, change_bytes),
    Reader("video", _read_video, _videos, change_bytes, memory=256),
    Reader("units", _read_units, _units, change_bytes),
    Reader("stream", _read_stream, _always(STREAM), change_bytes),
)
