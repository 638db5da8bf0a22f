"""Score archives of images on many cores or machines: Ray Data (`edgead predict --ray`), Spark, pandas.

Needs ``pip install 'edgead[cpu,ray]'``; `Scorer` alone needs pandas and an inference engine.
"""

from edgead.archive.scorer import COLUMNS, SPARK_SCHEMA, Scorer

__all__ = ["COLUMNS", "SPARK_SCHEMA", "Scorer"]
