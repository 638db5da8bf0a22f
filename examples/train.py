"""Train, export and measure from Python.

python examples/train.py DATA OUT [SETTING…]

DATA: a folder in MVTec AD form. Needs pip install 'edgead[train,benchmark]'.
"""

import sys
from pathlib import Path

from edgead.benchmark import benchmark, to_table
from edgead.console import Terminal
from edgead.export import export
from edgead.train import train

if len(sys.argv) < 3:
    sys.exit("Usage: " + __doc__.splitlines()[2])
data, out, settings = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
[run] = train("draem", data, preset="nano", settings=settings, out=out / "run", console=Terminal())
bundle = export(run, out=out / "model.edgead", false_reject=0.01)
report = benchmark([bundle.path], data, rounds=5, out=out / "report")
print(to_table(report.table))
print(report.page)
