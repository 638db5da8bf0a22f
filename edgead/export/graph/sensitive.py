"""The mark of nodes that always stay in float32."""

from __future__ import annotations

import onnx

MARK = "float32"
"""Part of a node's name, as in ``/float32/nf/Exp``."""


def is_sensitive(node: onnx.NodeProto) -> bool:
    """Tell whether a node was traced in a sensitive submodule."""
    return f"/{MARK}/" in node.name
