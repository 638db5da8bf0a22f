from __future__ import annotations

import re
import time

import pytest

from edgead.console import Terminal


def test_in_a_log_a_line_now_and_then_stands_for_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal(line_every=0.0).bar("train", 3) as step:
        step("loss 0.5")
        step("")
        step("the end needs no line")
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"train  1/3  0:00:00 left  loss 0\.5", first)
    assert second == "train  2/3  0:00:00 left"


def test_the_first_line_comes_only_after_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in Terminal().track("reading")(range(100)):
        pass
    assert capsys.readouterr().err == ""


def test_in_a_log_the_clock_tells_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal(line_every=0.01).clock("building") as show:
        show("3 of 9 layers")
        for _ in range(500):
            time.sleep(0.01)
            told = capsys.readouterr().err
            if told:
                break
    assert told.splitlines()[-1] == "building  0:00  3 of 9 layers"
