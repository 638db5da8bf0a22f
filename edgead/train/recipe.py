"""What of a run is not as published: told in its first lines, kept in the run and in the bundle's manifest."""

from __future__ import annotations

import dataclasses

from edgead.train.checkpoint import RunConfig
from edgead.train.method import Method, as_setting

PUBLISHED_TEXTURES = "5,640 pictures of the DTD"


def departures(run: RunConfig, method: Method, textures: int, unfound: int = 0) -> list[str]:
    """Say in a few words each what of the published training a run does otherwise.

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
    if run.epoch_images > len(run.normals):
        held_out = run.epoch_images - len(run.normals)
        found.append(
            f"{held_out} of {run.epoch_images} good images are held out for the threshold, and not trained on "
            "(published: none). Put other good images into validation/good to train on all"
        )
    if not textures and method.takes_textures:
        found.append(f"anomalies are filled with procedural textures (published: {PUBLISHED_TEXTURES}; --textures DIR)")
    elif textures:
        found.append(
            f"anomalies are filled with {textures:,} pictures of {run.textures} (published: {PUBLISHED_TEXTURES})"
        )
    if unfound:
        found.append(f"on {unfound} of {len(run.normals)} images no part was found: anomalies go everywhere there")
    if method.card.protocol and not run.sources:
        found.append("defects are random mixtures (published: learned from other products, --source)")
    return found


def _settings(method: Method) -> list[str]:
    published, found = dataclasses.asdict(method.published()), []
    for name, value in dataclasses.asdict(method.config).items():
        if value != published[name]:
            usual = (
                "as the epochs say" if name == "steps" and not published[name] else as_setting(name, published[name])
            )
            found.append(f"{name} is {as_setting(name, value)} (published: {usual})")
    return found


def _numerics(run: RunConfig) -> list[str]:
    return [] if run.precision == "no" else [f"mixed precision {run.precision} (published: float32)"]


def _frames(method: Method) -> list[str]:
    if method.official is None:
        return []
    return [f"images are resized by averaging areas (published: {method.official.resize})"]
