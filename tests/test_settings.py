"""NAME=VALUE settings: one parser for engines, URIs and --set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from edgead.errors import ConfigError
from edgead.settings import parse_settings, split_settings


@dataclass(frozen=True)
class Example:
    count: int = 3
    rate: float = 0.5
    label: str = ""
    fast: bool = False
    hint: Literal["latency", "throughput"] = "latency"
    limit: float | None = None
    sizes: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "-7", -7),
        ("rate", "1e-3", 1e-3),
        ("label", "a=b", "a=b"),
        ("fast", "on", True),
        ("fast", "False", False),
        ("fast", "1", True),
        ("hint", "throughput", "throughput"),
        ("limit", "2", 2.0),
        ("sizes", "1, 2,3", (1, 2, 3)),
        ("sizes", "", ()),
    ],
)
def test_a_text_becomes_a_value_of_the_fields_type(name: str, text: str, value: Any) -> None:
    assert parse_settings(Example, {name: text}, "it") == {name: value}


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("count", "1.5", r"^it: count must be a whole number, not '1.5'\.$"),
        ("rate", "fast", "rate must be a number, not 'fast'"),
        ("fast", "yes", "fast must be on or off, not 'yes'"),
        ("hint", "speed", "hint must be one of latency, throughput, not 'speed'"),
        ("sizes", "1,x", "sizes must be a whole number, not '1,x'"),
        ("cuont", "1", r"^Unknown setting 'cuont' of it\. Did you mean 'count'\? Available: count, rate, "),
        ("xyz", "1", r"^Unknown setting 'xyz' of it\. Available: count, "),
    ],
)
def test_a_wrong_setting_says_what_is_allowed(name: str, text: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        parse_settings(Example, {name: text}, "it")


def test_a_setting_may_have_a_parser_of_its_own() -> None:
    def sides(text: str) -> tuple[int, ...]:
        if "x" not in text:
            raise ValueError("HEIGHTxWIDTH")
        return tuple(int(part) for part in text.split("x"))

    assert parse_settings(Example, {"sizes": "4x6"}, "it", {"sizes": sides}) == {"sizes": (4, 6)}
    with pytest.raises(ConfigError, match="sizes must be HEIGHTxWIDTH, not '4'"):
        parse_settings(Example, {"sizes": "4"}, "it", {"sizes": sides})


def test_texts_are_split_at_their_first_equals_sign() -> None:
    assert split_settings(["a=1", "b = x=y", "a=2", "c="], "NAME=VALUE") == {"a": "2", "b": "x=y", "c": ""}
    for text in ("a", "=1", ""):
        with pytest.raises(ConfigError, match="Settings are written NAME=VALUE, not"):
            split_settings([text], "NAME=VALUE")
