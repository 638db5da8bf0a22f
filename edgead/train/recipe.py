"""How a run departs from the published training: shown at its start, kept in the run and in its bundles' manifests."""

from __future__ import annotations

import dataclasses

from edgead.console import Console
from edgead.train.configuration import as_setting
from edgead.train.estimate import Estimate
from edgead.train.method import Method
from edgead.train.run_config import RunConfig

PUBLISHED_TEXTURES = "5,640 images of the DTD"


def departures(run: RunConfig, method: Method, textures: int, unfound: int = 0) -> list[str]:
    """Describe in a few words each how a run departs from the published training.

    Args:
        run: its configuration, with the images that could be read.
        method: configured.
        textures: pictures that fill synthetic anomalies.
        unfound: good images on which no part was found by its brightness.
    """
    return [
        *_data(run, textures, unfound, method),
        *_settings(method),
        *_numerics(run),
        *method.departures(),
        *_frames(method),
    ]


def _data(run: RunConfig, textures: int, unfound: int, method: Method) -> list[str]:
    found = []
    if run.epoch_images > run.trained_on:
        held_out = run.epoch_images - run.trained_on
        found.append(
            f"{held_out} of {run.epoch_images} good images are held out for the threshold, and not trained on "
            "(published: none). Put other good images into validation/good to train on all"
        )
    if run.stored_geometry:
        found.append(f"images are seen as: {run.geometry.describe()} (published: the whole image, stretched)")
    if not textures and method.takes_textures:
        found.append(f"anomalies are filled with procedural textures (published: {PUBLISHED_TEXTURES}; --textures DIR)")
    elif textures:
        found.append(
            f"anomalies are filled with {textures:,} images of {run.textures} (published: {PUBLISHED_TEXTURES})"
        )
    if unfound:
        found.append(f"on {unfound} of {run.trained_on} images no part was found: anomalies go everywhere there")
    if method.takes_donors and not run.donors:
        found.append("defects are random mixtures (published: learned from other products, --donor)")
    return found


def _settings(method: Method) -> list[str]:
    published, found = dataclasses.asdict(method.published()), []
    for name, value in dataclasses.asdict(method.config).items():
        if value != published[name]:
            usual = (
                "computed from the epochs"
                if name == "steps" and not published[name]
                else as_setting(name, published[name])
            )
            found.append(f"{name} is {as_setting(name, value)} (published: {usual})")
    return found


def _numerics(run: RunConfig) -> list[str]:
    if run.precisions == "auto":  # chosen when a few steps have been measured
        return []
    if isinstance(run.precisions, str):
        return [] if run.precisions == "no" else [_mixed(run.precisions)]
    lowered = [stage for stage, precision in run.precisions.items() if precision == "bf16"]
    if len(lowered) == len(run.precisions):
        return [_mixed("bf16")] if lowered else []
    return [_mixed(f"bf16 in {', '.join(lowered)}")] if lowered else []


def _mixed(precision: str) -> str:
    return f"mixed precision {precision} (published: float32)"


def choose_precisions(run: RunConfig, estimate: Estimate, console: Console) -> RunConfig:
    """Store the measured precisions in a run and report them; anything but float32 is a departure."""
    run = dataclasses.replace(run, stage_precisions=dict(estimate.precisions))
    departed = _numerics(run)
    console.say(f"{departed[0].capitalize() if departed else 'Mixed precision: none'}: {estimate.why}")
    return dataclasses.replace(run, departures=(*run.departures, *departed))


def _frames(method: Method) -> list[str]:
    if method.official is None:
        return []
    return [f"images are resized by averaging areas (published: {method.official.resize})"]
