"""Measure accuracy and latency of bundles (`edgead benchmark`). Needs neither torch nor onnx."""

from edgead.benchmark.comparison import benchmark
from edgead.benchmark.report import Report, Row, read_report
from edgead.benchmark.tables import to_table

__all__ = ["Report", "Row", "benchmark", "read_report", "to_table"]
