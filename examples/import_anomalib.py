"""Turn an ONNX file that anomalib exported into a bundle, and try it.

python examples/import_anomalib.py MODEL.onnx GOOD-PARTS OUT.edgead

Needs pip install 'edgead[import]', neither anomalib nor PyTorch. GOOD-PARTS:
photographs that anomalib did not train on.
"""

import sys
from pathlib import Path

import edgead
from edgead.export import import_model

if len(sys.argv) < 4:
    sys.exit("Usage: " + __doc__.splitlines()[2])
model, good, out = sys.argv[1:]
bundle = import_model(model, source="anomalib", threshold_data=good, out=out)
print(bundle.path, bundle.manifest.threshold.describe(bundle.manifest.data.unseen))
with edgead.load(out) as inspector:
    for result in inspector.stream(str(next(Path(good).rglob("*.png")))):
        print(result.path, result.verdict.value, result.score)
