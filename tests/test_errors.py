"""Messages for unknown names; optional packages that are missing, broken, or interrupted while they load."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgead.errors import MissingDependencyError, require, require_installed, unknown


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Dream", "Unknown method 'Dream'. Did you mean 'draem'? Available: draem, AAND."),
        ("aan", "Unknown method 'aan'. Did you mean 'AAND'? Available: draem, AAND."),
        ("gpu", "Unknown method 'gpu'. Available: draem, AAND."),
    ],
)
def test_an_unknown_name_lists_the_names_that_exist(name: str, message: str) -> None:
    assert unknown("method", name, ("draem", "AAND")) == message


def test_an_absent_package_comes_with_its_cure() -> None:
    for call in (lambda: require("no_such_package", "cpu"), lambda: require_installed(("no_such_package",), "cpu")):
        with pytest.raises(MissingDependencyError, match=r"(?s)'no_such_package'.*pip install 'edgead\[cpu\]'"):
            call()


@pytest.mark.parametrize(
    ("body", "expected", "message"),
    [
        (
            "raise ImportError('libGL.so.1: cannot open shared object file')",
            MissingDependencyError,
            "installed but .*libGL",
        ),
        (
            "raise ImportError('numpy.core.multiarray failed to import')",
            MissingDependencyError,
            r"(?s)built for NumPy 1, not \d.*pip install 'numpy<2'",
        ),
        ("raise ImportError('initialization failed') from KeyboardInterrupt()", KeyboardInterrupt, None),
        ("raise KeyboardInterrupt", KeyboardInterrupt, None),
    ],
)
def test_a_package_that_fails_to_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, expected: type[BaseException], message: str | None
) -> None:
    (tmp_path / "broken_package.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(expected, match=message):
        require("broken_package", "cpu")
    assert "broken_package" not in sys.modules
