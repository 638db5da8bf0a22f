"""``--budget 30m``: the published schedule, scaled to what fits into a time.

The steps of every stage shrink by one factor, and the learning rates' milestones with them: they are shares of the
steps.
"""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction

from edgead.errors import ConfigError
from edgead.train.estimate import Estimate
from edgead.train.method import Method
from edgead.train.method_config import MethodConfig
from edgead.train.run_config import RunConfig

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
RESERVE = 0.03
"""Share of a budget that is left for saving, curves, and an estimate that was too short."""
FEWEST = 2
"""Steps that every stage must have."""


def read_budget(text: str) -> float:
    """Return the seconds of ``90s``, ``30m``, ``1.5h`` or ``2d``.

    Raises:
        ConfigError: it is something else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip().lower())
    seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not seconds:
        raise ConfigError(f"--budget takes a time such as 90s, 30m or 2h, not '{text}'.")
    return seconds


class BudgetError(ConfigError):
    """A budget in which this machine trains next to nothing."""


def scale_schedule(config: MethodConfig, epoch: Fraction, share: float, learning: bool) -> MethodConfig:
    """Scale the steps of all stages; a `share` of 1 or more changes nothing.

    Args:
        config: with the schedule that is scaled.
        epoch: optimiser steps in an epoch.
        share: of the steps that fit.
        learning: whether defects of other products are learned first; those stages are scaled, too.

    Raises:
        BudgetError: not even two steps of each stage fit.
    """
    if share >= 1:
        return config
    names = config.step_settings[1:] if learning else ()
    steps: dict[str, int] = {name: int(getattr(config, name) * share) for name in names}
    steps["steps"] = int(config.total_steps(epoch) * share)
    if min(steps.values()) < FEWEST:
        raise BudgetError(
            "This --budget is too short for even a few steps. Allow more time, or choose a smaller --preset."
        )
    return config.replaced(**steps)


def fitting_share(estimate: Estimate, budget: float) -> float:
    """Return the share of a schedule's steps that fits into so many seconds, those that are over already included."""
    left = budget * (1 - RESERVE) - estimate.elapsed - estimate.preparing
    stepping = estimate.seconds - estimate.preparing
    return max(0.0, left / stepping) if stepping > 0 else 1.0


def scale_run(run: RunConfig, method: Method, estimate: Estimate, learning: bool) -> tuple[RunConfig, Estimate]:
    """Scale a run's schedule, that of `published_schedule`, to its budget; the method is given it.

    Args:
        run: with a budget.
        method: whose configuration is changed.
        estimate: of the whole schedule.
        learning: see `scale_schedule`.

    Returns:
        The run, with its departure, and the estimate of what will be trained.
    """
    assert run.budget is not None
    epoch, share = run.steps_in_epoch, fitting_share(estimate, read_budget(run.budget))
    published = method.config.total_steps(epoch)
    method.config = scale_schedule(method.config, epoch, share, learning)
    steps = method.config.total_steps(epoch)
    departed: tuple[str, ...] = ()
    if steps < published:
        departed = (f"trained for {steps:,} of {published:,} published steps (--budget {run.budget})",)
        stepping = (estimate.seconds - estimate.preparing) * share
        scaled = estimate.preparing + stepping, round(estimate.steps * share), estimate.learning * share
        estimate = dataclasses.replace(estimate, seconds=scaled[0], steps=scaled[1], learning=scaled[2])
    departures = (*run.departures, *departed)
    return dataclasses.replace(run, config=method.config, published_steps=published, departures=departures), estimate
