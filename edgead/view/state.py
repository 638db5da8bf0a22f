"""The state of a line as the page shows it. JSON keys are the names of the fields."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field

from edgead.bundle.manifest import Manifest
from edgead.decision import CONDITION, threshold_images
from edgead.runtime.ledger import Figures
from edgead.runtime.observer import Line
from edgead.runtime.sink_worker import SinkAccount
from edgead.view.banner import Banner
from edgead.view.curves import Hour, Latency, Point
from edgead.view.rejects import RejectState


@dataclass(frozen=True)
class CameraState:
    """One camera.

    Attributes:
        name: of the source.
        banner: what is shown large.
        age: seconds since the newest result; None if there is none.
        picture_age: seconds since the newest picture; None if there is none.
        frame_id, score, threshold: of the newest result; None if there is none, or nothing was inferred.
        scores: recent ones, oldest first.
        latency: None if there is no result.
        per_second: results per second.
        figures: of the ledger; None if nothing was captured.
        hours: counts per hour, oldest first.
        rejects: newest first.
        checked: frames are checked for black, blurred, frozen and stretched ones.
        drift: how frames that pass differ from the held-out images, as sentences; empty where they do not.
    """

    name: str
    banner: Banner
    age: float | None
    picture_age: float | None
    frame_id: int | None
    score: float | None
    threshold: float | None
    scores: list[Point]
    latency: Latency | None
    per_second: float
    figures: Figures | None
    hours: list[Hour]
    rejects: list[RejectState]
    checked: bool
    drift: list[str]


@dataclass(frozen=True)
class ModelState:
    """The bundle that decides.

    Attributes:
        recipe: product and version; empty without products.
        promise: of the bundle's threshold, as one line.
        own_threshold: the bundle's threshold; `threshold` is the one in use.
        held_out_median: of the scores of the held-out good images; None if they are not in the bundle.
    """

    name: str
    digest: str
    recipe: str
    method: str
    preset: str
    category: str
    precision: str
    engine: str
    created: str
    threshold: float
    own_threshold: float
    promise: str
    held_out_median: float | None


@dataclass(frozen=True)
class State:
    """Everything but pictures.

    Attributes:
        at: UTC in ISO 8601.
        run: differs from that of every other run: what the page has of another one is old.
        version: of edgead.
        paused: the inspection is paused.
        may_change: a token is set, so changes are possible.
        cameras: one for each.
        ledger: totals of all cameras.
        sinks: accounts.
        model: the bundle that decides.
        bundles: names that a changeover can choose from.
    """

    at: str
    run: str
    version: str
    paused: bool
    may_change: bool
    cameras: list[CameraState]
    ledger: Figures
    sinks: list[SinkAccount]
    model: ModelState
    bundles: list[str] = field(default_factory=list)

    def to_json(self) -> bytes:
        """Return the state as JSON."""
        return to_json(self)


def to_json(value: object) -> bytes:
    """Return a dataclass with its parts as JSON."""
    return json.dumps(value, default=vars, allow_nan=False).encode()


def model_of(line: Line) -> ModelState:
    """Describe the bundle that decides."""
    inspector = line.inspector
    manifest = inspector.bundle.manifest
    return ModelState(
        name=manifest.name,
        digest=manifest.digest,
        recipe=inspector.recipe,
        method=manifest.method,
        preset=manifest.preset,
        category=manifest.category,
        precision=manifest.precision,
        engine=inspector.engine.name,
        created=manifest.created,
        threshold=inspector.threshold,
        own_threshold=manifest.threshold.value,
        promise=promise_of(manifest, inspector.threshold),
        held_out_median=statistics.median(manifest.threshold.scores) if manifest.threshold.scores else None,
    )


def promise_of(manifest: Manifest, threshold: float) -> str:
    """Return what a threshold promises, in one line. Only the bundle's own one has the promise of the bundle."""
    stored = manifest.threshold
    if threshold == stored.value:
        return stored.describe(manifest.data.unseen)
    if not stored.scores:
        return "Set for this run. The bundle has no held-out scores, so its false-reject rate is unknown."
    above = sum(score > threshold for score in stored.scores)
    text = f"Set for this run. Of {len(stored.scores)} {threshold_images(manifest.data.unseen)} {above} fail."
    return f"{text} This holds for {CONDITION}."
