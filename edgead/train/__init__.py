"""From photographs of good parts to a checkpoint. Needs torch: ``pip install 'edgead[train]'``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgead.errors import require_installed

if TYPE_CHECKING:
    from edgead.train.training import resume, train

__all__ = ["resume", "train"]

require_installed(("torch", "accelerate", "safetensors", "PIL", "cv2"), "train")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("edgead.train.training"), name)
