"""Models trained elsewhere: third-party ONNX, anomalib's exports, checkpoints of the published reference code."""

import edgead.export.graph  # noqa: F401  first: it reports what to install if ONNX is missing
