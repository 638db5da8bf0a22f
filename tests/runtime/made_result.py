"""A result as a sink gets it, and what became of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np

from edgead.decision import Verdict
from edgead.runtime.result import Result

FRAME = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def make_result(number: int = 0, verdict: Verdict = Verdict.FAIL, frame: Any = FRAME) -> Result:
    return Result(
        score=1.5,
        verdict=verdict,
        reason="made for a test",
        threshold=1.0,
        anomaly_map=np.eye(8, dtype=np.float32),
        mask_threshold=0.5,
        frame_size=(0, 0) if frame is None else frame.shape[:2],
        source_id="rtsp://cam/line",
        frame_id=number,
        captured_at=f"2025-01-02T03:04:{number % 60:02d}.{number // 60:03d}+00:00",
        frame=frame,
    )


def adds_up(account: dict[str, Any]) -> bool:
    fates = ("taken", "failed", "dropped", "waiting")
    return bool(account["offered"] == sum(account[fate] for fate in fates))


def rows_of(path: Path) -> list[int]:
    database = sqlite3.connect(path)
    numbers = [row[0] for row in database.execute("SELECT frame_id FROM results ORDER BY id")]
    database.close()
    return numbers
