"""Records a stream and replays it: the same frames in the same order, bit for bit.

recording.json   bundle and engine
events.jsonl     one line per result (`Result.to_dict`) and per dropped frame, in the order of the results
frames/          the inferred frames as PNG, named after their line; depth is in the alpha channel
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO

from edgead import schema
from edgead.bundle import MODEL
from edgead.decision import Verdict
from edgead.depth import DepthRange
from edgead.errors import ConfigError, DataError, SourceError
from edgead.files import write_json
from edgead.home import at_home
from edgead.images import COLOUR, PixelFormat, cv2, read_image
from edgead.runtime.frame_inspector import FrameInspector
from edgead.runtime.result import Result
from edgead.runtime.sinks.lines import LineFile
from edgead.runtime.sinks.sink import BaseSink
from edgead.runtime.sources.source import Captured, FrameSource, Source
from edgead.runtime.sources.uri import UNSET
from edgead.schema import FilePath, OneOf, SchemaError, left_out, parse_json

FORMAT = 1
LONGEST_LINE = 16 << 20
"""Bytes of a line of `events.jsonl`."""
_RECIPE = re.compile(rb'"recipe": "((?:[ !#-\[\]-~]|\\u[0-9a-f]{4}|\\["\\bfnrt]){1,500}) [^ "]+"')
"""Product and version in a line that `Recorder` has written: inside a text, each quote has a backslash."""


@dataclass(frozen=True)
class RecordingFacts:
    """The content of `recording.json`. `bit_depth` of 16-bit images is None in recordings of earlier versions."""

    format: int
    bundle: str
    model_sha256: str
    depth_range: DepthRange | None = left_out()
    bit_depth: int | None = left_out()
    engine: str = ""


@dataclass(frozen=True)
class RecordedResult:
    """The replayed part of a line of `events.jsonl`. `frame_id` is None for a report about a source."""

    source_id: str
    frame_id: int | None
    verdict: Annotated[str, OneOf(tuple(verdict.value for verdict in Verdict))]
    reason: str = ""
    cause: str | None = None
    frame: FilePath | None = None


@dataclass(frozen=True)
class RecordedDrop:
    """A line of `events.jsonl` about a dropped frame: the cause, the frame, and `time.monotonic` seconds."""

    dropped: str
    source_id: str
    frame_id: int | None = None
    t_capture: float = 0.0


class Recorder(BaseSink):
    """A sink that writes a recording. One that is closed without a line is removed, so that its folder can be used.

    Args:
        folder: a new or empty folder.
        inspector: the inspector; its bundle and engine go into `recording.json`.

    Raises:
        ConfigError: the folder is not empty.
    """

    wants_frames = True

    def __init__(self, folder: Path, inspector: FrameInspector) -> None:
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty; a recording needs an empty folder.")
        super().__init__(f"record:{folder}")
        self._folder, self.folder, self._line = folder, folder / "frames", 0
        (folder / "frames").mkdir(parents=True, exist_ok=True)
        manifest = inspector.bundle.manifest
        model, pixels = manifest.files[MODEL], inspector.pixels
        facts = RecordingFacts(
            FORMAT, manifest.name, model, pixels.depth_range, pixels.bit_depth, inspector.engine.name
        )
        write_json(folder / "recording.json", schema.write(facts))
        self._events = LineFile(folder / "events.jsonl")

    def write(self, result: Result) -> None:
        if result.frame is None or result.anomaly_map is None:
            self._write_event({"frame": None, **result.to_dict()})
            return
        frame = f"frames/{self._line:09d}.png"
        # PNG is lossless at any level; level 1 is the fastest, because the sink must keep up with the camera.
        _, data = cv2().imencode(".png", result.frame, [cv2().IMWRITE_PNG_COMPRESSION, 1])
        with _removed_on_error(self._folder / frame) as path:  # OpenCV's own imwrite does not notice a full disk
            path.write_bytes(data)
            self._write_event({"frame": frame, **result.to_dict()})

    def drop(self, captured: Captured, cause: str) -> None:
        """Record a frame without a result."""
        at = round(captured.t_capture, 6)
        self._write_event(vars(RecordedDrop(cause, captured.source_id, captured.frame_id, at)))

    def _write_event(self, event: Mapping[str, object]) -> None:
        self._events.write(json.dumps(dict(event)).encode())
        self._line += 1

    def close(self) -> None:
        self._events.close()
        if not self._line:
            self._remove()

    def _remove(self) -> None:
        """Leave an empty folder, as of a run that did not start; a line that was cut, or another's file, stays."""
        events = self._folder / "events.jsonl"
        with suppress(OSError):
            if not events.stat().st_size:
                self.folder.rmdir()
                events.unlink()
                (self._folder / "recording.json").unlink()


@contextmanager
def _removed_on_error(path: Path) -> Iterator[Path]:
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def open_replay(uri: str, pixels: PixelFormat = COLOUR) -> Source:
    """``replay:DIR``.

    Raises:
        SourceError: no folder, not a recording, of a newer format, or its frames were made of depth or of 16-bit images
            differently than the model's.
    """
    name = uri.partition(":")[2]
    if not name.strip():  # as a path, it would be the current folder
        raise SourceError(f"replay: needs the folder of a recording. {UNSET}")
    folder = Path(at_home(name))
    try:
        values = schema.load_json(folder / "recording.json")
        version = values.get("format") if isinstance(values, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise SourceError(f"{folder} has format {version}; this edgead reads up to {FORMAT}.")
        facts = schema.read(RecordingFacts, values)
    except OSError as error:
        raise SourceError(f"{folder} is not a recording of edgead run --record.") from error
    except SchemaError as error:
        raise SourceError(
            f"{folder / 'recording.json'} is not from a recording of edgead run --record: {error}."
        ) from error
    if pixels.depth_range is not None and facts.depth_range != pixels.depth_range:
        recorded = None if facts.depth_range is None else list(facts.depth_range)
        raise SourceError(
            f"{folder} was recorded with the depth range {recorded}; the model has {list(pixels.depth_range)}."
        )
    if facts.bit_depth not in (None, pixels.bit_depth):  # the recorded frames have 8 bits: which, was decided then
        raise SourceError(
            f"{folder} was recorded by a bundle that reads {facts.bit_depth} bits of 16-bit images; the model reads "
            f"{pixels.bit_depth}."
        )
    return Replay(folder)


class Replay(FrameSource):
    """Delivers the frames of a recording with the names and numbers of their sources.

    A frame that was UNKNOWN because of time (late, stale, silent …) is UNKNOWN again for the same reason. Dropped
    frames are not in a recording; `dropped` lists them after the replay. An unreadable line is an error in place of a
    frame, except an incomplete last line of a recording that was killed: it is skipped, and `remark` says so. It also
    names the products of a recorded line, if there were several: frames of all are delivered.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(f"replay:{folder}")
        self.folder = folder
        self.dropped: list[RecordedDrop] = []
        self._events = folder / "events.jsonl"
        self.paths = [self._events]
        self._last, products = _look_through(self._events)
        remarks = []
        if self._last is not None:
            remarks.append(f"the recording was killed while it wrote line {self._last}; that line is skipped")
        if len(products) > 1:
            names = ", ".join(sorted(products))
            remarks.append(f"it has frames of several products ({names}); all of them are decided, whatever they show")
        self.remark = "; ".join(remarks)

    def read(self) -> Iterator[Captured]:
        with self._events.open("rb") as events:
            for number, line in enumerate(_lines(events), 1):
                if self.stopped.is_set():
                    return
                if number == self._last:
                    continue
                try:
                    event = _read_event(line)
                    captured = self._captured(event) if isinstance(event, RecordedResult) else None
                except ValueError:
                    error = f"line {number} of {self._events} is damaged"
                    yield Captured(None, error, self.name, number - 1, time.monotonic(), cause="unreadable")
                    continue
                if isinstance(event, RecordedDrop):
                    self.dropped.append(event)
                elif captured and (captured.frame_id is not None or captured.about_source):  # else a part without frame
                    yield captured

    def _captured(self, line: RecordedResult) -> Captured:
        unknown = line.verdict == Verdict.UNKNOWN.value and line.cause != "score"
        error, cause = (line.reason, line.cause or "") if unknown else ("", "")
        image = None
        if line.frame:
            if Path(line.frame).parts != ("frames", Path(line.frame).name):
                raise SchemaError("frame lies outside the recording")
            try:
                image = read_image(self.folder / line.frame)
            except DataError as failure:
                error, cause = str(failure), "unreadable"
        return Captured(image, error, line.source_id, line.frame_id, time.monotonic(), cause=cause)


def _read_event(line: bytes) -> RecordedResult | RecordedDrop:
    """Parse a line of `events.jsonl`.

    Raises:
        SchemaError: not JSON, or not an event.
    """
    values = parse_json(line)
    is_drop = isinstance(values, dict) and "dropped" in values
    return schema.read(RecordedDrop, values) if is_drop else schema.read(RecordedResult, values)


def _lines(events: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file; one that is too long in parts, none of which is an event."""
    return iter(lambda: events.readline(LONGEST_LINE), b"")


def _look_through(path: Path) -> tuple[int | None, set[str]]:
    """Return the number of the last line if it is incomplete because its writer was killed, and the recorded products.

    Raises:
        SourceError: the file cannot be read.
    """
    number, line, found = 0, b"\n", set[bytes]()
    try:
        with path.open("rb") as events:
            for number, line in enumerate(_lines(events), 1):  # noqa: B007  only the last one is used
                found.update(_RECIPE.findall(line))
    except OSError as error:
        raise SourceError(f"Cannot read {path}: {error.strerror}.") from error
    products = {str(json.loads(b'"' + name + b'"')) for name in found}
    if line.endswith(b"\n"):
        return None, products
    try:
        parse_json(line)
    except ValueError:
        return number, products
    return None, products
