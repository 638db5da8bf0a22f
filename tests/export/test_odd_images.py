"""One image among the good ones that is none must not set a limit without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from listener import Listener
from tiny import TINY

from edgead.datasets import Frames
from edgead.decision import conformal_threshold
from edgead.export.odd_images import stand_apart, warn_of_odd_images
from edgead.images import encode_png
from edgead.train import run_images, train
from edgead.train.materials import report_dark

GOOD = np.linspace(0.2, 0.3, 24)
NAMES = tuple(Path(f"{number:02}.png") for number in range(24))


def frames_with_black(*numbers: int) -> Frames:
    pictures = np.full((24, 8, 8, 3), 120, np.uint8)
    pictures[list(numbers)] = 2
    return Frames(pictures, NAMES, (), "", ((8, 8),) * 24)


def warnings_of(scores: np.ndarray, bound: float = 0.01, black: tuple[int, ...] = ()) -> list[str]:
    heard = Listener()
    warn_of_odd_images(frames_with_black(*black), scores, conformal_threshold(scores, bound).value, heard)
    return heard.said


@pytest.mark.parametrize(
    ("scores", "apart"),
    [
        (GOOD, 0),
        ([*GOOD, 0.9], 1),
        ([*GOOD, 0.9, 1.4], 2),
        ([*GOOD, 0.39], 0),
        ([*-GOOD, 3.0], 1),
        ([*GOOD, 0.9, 0.9, 0.9, 0.9], 0),
        ([0.5] * 20 + [0.5000001], 0),
        ([0.0] * 20 + [0.7], 1),
        ([0.1, 0.2, 9.0], 0),
    ],
)
def test_scores_that_stand_apart(scores: list[float], apart: int) -> None:
    assert stand_apart(scores) == apart


def test_normal_scores_do_not_stand_apart() -> None:
    rng = np.random.default_rng(0)
    assert sum(stand_apart(rng.normal(size=20)) > 0 for _ in range(300)) <= 3


def test_an_image_that_sets_the_threshold_alone_is_named() -> None:
    scores = GOOD.copy()
    scores[7] = 0.9
    [line] = warnings_of(scores)
    assert "1 of 24 held-out good images: 07.png." in line
    assert "score 0.2 to 0.3." in line
    assert warnings_of(GOOD) == []


def test_an_odd_image_above_the_threshold_is_harmless() -> None:
    scores = GOOD.copy()
    scores[7] = 0.9
    assert warnings_of(scores, bound=0.1) == []


def test_a_black_image_among_others_is_named() -> None:
    [line] = warnings_of(GOOD, black=(3,))
    assert "1 of 24 held-out good images are black: 03.png." in line
    assert warnings_of(GOOD, black=tuple(range(24))) == []  # parts that look like this


@pytest.mark.parametrize(
    ("black", "bit_depth", "said"),
    [
        ((), 16, ""),
        ((3, 5), 16, "2 of 24 images are almost black, the others are not: 03.png, 05.png."),
        ((3, 5), 12, "2 of 24 images are almost black"),
        (tuple(range(24)), 16, "the images are almost black. If they hold 10 or 12 bits in 16, add --bit-depth"),
        (tuple(range(24)), 12, ""),
    ],
)
def test_dark_images_do_not_hide_among_others(black: tuple[int, ...], bit_depth: int, said: str) -> None:
    heard = Listener()
    report_dark(frames_with_black(*black), "image", bit_depth, heard)
    assert bool(heard.said) == bool(said)
    assert said in "".join(heard.said)


def of_sizes(*sizes: tuple[int, int]) -> Frames:
    names = tuple(Path(f"{number}.png") for number in range(len(sizes)))
    return Frames(np.zeros((len(sizes), 4, 4, 3), np.uint8), names, (), "", sizes)


def shaped(*sizes: tuple[int, int]) -> str:
    return of_sizes(*sizes).describe_odd_shapes()


def test_an_image_of_another_shape_is_named() -> None:
    said = shaped(*[(96, 128)] * 9, (128, 96))
    assert "1 of 10 images differ from the others in their aspect ratio: 9.png." in said
    assert "from 0.75 to 1.33" in said
    assert shaped(*[(96, 128)] * 9, (192, 256)) == ""  # another resolution
    assert shaped(*[(96, 128)] * 5, *[(128, 96)] * 5) == ""  # two views
    assert shaped((96, 128), (128, 96)) == ""


def test_a_held_out_image_of_a_shape_that_was_not_trained_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its score could set the threshold, and the training images, which were looked at alone, all had one shape."""
    for number in range(9):
        shape = (64, 100) if number == 8 else (64, 64)
        place = tmp_path / ("validation" if number > 5 else "train") / "good" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (*shape, 3), dtype=np.uint8)
        place.write_bytes(encode_png(noise))
    heard = Listener()
    monkeypatch.setattr(run_images, "load_foreground_masks", lambda *_: 1 / 0)  # it has read the images: enough
    with pytest.raises(ZeroDivisionError):
        train("draem", tmp_path, preset="nano", settings=TINY, out=tmp_path / "run", device="cpu", console=heard)
    [said] = [line for line in heard.said if "aspect ratio" in line]
    assert "1 of 3 held-out images have an aspect ratio that no training image has" in said
    assert "validation/good/8.png" in said


def test_held_out_images_are_compared_with_the_range_of_the_training() -> None:
    trained = of_sizes((96, 128), (128, 96))
    assert of_sizes((96, 96), (192, 256), (97, 128)).describe_untrained_shapes(trained) == ""
    assert "2 of 3" in of_sizes((96, 96), (50, 100), (100, 50)).describe_untrained_shapes(trained)
