"""A donor, and a run that has learned from it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from learned_defects import QUICK
from once import copy_of, once

from edgead.train import train


@pytest.fixture(scope="session")
def donor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another product in MVTec AD form: 3 good images to train, 1 to test, 4 defective ones."""

    def make(sources: Path) -> None:
        rng = np.random.default_rng(0)
        counts = {"train/good": 3, "test/good": 1, "test/crack": 2, "test/hole": 2}
        for kind, count in counts.items():
            folder = sources / "tile" / kind
            folder.mkdir(parents=True)
            for index in range(count):
                cv2.imwrite(str(folder / f"{index}.png"), rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))

    return once(tmp_path_factory, "sources", make) / "tile"


@pytest.fixture(scope="session")
def transferred(parts: Path, donor: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:

    def make(folder: Path) -> None:
        train("drept", parts, preset="nano", settings=QUICK, donors=[donor], out=folder / "run")

    return copy_of(tmp_path_factory, "transferred", make) / "run"
