"""The register map: what a PLC reads. Modbus has it as registers, OPC UA as variables of the same names.

A register has 16 bits. Numbers of 32 bits take two registers, the high word first; text has two bytes a register, the
first one high, in UTF-8, filled with zeros.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from edgead.decision import Verdict
from edgead.errors import SinkError
from edgead.text import valid

VERSION = 1
"""Of this map. It changes when a register changes its place or meaning."""
VERDICTS = {None: 0, Verdict.PASS: 1, Verdict.FAIL: 2, Verdict.UNKNOWN: 3}
"""Codes of verdicts; 0 is none."""
CAUSES = {
    "unreadable": 1,
    "lost": 2,
    "silent": 3,
    "stale": 4,
    "late": 5,
    "black": 6,
    "blurred": 7,
    "resized": 8,
    "untrained": 9,
    "frozen": 10,
    "paused": 11,
    "failed": 12,
    "score": 13,
    "drift": 14,
    "misplaced": 15,
    "no_frame": 20,
    "too_close": 22,
    "stopped": 23,
}
"""Codes of causes; 0 is none, `OTHER` is a cause that has no code."""
OTHER = 99
MISSING_ACKNOWLEDGEMENT, STALLED, ID_CUT, CAMERA_REPORTED = 1, 2, 4, 8
"""Bits of `status`."""
LARGEST = float(np.finfo(np.float32).max)
"""Highest number that a FLOAT32 can hold."""
_FORMATS = {"UINT16": "H", "UINT32": "I", "FLOAT32": "f"}


@dataclass(frozen=True)
class Snapshot:
    """What the PLC sees at one moment. `REGISTERS` describes the fields."""

    version: int = VERSION
    session: int = 0
    heartbeat: int = 0
    valid: int = 0
    status: int = 0
    sequence: int = 0
    verdict: int = 0
    cause: int = 0
    score: float = 0.0
    threshold: float = 0.0
    passed: int = 0
    failed: int = 0
    unknown: int = 0
    unacknowledged: int = 0
    part_id: str = ""
    recipe: str = ""


@dataclass(frozen=True)
class Register:
    """One entry of the map.

    Attributes:
        name: a field of `Snapshot`, or ``acknowledge``.
        address: of its first register, from the base of the map.
        kind: ``UINT16``, ``UINT32``, ``FLOAT32`` or ``STRING``.
        words: how many registers it takes.
        meaning: for people.
    """

    name: str
    address: int
    kind: str
    words: int
    meaning: str


REGISTERS = (
    Register("version", 0, "UINT16", 1, "version of this map: 1"),
    Register("session", 1, "UINT16", 1, "changes at each start of edgead, never 0"),
    Register("heartbeat", 2, "UINT16", 1, "counts up while `valid` is 1 (0 follows 65535); otherwise stands still"),
    Register("valid", 3, "UINT16", 1, "1: edgead runs and decides. 0: do not trust any other register"),
    Register(
        "status",
        4,
        "UINT16",
        1,
        "sum of 1 acknowledgement missing, 2 stalled, 4 `part_id` cut, 8 camera silent or lost",
    ),
    Register("sequence", 5, "UINT16", 1, "number of the result (1 follows 65535); changes before `verdict` is set"),
    Register("verdict", 6, "UINT16", 1, "0 none, 1 PASS, 2 FAIL, 3 UNKNOWN; 0 again when acknowledged or expired"),
    Register("cause", 7, "UINT16", 1, "why the verdict is UNKNOWN, one of the codes below; 0 none"),
    Register("score", 8, "FLOAT32", 2, "score of the result; NaN if nothing was inferred"),
    Register("threshold", 10, "FLOAT32", 2, "a score above it fails"),
    Register("passed", 12, "UINT32", 2, "results with PASS since the start"),
    Register("failed", 14, "UINT32", 2, "results with FAIL since the start"),
    Register("unknown", 16, "UINT32", 2, "results with UNKNOWN since the start"),
    Register("unacknowledged", 18, "UINT32", 2, "results that were not acknowledged in time"),
    Register("part_id", 20, "STRING", 20, "id of the part, or of the result without parts; at most 40 bytes"),
    Register("recipe", 40, "STRING", 20, "recipe (product and version), or name of the bundle; at most 40 bytes"),
)
"""What edgead writes."""
ACKNOWLEDGE = Register("acknowledge", 60, "UINT16", 1, "the PLC writes the `sequence` that it has handled")
"""What the PLC writes."""
SIZE = ACKNOWLEDGE.address + ACKNOWLEDGE.words
ADDRESSES = {register.name: register.address for register in (*REGISTERS, ACKNOWLEDGE)}


def to_registers(snapshot: Snapshot) -> list[int]:
    """Return what edgead writes, `ACKNOWLEDGE.address` values from 0 to 65535."""
    return [word for register in REGISTERS for word in _encode(register, getattr(snapshot, register.name))]


def from_registers(words: Sequence[int]) -> Snapshot:
    """Return what the registers mean; further registers are ignored."""
    return Snapshot(**{register.name: _decode(register, words) for register in REGISTERS})


def refuse_foreign(snapshot: Snapshot) -> None:
    """Refuse registers that hold something else than this map. Those that nobody has written yet are all 0.

    Raises:
        SinkError: they are of another device, or of another version.
    """
    empty = not (snapshot.version or snapshot.valid or snapshot.verdict)
    if not empty and (snapshot.version != VERSION or snapshot.verdict not in VERDICTS.values()):
        raise SinkError(
            f"These are no registers of edgead (version {snapshot.version}, verdict {snapshot.verdict}). "
            "Check the address and ?base="
        )


def at_most(value: float) -> float:
    """Return the largest number of 32 bits that is not above a number.

    A score, which has 32 bits, is above both or neither. A rounded threshold could be equal to the score of a FAIL.
    """
    rounded = float(np.float32(_float32(value)))
    return float(np.nextafter(np.float32(rounded), np.float32(-np.inf))) if rounded > value else rounded


def cut(text: str, size: int = 40) -> str:
    """Return the beginning of a text that fits into so many bytes of UTF-8, without half a character."""
    return valid(text).encode()[:size].decode(errors="ignore")


def describe(snapshot: Snapshot) -> dict[str, Any]:
    """Return the fields by name, with words in place of the codes of verdict and cause."""
    values = {field.name: getattr(snapshot, field.name) for field in fields(snapshot)}
    verdict = next((word.value for word, code in VERDICTS.items() if word and code == snapshot.verdict), None)
    cause = next((word for word, code in CAUSES.items() if code == snapshot.cause), "other" if snapshot.cause else None)
    return {**values, "verdict": verdict, "cause": cause}


def _encode(register: Register, value: Any) -> list[int]:
    size = 2 * register.words
    if register.kind == "STRING":
        data = cut(value, size).encode().ljust(size, b"\0")
    elif register.kind == "FLOAT32":
        data = struct.pack(">f", _float32(value))
    else:
        data = struct.pack(f">{_FORMATS[register.kind]}", value % (1 << 8 * size))
    return list(struct.unpack(f">{register.words}H", data))


def _float32(value: float) -> float:
    """Return a number that 32 bits can hold; one that is too large becomes infinite."""
    if abs(value) <= LARGEST or math.isnan(value):
        return value
    return math.copysign(math.inf, value)


def _decode(register: Register, words: Sequence[int]) -> Any:
    data = struct.pack(f">{register.words}H", *words[register.address : register.address + register.words])
    if register.kind == "STRING":
        return data.rstrip(b"\0").decode(errors="replace")
    return struct.unpack(f">{_FORMATS[register.kind]}", data)[0]
