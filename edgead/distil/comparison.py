"""Teacher and student side by side: agreement, accuracy, time, and the images on which they differ most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgead import metrics, schema
from edgead.benchmark.accuracy import measure_accuracy
from edgead.bundle import Bundle, Outputs
from edgead.console import Console
from edgead.datasets import Category, load_frames, open_again
from edgead.distil.architecture import time_in_turn
from edgead.errors import EdgeadError
from edgead.export.inference import run_singly
from edgead.files import write_json
from edgead.images import Frame, cv2, fit_frame, read_frame
from edgead.machine import describe_machine, versions
from edgead.masks import draw_overlay
from edgead.metrics import rank_correlation
from edgead.reports.build import build_report
from edgead.reports.distillation_page import Agreement, DistillationResults, Labelled, Time
from edgead.reports.page import RESULTS
from edgead.reports.pictures import Group, Picture, picture, write_pictures
from edgead.runtime.engines.opening import open_engine
from edgead.runtime.inspector import load
from edgead.text import utc_now
from edgead.train import checkpoint
from edgead.train.method import TrainingData
from edgead.train.methods.student.examples import draw_jittered
from edgead.train.methods.student.method import Student

FOLDER = "distillation"
"""In the student's run."""
JITTERED, ANOMALIES = 60, 100
"""Images made of held-out good ones: moved and lit a little; the same, with synthetic anomalies."""
SHOWN = 6
"""Images on which teacher and student differ most."""
PIXEL_SIZE = 256
"""Side of maps and masks for pixel figures, as in `edgead benchmark`."""
SIDE = 64
"""Side of the maps whose agreement is measured."""
TIMED = 41
"""Inferences of each that are timed, in turn."""


@dataclass(frozen=True, eq=False)
class _Seen:
    """Images that both were run on.

    Attributes:
        names: for people.
        frames: ``[N, H, W, 3] uint8``, at the student's size.
        teacher, student: scores ``[N]`` and maps.
    """

    names: Sequence[str]
    frames: NDArray[np.uint8]
    teacher: Outputs
    student: Outputs


def compare(
    teacher: Bundle, student: Bundle, run_folder: Path, engine: str, target_ms: float, console: Console
) -> Path:
    """Compare two bundles on held-out images, synthetic anomalies and, where there are any, labelled images.

    Args:
        teacher, student: the bundles.
        run_folder: of the student's training; `FOLDER` in it gets results, pictures and page.
        engine: that both are timed on.
        target_ms: that the student was chosen for.
        console: shows progress.

    Returns:
        The page.
    """
    run, method = checkpoint.load_method(run_folder)
    assert isinstance(method, Student)
    category = open_again(run.data, run.category)
    held_out = load_frames([Path(run.data, name) for name in run.held_out], run.config.size, run.pixels).frames
    images = _draw_unlabelled(method, held_out, run.seed)
    unlabelled, time = _run_both(teacher, student, images, engine, console)
    labels = np.arange(len(unlabelled.frames)) >= len(held_out) + JITTERED
    scale = method.network.map_scale.numpy()

    def auroc(outputs: Outputs) -> float:
        return metrics.rank(labels, outputs[0]).auroc()

    labelled, shown = _labelled(teacher, student, category, engine, console)
    results = DistillationResults(
        created=utc_now(),
        category=run.category,
        teacher=f"{teacher.manifest.name} ({teacher.manifest.method}, {teacher.manifest.precision})",
        student=f"{student.manifest.name} ({student.manifest.precision})",
        teacher_digest=teacher.manifest.digest,
        student_digest=student.manifest.digest,
        engine=engine,
        target_ms=target_ms,
        time=time,
        agreement=_agreement(unlabelled, teacher, student, scale),
        held_out=len(held_out),
        jittered=JITTERED,
        anomalies=ANOMALIES,
        synthetic_auroc=(auroc(unlabelled.teacher), auroc(unlabelled.student)),
        labelled=labelled,
        seed=run.seed,
        steps=run.config.total_steps(run.steps_in_epoch),
        config=run.shipped_config,
        machine=describe_machine(),
        versions=versions(),
    )
    folder = run_folder / FOLDER
    folder.mkdir(exist_ok=True)
    groups = [_differing(unlabelled, teacher, student, "held-out good images and synthetic anomalies")]
    if shown is not None:
        groups.append(_differing(shown, teacher, student, "labelled images"))
    write_pictures(folder, groups)
    write_json(folder / RESULTS, schema.write(results))
    page = build_report(folder)
    for line in results.in_words():
        console.say(line)
    console.say(f"Report: {page}")
    return page


def _draw_unlabelled(method: Student, held_out: NDArray[np.uint8], seed: int) -> dict[str, NDArray[np.uint8]]:
    """Return the held-out images, and what is made of them, by kind."""
    rng, material = np.random.default_rng((seed, 0xD157)), TrainingData(held_out)
    jittered = np.stack([draw_jittered(rng, material, method.config) for _ in range(JITTERED)])
    anomalies = np.stack([method.example(material, rng)["frame"] for _ in range(ANOMALIES)])
    return {"good": held_out, "jittered": jittered, "synthetic": anomalies}


def _run_both(
    teacher: Bundle, student: Bundle, images: Mapping[str, NDArray[np.uint8]], engine: str, console: Console
) -> tuple[_Seen, dict[str, Time]]:
    """Run both on images of each kind, and time them in turn."""
    every = np.concatenate([*images.values()])
    names = [f"{kind} {number}" for kind, frames in images.items() for number in range(len(frames))]
    fitted = np.stack([fit_frame(frame, teacher.manifest.size) for frame in every])
    with closing(open_engine(engine, teacher)) as first, closing(open_engine(engine, student)) as second:
        seen = _Seen(
            names,
            every,
            run_singly(first, fitted, console.track("teacher")),
            run_singly(second, every, console.track("student")),
        )
        engines = {"teacher": first, "student": second}
        timings = time_in_turn(engines, {"teacher": fitted, "student": every}, TIMED)
    return seen, {name: Time(timing.median, timing.undisturbed) for name, timing in timings.items()}


def _agreement(seen: _Seen, teacher: Bundle, student: Bundle, scale: NDArray[np.float32]) -> Agreement:
    (scores, maps), (found_scores, found_maps) = seen.teacher, seen.student
    wanted = np.arcsinh((np.stack([_small(each) for each in maps]) - scale[0]) / scale[1])
    found = np.stack([_small(each) for each in found_maps])
    fails = [
        outputs > bundle.manifest.threshold.value for outputs, bundle in ((scores, teacher), (found_scores, student))
    ]
    return Agreement(
        scores=rank_correlation(scores, found_scores),
        maps=float(np.corrcoef(wanted.ravel(), found.ravel())[0, 1]) if np.ptp(found) > 0 else 0.0,
        verdicts=float((fails[0] == fails[1]).mean()),
    )


def _small(anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2().resize(anomaly_map, (SIDE, SIDE), interpolation=cv2().INTER_AREA), np.float32)


def _labelled(
    teacher: Bundle, student: Bundle, category: Category, engine: str, console: Console
) -> tuple[Labelled | None, _Seen | None]:
    """Score the labelled images with both, if there are good and defective ones."""
    if len({sample.anomalous for sample in category.test}) < 2:
        return None, None
    found = []
    try:
        for bundle in (teacher, student):
            with closing(load(bundle.path, engine=engine, console=console)) as inspector:
                found.append(measure_accuracy(inspector, category, PIXEL_SIZE, console))
    except EdgeadError as error:
        console.say(f"Warning: the labelled images are not compared: {error}")
        return None, None
    first, second = (each.metrics for each in found)
    scores = [np.array(each.scores, np.float32) for each in found]
    record = Labelled(
        images=len(scores[0]),
        image_auroc=(first.image_auroc, second.image_auroc),
        pixel_auroc=_pair(first.pixel_auroc, second.pixel_auroc),
        aupro=_pair(first.aupro, second.aupro),
        agreement=rank_correlation(*scores),
    )
    samples = found[0].samples
    chosen = _apart(scores[0], scores[1])
    frames = [read_frame(samples[number].path, student.manifest.pixels) for number in chosen]
    seen = _Seen(
        [f"{samples[number].kind}/{samples[number].path.name}" for number in chosen],
        np.stack([fit_frame(frame, student.manifest.size) for frame in frames]),
        *(_infer(bundle, frames, engine) for bundle in (teacher, student)),
    )
    return record, seen


def _pair(first: float | None, second: float | None) -> tuple[float, float] | None:
    return None if first is None or second is None else (first, second)


def _infer(bundle: Bundle, frames: Sequence[Frame], engine: str) -> Outputs:
    with closing(open_engine(engine, bundle)) as opened:
        return run_singly(opened, np.stack([fit_frame(frame, bundle.manifest.size) for frame in frames]))


def _apart(first: NDArray[np.float32], second: NDArray[np.float32]) -> list[int]:
    """Return the images whose places in both rankings are farthest apart."""
    places = [np.argsort(np.argsort(scores, kind="stable"), kind="stable") for scores in (first, second)]
    return [int(number) for number in np.argsort(-np.abs(places[0] - places[1]), kind="stable")[:SHOWN]]


def _differing(seen: _Seen, teacher: Bundle, student: Bundle, what: str) -> Group:
    pictures = [_picture(seen, number, teacher, student) for number in _apart(seen.teacher[0], seen.student[0])]
    note = (
        "The images that the two bundles rank most differently by score. Red is twice the level of a defect, "
        "or more, of each bundle."
    )
    return Group(f"Where they differ most: {what}", tuple(pictures), note, ("image alone", "teacher", "student"))


def _picture(seen: _Seen, number: int, teacher: Bundle, student: Bundle) -> Picture:
    frame = np.ascontiguousarray(seen.frames[number][:, :, :3])
    nothing = np.zeros(frame.shape[:2], np.bool_)
    texts, drawn = [seen.names[number]], [frame]
    for name, bundle, (scores, maps) in (("teacher", teacher, seen.teacher), ("student", student, seen.student)):
        limit = bundle.manifest.threshold.value
        texts.append(f"{name} {'FAIL' if scores[number] > limit else 'PASS'} ({scores[number]:.3g} of {limit:.3g})")
        drawn.append(draw_overlay(frame, maps[number], nothing, bundle.manifest.mask_threshold))
    return picture(", ".join(texts), *drawn)
