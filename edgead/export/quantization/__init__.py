"""Lower precision: INT8 and float16 graphs, calibration, the accuracy gate, mixed precision, precision selection."""

import edgead.export.graph  # noqa: F401  first: it reports what to install if ONNX is missing
