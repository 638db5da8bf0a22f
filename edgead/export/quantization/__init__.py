"""Lower precision: INT8 and float16 graphs, calibration, the accuracy gate, mixed precision, precision selection."""

import edgead.export.graph  # noqa: F401  first: it says what to install where ONNX is missing
