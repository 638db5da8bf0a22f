"""The register map: its registers follow one another, survive the way to the PLC, and stand in the documentation."""

from __future__ import annotations

import math
import threading
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from plc_parts import make_result

from edgead.line.outputs import register_map
from edgead.line.outputs.handshake import Handshake, Timing
from edgead.line.outputs.register_map import ACKNOWLEDGE, REGISTERS, Snapshot, from_registers, to_registers
from edgead.runtime import result

FULL = Snapshot(1, 7, 65535, 1, 5, 65535, 3, 4, 0.5, 0.25, 2**32 - 1, 1, 65536, 3, "Teil-7 ä", "bottle 3")


def test_the_registers_are_the_fields_without_gap_or_overlap() -> None:
    assert [register.name for register in REGISTERS] == [field.name for field in fields(Snapshot)]
    end = 0
    for register in (*REGISTERS, ACKNOWLEDGE):
        assert register.address == end
        end += register.words
    assert end == register_map.SIZE <= 125  # one request can read them all


def test_the_registers_hold_what_was_put_in() -> None:
    words = to_registers(FULL)
    assert len(words) == ACKNOWLEDGE.address
    assert all(0 <= word < 65536 for word in words)
    assert from_registers([*words, 9]) == FULL
    assert words[8:10] == [0x3F00, 0]  # 0.5, the high word first
    assert words[20:22] == [0x5465, 0x696C]  # "Te", "il"


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 1e300, -1e300])
def test_any_score_can_be_shown(score: float) -> None:
    shown = from_registers(to_registers(replace(FULL, score=score))).score
    assert math.isnan(shown) if math.isnan(score) else shown == math.copysign(math.inf, score)


def test_the_plc_finds_a_score_above_the_threshold_where_edgead_does() -> None:
    """A threshold of 64 bits was rounded to 32: the PLC compared a FAIL of 0.8 with 0.8."""
    scores = np.random.default_rng(0).normal(0, 10, 200).astype(np.float32)
    for score in map(float, [*scores, np.float32(0.8), 0.0, np.float32(3.402e38), np.float32(-3.402e38)]):
        near = [score, float(str(np.float32(score))), math.nextafter(score, 1e300), math.nextafter(score, -1e300)]
        for threshold in (*near, 1e300, -1e300, 1e-300, -1e-300):
            shake = Handshake(Timing(ack=False))
            shake.show(make_result(score=score, threshold=threshold), threading.Event())
            shown = from_registers(to_registers(shake.snapshot()))
            assert (shown.score > shown.threshold) == (score > threshold)


def test_a_text_is_cut_between_characters() -> None:
    assert register_map.cut("ä" * 30) == "ä" * 20
    assert register_map.cut("x" + "ä" * 30) == "x" + "ä" * 19
    assert register_map.cut("caf\udce9") == r"caf\xe9"


def test_every_cause_has_a_code_of_its_own() -> None:
    assert set(result.CAUSES) <= set(register_map.CAUSES)
    codes = list(register_map.CAUSES.values())
    assert len(set(codes)) == len(codes)
    assert not {0, register_map.OTHER} & set(codes)


def test_codes_are_told_as_words() -> None:
    told = register_map.describe(FULL)
    assert (told["verdict"], told["cause"], told["part_id"]) == ("UNKNOWN", "stale", "Teil-7 ä")
    assert register_map.describe(replace(FULL, cause=99))["cause"] == "other"
    assert register_map.describe(Snapshot())["verdict"] is None


def table_of(name: str) -> str:
    """Return what stands between two marks of docs/plc.md."""
    page = (Path(__file__).parents[3] / "docs" / "plc.md").read_text(encoding="utf-8")
    return page.split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->")[0].strip()


def test_the_documentation_has_this_map() -> None:
    rows = ["| register | name | type | meaning |", "|---|---|---|---|"]
    for one in (*REGISTERS, ACKNOWLEDGE):
        place = f"{one.address}–{one.address + one.words - 1}" if one.words > 1 else str(one.address)
        rows.append(f"| {place} | `{one.name}` | {one.kind} | {one.meaning} |")
    assert table_of("registers") == "\n".join(rows)


def test_the_documentation_has_these_codes() -> None:
    codes = ", ".join(f"{code} `{cause}`" for cause, code in register_map.CAUSES.items())
    assert " ".join(table_of("causes").split()) == f"{codes}, {register_map.OTHER} any other."
