"""A float32 and an INT8 bundle of every method, as small as they can be. Their decisions mean nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from level_bundle import teaching
from tiny import SMALL, TINY

from edgead.bundle import is_bundle
from edgead.demo import make_parts
from edgead.export import export
from edgead.export.options import Budget, PrecisionOptions
from edgead.images import encode_png
from edgead.train import train
from edgead.train.methods import METHODS, get_method

SETTINGS = {**SMALL, "draem": TINY}
"""After fewer steps DRAEM gives every picture the same score."""
PRECISIONS: dict[str, str | PrecisionOptions] = {
    "fp32": "fp32",
    "int8": PrecisionOptions("int8", budget=Budget(1.0, 1.0)),
}


def make_bundles(folder: Path, methods: Sequence[str] = (*METHODS,)) -> Iterator[Path]:
    """Write three sample parts and noise to ``pictures``, and yield each bundle beside it; those that exist are kept.

    Backbones keep their random weights, so that none is downloaded.
    """
    parts, pictures = folder / "parts", folder / "pictures"
    if not pictures.is_dir():
        make_pictures(make_parts(parts, train=12, good=4, bad=2), pictures)
    with pytest.MonkeyPatch.context() as patch:
        for name in METHODS:
            patch.setattr(get_method(name), "load_pretrained", lambda self, weights: None)
        for name in methods:
            for precision, options in PRECISIONS.items():
                path, run = folder / f"{name}-{precision}.edgead", folder / "runs" / name
                if not is_bundle(path):
                    if not run.is_dir():
                        settings = (*SETTINGS[name], *teaching(name, folder / "teacher"))
                        train(name, parts, preset="nano", settings=settings, out=run)
                    export(run, out=path, precision=options)
                yield path


def make_pictures(parts: Path, pictures: Path) -> None:
    """Move pictures of parts to a folder, and add one of noise, whose score is another."""
    pictures.mkdir()
    for number, picture in enumerate(sorted(parts.glob("test/*/000.png"))[:3]):
        picture.rename(pictures / f"{number}.png")
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    (pictures / "noise.png").write_bytes(encode_png(noise))
