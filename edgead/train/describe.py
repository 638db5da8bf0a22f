"""What is to be known of the methods: for `edgead methods`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from typing import Any

from edgead.train.configuration import as_setting, configure
from edgead.train.method import Method
from edgead.train.method_config import MethodConfig, steps_in_epoch
from edgead.train.methods import METHODS, get_method

TOLD = ("weights", "published", "training", "protocol", "localises", "needs", "presets")
EXAMPLE = 200
"""Good images that a schedule is told for."""
WIDTH = 110


def describe() -> list[dict[str, Any]]:
    """Return what is to be known of each method, as JSON values.

    ``schedules`` has, for each preset, the optimiser steps of a training with 200 good images; ``settings`` has, for
    each setting, its value in each preset and its meaning.
    """
    return [_describe_one(get_method(name)) for name in METHODS]


def as_text(entry: dict[str, Any], settings: bool) -> str:
    """Return one entry of `describe` as lines for a person, with its settings or without."""
    lines = [f"{entry['name']}: {entry['title']} ({entry['paper']})"]
    lines += [f"  {key:<12} {entry[key]}" for key in TOLD if entry[key]]
    for when in ("export", "resume"):
        if open_ones := entry[f"{when}_settings"]:
            lines.append(f"  {f'at {when}':<12} --set {', '.join(open_ones)}")
    if settings:
        lines += [line for name, setting in entry["settings"].items() for line in _setting_lines(name, setting)]
    return "\n".join(lines)


def _describe_one(method: type[Method]) -> dict[str, Any]:
    card, (height, width) = method.card, method.Config().size
    presets = {preset: dataclasses.asdict(configure(method, preset)) for preset in method.presets}
    meanings = _meanings(method.Config)
    schedules = {preset: _schedule(configure(method, preset)) for preset in method.presets}
    return {
        "name": method.name,
        "title": card.title,
        "paper": card.paper,
        "weights": f"{card.parameters:g} M, {card.macs:g} GMAC per {height}×{width} image",
        "published": card.published,
        "protocol": card.reporting_note,
        "localises": card.localises,
        "needs": card.needs,
        "presets": ", ".join(presets),
        "training": f"{schedules['paper']['text']} (paper, of {EXAMPLE} good images)",
        "schedules": schedules,
        "export_settings": list(method.export_settings),
        "resume_settings": list(method.resume_settings),
        "settings": {
            field.name: {
                "presets": {preset: values[field.name] for preset, values in presets.items()},
                "meaning": meanings[field.name],
            }
            for field in dataclasses.fields(method.Config)
        },
    }


def _schedule(config: MethodConfig) -> dict[str, Any]:
    epoch = steps_in_epoch(EXAMPLE, config.batch_size)
    return {f"steps_for_{EXAMPLE}_images": config.total_steps(epoch), "text": config.schedule(epoch)}


def _meanings(config: type[MethodConfig]) -> dict[str, str]:
    """Return the texts that stand below the fields in the source: Python keeps them nowhere else."""
    meanings = {}
    for part in reversed(config.__mro__[:-1]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in zip(definition.body, definition.body[1:]):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    meanings[name] = inspect.cleandoc(words).replace("\n", " ")
    return meanings


def _setting_lines(name: str, setting: dict[str, Any]) -> list[str]:
    values = {preset: as_setting(name, value) for preset, value in setting["presets"].items()}
    if len(set(values.values())) == 1:
        shown = values.popitem()[1]
    else:
        shown = ", ".join(f"{value} ({preset})" for preset, value in values.items())
    meaning = textwrap.wrap(setting["meaning"], WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return [f"  {name} = {shown}", *meaning]
