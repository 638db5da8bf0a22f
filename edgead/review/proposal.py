"""What other thresholds would have done to marked rejects and to held-out good images, and which one to take."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edgead.binomial import CONFIDENCE, upper_limit
from edgead.bundle import Bundle, read_manifest
from edgead.bundle.manifest import Manifest, StoredThreshold
from edgead.console import Console
from edgead.decision import Threshold, conformal_threshold
from edgead.errors import ConfigError, DataError
from edgead.images import read_image
from edgead.marks import FILE, FOLDERS, Mark, Marks, marks_folder, of_one_product
from edgead.review.saved import saved_rejects
from edgead.runtime.inspector import load
from edgead.runtime.rules import choose_threshold, describe_threshold
from edgead.text import percent, typed

BOUNDS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
"""False-reject bounds whose thresholds are shown."""
BIAS = (
    "Marked rejects are a biased sample: they are only what the threshold of their run rejected. They say nothing "
    "about parts that passed: neither how many defects were missed, nor how many good parts a lower threshold would "
    "fail."
)


class Scored(NamedTuple):
    """A marked reject with its score by the bundle under review."""

    mark: Mark
    score: float


@dataclass(frozen=True)
class Effect:
    """What a threshold would do.

    Attributes:
        threshold: a score above it fails.
        name: where it comes from.
        false_rejects, real_defects, unsure: of the marked ones, how many would fail.
        held_out: of the held-out good images, how many would fail; None if the bundle does not have their scores.
    """

    threshold: float
    name: str
    false_rejects: int
    real_defects: int
    unsure: int
    held_out: int | None


@dataclass(frozen=True)
class Review:
    """The outcome of a review.

    Attributes:
        bundle: under review, with its manifest.
        marked: number of scored rejects by mark.
        unmarked: saved rejects that nobody has marked.
        unread: pictures that could not be scored, with the reason.
        effects: of the present threshold and of others, by threshold.
        proposed: a threshold; None if there is nothing to propose.
        reason: why this one, or why none.
        promise: what the proposed or named threshold promises, in words; empty if there is none.
        missed: what is known about defects that it would let pass, in words.
    """

    bundle: Bundle
    marked: dict[str, int]
    unmarked: int
    unread: tuple[str, ...]
    effects: tuple[Effect, ...]
    proposed: float | None
    reason: str
    promise: str
    missed: str
    bias: str = BIAS


def review(
    folder: Path,
    bundle: Path,
    *,
    threshold: float | str | None = None,
    marks: Path | None = None,
    engine: str = "auto",
    console: Console | None = None,
) -> Review:
    """Score the marked rejects with a bundle, and compare thresholds.

    Args:
        folder: of a ``rejects:`` sink, or of marks.
        bundle: under review. It scores every picture again, so that it may be another one than that of the run.
        threshold: a threshold to judge in place of a proposal: a score, or ``"fpr:0.001"``.
        marks: folder of the marks; see `edgead.marks.marks_folder` where None.
        engine: see `edgead.load`.
        console: shows the progress.

    Raises:
        ConfigError: a folder is missing, nothing is marked, or marks are of several products, none of which the bundle
            has decided; or a bundle with depth, which marked pictures do not have.
        EdgeadError: see `edgead.load`.
    """
    kept = Marks(marks_folder(folder, marks))
    every = kept.all().values()
    marked = of_one_product(every, kept.folder, read_manifest(bundle).name)
    known, unread = [], [f"{len(every) - len(marked)} marks of other products"] * (len(marked) < len(every))
    for each in marked:
        if (kept.folder / each.picture).is_file():
            known.append(each)
        else:
            unread.append(f"{each.picture} is not there any more")
    unread += [f"{kept.damaged} damaged lines of {FILE}"] * bool(kept.damaged)
    if marked and not known:
        raise ConfigError(f"None of the {len(marked)} marked pictures is in {kept.folder} any more.")
    if not known:
        raise ConfigError(
            f"Nothing is marked in {kept.folder}.\nMark rejects on the live page, or with:  "
            f"edgead review {typed(folder)}/PICTURE.png --as false-reject"
        )
    with load(bundle, engine=engine, console=console) as inspector:
        opened = inspector.bundle
        if inspector.depth_range is not None:
            raise ConfigError(f"{bundle} reads depth; marked pictures hold colours only.")
        scored = []
        for each in (console or Console()).track("scoring marked rejects")(known):
            try:
                result = inspector.inspect(read_image(kept.folder / each.picture))
            except DataError as error:
                unread.append(str(error))
                continue
            if math.isfinite(result.score):
                scored.append(Scored(each, result.score))
            else:
                unread.append(f"{each.picture}: {result.reason or 'its score is not finite'}")
    manifest = opened.manifest
    proposed, reason = propose(scored, manifest.threshold.value, manifest.parity.tolerance)
    defects = sum(each.mark == "real defect" for each in marked) - sum(one.mark.mark == "real defect" for one in scored)
    if proposed is not None and (defects or kept.damaged):
        what = f"{defects} marked real defects" if defects else "damaged marks"
        proposed, reason = None, f"{what} cannot be scored, so it is unknown how high the threshold may be"
    if threshold is not None:
        proposed, reason = choose_threshold(manifest, threshold), "your choice"
        if console and (meaning := describe_threshold(manifest, proposed)):
            console.say(meaning)
    counts = Counter(one.mark.mark for one in scored)
    return Review(
        opened,
        {name: counts[name] for name in FOLDERS},
        sum(one.mark is None for one in saved_rejects(folder, kept)),
        tuple(unread),
        _effects(manifest, scored, proposed),
        proposed,
        reason,
        "" if proposed is None else moved(manifest.threshold, proposed).describe(manifest.data.unseen),
        "" if proposed is None else _missed(scored, proposed),
    )


def propose(scored: Sequence[Scored], present: float, tolerance: float) -> tuple[float | None, str]:
    """Return the threshold that lets most marked false rejects pass and no marked real defect, and why.

    It is as low as this allows: the highest score of those false rejects, plus what engines may differ by.

    Args:
        scored: marked rejects.
        present: the present threshold, which is never lowered: rejects say nothing about what lies below it.
        tolerance: largest difference of an engine's scores.
    """
    good = [one.score for one in scored if one.mark.mark == "false reject"]
    bad = [one.score for one in scored if one.mark.mark == "real defect"]
    if not good:
        return None, "no false reject is marked, so a higher threshold would gain nothing"
    if not bad:
        return None, "no real defect is marked, so it is unknown how high the threshold may be"
    lowest = min(bad)
    if lowest <= present:
        passing = sum(score <= present for score in bad)
        return None, f"{passing} of {len(bad)} marked real defects already pass, so the threshold must not be higher"
    if max(good) <= present:
        return None, "every marked false reject already passes"
    saved = [score for score in good if present < score < lowest]
    if not saved:
        return None, (
            "every marked false reject scores as high as a real defect, so a higher threshold would let real defects "
            "pass. Train again with the marked parts:  edgead train --data DIR --marked DIR"
        )
    value = min(max(saved) + tolerance, (max(saved) + lowest) / 2)
    return value, f"lets {len(saved)} of {len(good)} marked false rejects pass and none of {len(bad)} real defects"


def moved(stored: StoredThreshold, value: float) -> StoredThreshold:
    """Return the record of another threshold with what it promises.

    A higher threshold keeps the promise: no more good parts can fail. The promise of a lower one follows from how many
    held-out good images would pass.
    """
    if not stored.scores or not stored.normals:
        rule = Threshold(value, 0, 1.0, 1.0)
    elif value >= stored.value:
        rule = Threshold(value, stored.normals, stored.false_reject_bound, stored.requested_bound)
    else:
        n = stored.normals
        bound = 1 - sum(score <= value for score in stored.scores) / (n + 1)
        rule = Threshold(value, n, bound, bound)
    return StoredThreshold.of(rule, stored.scores, stored.map_maxima)


def _effects(manifest: Manifest, scored: Sequence[Scored], proposed: float | None) -> tuple[Effect, ...]:
    scores = manifest.threshold.scores
    named = {f"fpr:{bound:g}": conformal_threshold(scores, bound).value for bound in BOUNDS} if scores else {}
    values: dict[float, str] = {value: name for name, value in reversed(named.items())}  # the largest bound of equals
    values[manifest.threshold.value] = "present"
    if proposed is not None:
        values[proposed] = "proposed"

    def effect(threshold: float, name: str) -> Effect:
        failing = Counter(one.mark.mark for one in scored if one.score > threshold)
        held_out = sum(score > threshold for score in scores) if scores else None
        return Effect(threshold, name, failing["false reject"], failing["real defect"], failing["unsure"], held_out)

    return tuple(effect(value, name) for value, name in sorted(values.items()))


def _missed(scored: Sequence[Scored], threshold: float) -> str:
    bad = [one.score for one in scored if one.mark.mark == "real defect"]
    if not bad:
        return "No real defect is marked, so it is unknown how many rejected defects it would let pass."
    passing = sum(score <= threshold for score in bad)
    limit = upper_limit(passing, len(bad))
    return (
        f"It would let {passing} of {len(bad)} marked real defects pass. With {CONFIDENCE:.0%} confidence, this is at "
        f"most {percent(limit, 0)}% of the defects that are rejected now, if those are like the marked ones."
    )
