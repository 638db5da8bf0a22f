"""A float32 and an INT8 bundle of every method, as small as they can be. Their decisions mean nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from level_bundle import teaching
from tiny import SMALL

from edgead.demo import make_parts
from edgead.export import export
from edgead.export.options import Budget, PrecisionOptions
from edgead.train import train
from edgead.train.methods import METHODS, get_method

PRECISIONS = {"fp32": "fp32", "int8": PrecisionOptions("int8", budget=Budget(1.0, 1.0))}


def make_bundles(folder: Path) -> Iterator[Path]:
    """Write sample parts to ``pictures`` and yield each bundle beside it when it is there.

    Backbones keep their random weights, so that none is downloaded.
    """
    parts = make_parts(folder / "parts", train=12, good=4, bad=2)
    (folder / "pictures").mkdir()
    for number, picture in enumerate((*(parts / "test").glob("*/000.png"), *(parts / "test").glob("*/001.png"))):
        picture.rename(folder / "pictures" / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        for name in METHODS:
            patch.setattr(get_method(name), "load_pretrained", lambda self, weights: None)
        for name in METHODS:
            settings = (*SMALL[name], *teaching(name, folder / "teacher"))
            [run] = train(name, parts, preset="nano", settings=settings, out=folder / "runs" / name)
            for precision, options in PRECISIONS.items():
                yield export(run, out=folder / f"{name}-{precision}.edgead", precision=options).path
