"""edgead: visual anomaly detection from photographs of good parts to a decision on every frame.

import edgead

inspector = edgead.load("bottle.edgead")
result = inspector.inspect(frame)  # frame: (H, W, 3) uint8 BGR
print(result.verdict, result.score)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgead.telemetry import turn_off

turn_off()

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgead.decision import Verdict as Verdict
    from edgead.errors import EdgeadError as EdgeadError
    from edgead.images import with_depth as with_depth
    from edgead.runtime.inspector import Inspector as Inspector
    from edgead.runtime.inspector import load as load
    from edgead.runtime.result import Result as Result

_WHERE = {
    "EdgeadError": "edgead.errors",
    "Inspector": "edgead.runtime.inspector",
    "Result": "edgead.runtime.result",
    "Verdict": "edgead.decision",
    "load": "edgead.runtime.inspector",
    "with_depth": "edgead.images",
}
__all__ = sorted([*_WHERE, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'edgead' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)
