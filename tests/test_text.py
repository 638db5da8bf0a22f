"""Shares as text."""

from __future__ import annotations

import pytest

from edgead.text import percent


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        (0.9996, 1, "99.96"),  # was 100.0: one defect in 2,500 is missed
        (0.9963, 0, "99.6"),  # was 100, as the lower end of an interval
        (0.0037, 0, "0.4"),
        (0.0003, 1, "0.03"),
        (1e-7, 2, "0.00001"),
        (0.995, 1, "99.5"),
        (1.0, 1, "100.0"),
        (1 - 1e-13, 1, "100.0"),  # rounding of a mean
        (0.0, 0, "0"),
        (1e-13, 0, "0"),
    ],
)
def test_only_nothing_is_0_percent_and_only_all_is_100(share: float, digits: int, text: str) -> None:
    assert percent(share, digits) == text
