"""How many examples, and the same ones in every run."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

few, some, many = (
    settings(
        max_examples=count,
        deadline=None,  # a time limit would fail on a busy machine
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    for count in (10, 30, 100)
)
