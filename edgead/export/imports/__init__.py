"""Models trained elsewhere: third-party ONNX, anomalib's exports, checkpoints of the published reference code."""

import edgead.export.graph  # noqa: F401  first: it says what to install where ONNX is missing
