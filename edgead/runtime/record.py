"""Record a stream, and play it back: the same frames in the same order, bit for bit.

recording.json   which bundle and engine decided
events.jsonl     one line for each result (`Result.to_dict`) and each dropped frame, in the order of the results
frames/          the frames that were inferred, as PNG, named by their line; depth is in the alpha channel
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgead.bundle import MODEL
from edgead.decision import Verdict
from edgead.errors import ConfigError, DataError, SourceError
from edgead.files import write_json
from edgead.images import COLOUR, PixelFormat, cv2, read_image
from edgead.runtime.inspector import Inspector
from edgead.runtime.result import Result
from edgead.runtime.sources.source import Captured, FrameSource, Source

FORMAT = 1


class Recorder:
    """A sink that writes a recording.

    Args:
        folder: a new or empty folder.
        inspector: what decides; named in the recording.

    Raises:
        ConfigError: the folder holds something.
    """

    wants_frames = True

    def __init__(self, folder: Path, inspector: Inspector) -> None:
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty; a recording needs a folder of its own.")
        self.name, self._folder, self._line = f"record:{folder}", folder, 0
        (folder / "frames").mkdir(parents=True, exist_ok=True)
        manifest = inspector.bundle.manifest
        facts = {"format": FORMAT, "bundle": manifest.name, "model_sha256": manifest.files[MODEL]}
        depth = {} if inspector.depth_range is None else {"depth_range": inspector.depth_range}
        write_json(folder / "recording.json", {**facts, **depth, "engine": inspector.engine.name})
        self._events = (folder / "events.jsonl").open("wb", buffering=0)

    def write(self, result: Result) -> None:
        frame = None
        if result.frame is not None and result.anomaly_map is not None:
            frame = f"frames/{self._line:09d}.png"
            # Level 1: lossless whatever the level, and the sink must keep up with the camera.
            fast = [cv2().IMWRITE_PNG_COMPRESSION, 1]
            if not cv2().imwrite(str(self._folder / frame), result.frame, fast):
                raise DataError(f"{self._folder / frame} could not be written; is the disk full?")
        self._write_event({"frame": frame, **result.to_dict()})

    def drop(self, captured: Captured, cause: str) -> None:
        """Note a frame that got no result."""
        event = {"dropped": cause, "source_id": captured.source_id, "frame_id": captured.frame_id}
        self._write_event({**event, "t_capture": round(captured.t_capture, 6)})

    def _write_event(self, event: dict[str, Any]) -> None:
        self._events.write(json.dumps(event).encode() + b"\n")
        self._line += 1

    def close(self) -> None:
        self._events.close()


def open_replay(uri: str, pixels: PixelFormat = COLOUR) -> Source:
    """``replay:DIR``.

    Raises:
        SourceError: not a recording, of a newer format, or with another depth range than the model's.
    """
    folder = Path(uri.partition(":")[2])
    try:
        facts = json.loads((folder / "recording.json").read_text(encoding="utf-8"))
        version = int(facts["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{folder} is not a recording of edgead run --record.") from error
    if version > FORMAT:
        raise SourceError(f"{folder} has format {version}; this edgead reads up to {FORMAT}.")
    recorded = facts.get("depth_range")
    if pixels.depth_range is not None and recorded != list(pixels.depth_range):
        raise SourceError(
            f"{folder} was recorded with the depth range {recorded}; the model has {list(pixels.depth_range)}."
        )
    return Replay(folder)


class Replay(FrameSource):
    """Gives the frames of a recording again, with their sources' names and numbers.

    What was UNKNOWN then for a reason that lies in time (late, stale, silent …) is UNKNOWN again for the same reason.
    Frames that were dropped are not there to be given; `dropped` holds their recorded lines after the replay. A line
    that cannot be read is an error in place of a frame; only the last one, which was cut when the recording was killed,
    is left out, and `remark` says so.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(f"replay:{folder}")
        self.folder = folder
        self.dropped: list[dict[str, Any]] = []
        self._events = folder / "events.jsonl"
        self._last = _cut_line(self._events)
        if self._last is not None:
            self.remark = f"the recording was killed while line {self._last} was written; that line is left out"

    def read(self) -> Iterator[Captured]:
        with self._events.open("rb") as events:
            for number, line in enumerate(events, 1):
                if self.stopped.is_set():
                    return
                if number == self._last:
                    continue
                try:
                    event = json.loads(line)
                    captured = self._captured(event) if "dropped" not in event else None
                except (ValueError, KeyError, TypeError, RecursionError):
                    error = f"line {number} of {self._events} is damaged"
                    yield Captured(None, error, self.name, number - 1, time.monotonic(), cause="unreadable")
                    continue
                if captured is None:
                    self.dropped.append(event)
                else:
                    yield captured

    def _captured(self, event: dict[str, Any]) -> Captured:
        verdict = Verdict(event["verdict"])
        unknown = verdict is Verdict.UNKNOWN and event["cause"] != "score"
        error, cause = (event["reason"], event["cause"]) if unknown else ("", "")
        image = None
        if event["frame"]:
            try:
                image = read_image(self.folder / event["frame"])
            except DataError as failure:
                error, cause = str(failure), "unreadable"
        return Captured(image, error, event["source_id"], event["frame_id"], time.monotonic(), cause=cause)


def _cut_line(path: Path) -> int | None:
    """Return the number of the last line where it has no end and is not whole: its writer was killed.

    Raises:
        SourceError: the file cannot be read.
    """
    number, line = 0, b"\n"
    try:
        with path.open("rb") as events:
            for number, line in enumerate(events, 1):  # noqa: B007  the last of them is wanted
                pass
    except OSError as error:
        raise SourceError(f"Cannot read {path}: {error.strerror}.") from error
    if line.endswith(b"\n"):
        return None
    try:
        json.loads(line)
    except ValueError:
        return number
    return None
