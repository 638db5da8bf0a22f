"""The page of a finished run. Whatever goes wrong with it, the run stands."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgead import schema
from edgead.console import Console
from edgead.decision import conformal_threshold
from edgead.errors import describe
from edgead.files import write_json
from edgead.geometry.tiling import Tiling
from edgead.images import Frame, Mask, cv2
from edgead.machine import describe_machine
from edgead.masks import draw_overlay, outlines_of
from edgead.reports.build import build_report
from edgead.reports.page import RESULTS
from edgead.reports.pictures import Group, picture, write_pictures
from edgead.reports.training_page import TrainingResults
from edgead.text import utc_now
from edgead.train.method import Method, Stage, TrainingData
from edgead.train.watching import FOLDER, SHARE, Watch, infer, shrink

SHORTEST = 2.0
"""Seconds that scoring held-out images may take in any case; longer, the share of the training that `SHARE` says."""
SHOWN = 4
"""Good images with the highest scores on the page."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out good images, and what synthetic anomalies on them are made of.

    Attributes:
        names: of the files.
        data: their frames, with tiles those, as `Method.example` takes them.
        frames: ``[N, H, W, C] uint8``, their canvases.
        tiling: of the canvases.
    """

    names: Sequence[str]
    data: TrainingData
    frames: NDArray[np.uint8]
    tiling: Tiling


def start_watch(
    method: Method, held_out: HeldOut, seed: int, stages: Sequence[Stage], folder: Path, console: Console
) -> Watch | None:
    """Watch one held-out good image and two synthetic anomalies; None, with a warning, if these cannot be drawn."""
    try:
        rng = np.random.default_rng((seed, 0x0B5))
        drawn = [method.example(held_out.data, rng)["frame"] for _ in range(2)]
        return Watch(method, np.stack([held_out.data.normals[0], *drawn]), stages, folder, console)
    except Exception as error:
        console.say(f"Warning: the report of this run will have no images from the training: {describe(error)}")
        return None


def write_report(
    method: Method,
    folder: Path,
    held_out: HeldOut,
    examples: Callable[[], Sequence[tuple[Frame, Mask]]],
    watch: Watch | None,
    started: float,
    console: Console,
) -> TrainingResults | None:
    """Score held-out images, and write `results.json`, `pictures.json` and the page into the run's folder.

    Args:
        method: with trained weights.
        folder: of the run.
        held_out: good images that it was not trained on.
        examples: draws some that it was trained on: frames with masks.
        watch: its snapshots; None if there are none.
        started: monotonic time of the training's start.
        console: shows progress, and a warning if there is no page.

    Returns:
        What is in `results.json`; None if it could not be made.
    """
    begin = time.monotonic()
    try:
        seconds = begin - started
        scores, maps = _score(method, held_out, max(SHORTEST, SHARE * seconds), console)
        threshold = conformal_threshold(scores)
        limit = conformal_threshold(maps.max(axis=(1, 2))).value
        groups = [_highest(held_out, scores, maps, limit)]
        if watch:
            groups.append(_animation(method, watch, limit))
        groups.append(_examples(examples(), method.learns_anomalies))
        write_pictures(folder, groups)
        results = TrainingResults(
            finished=utc_now(),
            seconds=round(seconds, 1),
            report_seconds=round(time.monotonic() - begin + (watch.spent if watch else 0.0), 2),
            machine=describe_machine(),
            names=tuple(held_out.names[: len(scores)]),
            scores=tuple(map(float, scores)),
            held_out=len(held_out.names),
            threshold=threshold,
        )
        write_json(folder / RESULTS, schema.write(results))
        page = build_report(folder)
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        console.say(f"Report: {page}")
        return results
    except Exception as error:
        console.say(f"Warning: the run is complete, but its report could not be written: {describe(error)}")
        return None


def _score(
    method: Method, held_out: HeldOut, seconds: float, console: Console
) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """Return scores and small maps of the first frames, as many as fit into the time; one at least."""
    scores, maps, begin, tiling = [], [], time.monotonic(), held_out.tiling
    for index in console.track("scoring held-out images")(range(len(held_out.frames))):
        found, drawn = infer(method, tiling.cut(held_out.frames[index : index + 1]))
        scores.append(tiling.score(found))
        maps.append(shrink(tiling.stitch(drawn)))
        if time.monotonic() - begin > seconds:
            break
    return np.concatenate(scores), np.concatenate(maps)


def _overlay(frame: Frame, anomaly_map: NDArray[np.float16], limit: float) -> Frame:
    none = np.zeros(frame.shape[:2], np.bool_)
    return draw_overlay(frame, anomaly_map.astype(np.float32), none, limit)


def _highest(held_out: HeldOut, scores: NDArray[np.float32], maps: NDArray[np.float16], limit: float) -> Group:
    order = np.argsort(-scores, kind="stable")[:SHOWN]
    pictures = (
        picture(
            f"score {scores[index]:.4g}, {held_out.names[index]}",
            _overlay(held_out.frames[index], maps[index], limit),
        )
        for index in order
    )
    return Group("Good images with the highest scores", tuple(pictures), "Red is twice the level of a defect, or more.")


def _animation(method: Method, watch: Watch, limit: float) -> Group:
    _, last = infer(method, watch.frames)
    moments = [*watch.moments(), ("trained", shrink(last))]
    captions = ("good image, held out", "synthetic anomaly", "synthetic anomaly")
    pictures = (
        picture(caption, frame[:, :, :3], *(_overlay(frame, maps[index], limit) for _, maps in moments))
        for index, (caption, frame) in enumerate(zip(captions, watch.frames))
    )
    texts = ("image alone", *(text for text, _ in moments))
    note = "The same pictures after more and more steps. The colours are those of the trained network's threshold."
    return Group("What the network sees, over the training", tuple(pictures), note, texts)


def _examples(examples: Sequence[tuple[Frame, Mask]], learned: bool) -> Group:
    pictures = []
    for frame, mask in examples:
        drawn = np.ascontiguousarray(frame[:, :, :3])
        cv2().drawContours(drawn, outlines_of(mask), -1, (0, 0, 255), max(1, min(frame.shape[:2]) // 160))
        pictures.append(picture("", drawn))
    if not learned:
        note = "Export compares graph and network on such pictures, and judges lower precisions by them."
        return Group("Synthetic anomalies, which it was not trained on", tuple(pictures), note)
    note = "Training treats the outlined places as defects. They should be visible, and lie on the part."
    return Group("Synthetic anomalies that it was trained on", tuple(pictures), note)
