"""Decide on every frame of a source and act on what fails.

python examples/inspect_folder.py BUNDLE SOURCE
"""

import sys

import edgead

if len(sys.argv) < 3:
    sys.exit("Usage: " + __doc__.splitlines()[2])
with edgead.load(sys.argv[1]) as inspector:
    for result in inspector.stream(sys.argv[2]):
        print(result.verdict.value, f"{result.score:.4g}", result.path or result.frame_id)
        if result.verdict is not edgead.Verdict.PASS:
            print(f"  check this part: {result.reason}; {result.mask.sum()} pixels marked")
