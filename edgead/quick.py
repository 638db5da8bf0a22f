"""`edgead train --quick`: from ten or more photographs of good parts to a bundle within a minute on two cores.

The method is PatchCore on a small backbone, which learns in one pass. Reasons: docs/adr/0042.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgead.console import Console
from edgead.errors import CheckpointError, ConfigError
from edgead.text import typed

if TYPE_CHECKING:
    from edgead.bundle import Bundle

METHOD, PRESET = "patchcore", "nano"
DEEP = ("backbone=resnet50v2", "levels=2", "memory=2048")
"""Settings if the weights are those of resnet50v2: better and slower, and not among torchvision's downloads."""
WITHOUT_WEIGHTS, BUDGET = "draem", "20s"
"""What is trained where the backbone's weights cannot be had, and for how long."""
MOST_IMAGES = 200
"""Good images that are used at most: reading more would take more than a minute."""
HOLDOUT = 0.3
"""Share of them that is kept for the threshold: more than for a training, because a memory needs few images and a
threshold needs many."""


def train_quick(
    data: str | Path,
    *,
    settings: tuple[str, ...] = (),
    weights: str | Path | None = None,
    holdout: float = HOLDOUT,
    console: Console | None = None,
    **options: Any,
) -> list[tuple[Path, Bundle]]:
    """Train a first model and export it.

    It trains PatchCore, on the backbone that the weights are of. Without ImageNet weights it says which file to fetch,
    and trains a small DRAEM for 20 s instead.

    Args:
        data: as for `edgead.train.train`.
        settings: ``"name=value"`` overrides of PatchCore's configuration.
        weights: file of the weights of squeezenet1_1 or resnet50v2, or of the backbone that `settings` name. None: the
            weights of squeezenet1_1 are downloaded.
        holdout: share of the good images that is held out for the threshold.
        console: shows progress.
        **options: other parameters of `edgead.train.train`, but not `preset`, `budget` and `most_images`.

    Returns:
        The folder of each finished run, and its bundle in ``runs/export``.

    Raises:
        EdgeadError: see `edgead.errors`.
    """
    from edgead.export import export
    from edgead.train import train
    from edgead.train.backbones import holds_weights_of, why_no_weights
    from edgead.train.budget import BudgetError

    console = console or Console()
    method, budget, given = METHOD, None, settings
    if weights and not any(each.startswith("backbone=") for each in given) and holds_weights_of("resnet50v2", weights):
        settings = (*DEEP, *given)
    if why := why_no_weights(_backbone(settings), Path(weights) if weights else None):
        if given:
            raise CheckpointError(why)
        console.say(f"{why}\nWithout them, DRAEM is trained for {BUDGET}. It finds fewer defects than PatchCore.")
        method, budget = WITHOUT_WEIGHTS, BUDGET
    try:
        runs = train(
            method,
            data,
            preset=PRESET,
            settings=settings,
            budget=budget,
            weights=weights,
            holdout=holdout,
            most_images=MOST_IMAGES,
            console=console,
            **options,
        )
    except BudgetError as error:
        raise ConfigError(
            f"This machine is too slow or too busy to train DRAEM in {BUDGET}. Fetch the weights of PatchCore "
            f"(--weights FILE), or allow more time:\n"
            f"  edgead train --method {method} --preset {PRESET} --data {typed(data)} --budget 5m"
        ) from error
    return [(run, export(run, console=console)) for run in runs]


def _backbone(settings: tuple[str, ...]) -> str:
    from edgead.train.configuration import configure
    from edgead.train.methods import get_method

    return configure(get_method(METHOD), PRESET, settings).backbone
