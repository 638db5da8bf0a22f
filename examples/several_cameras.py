"""Several cameras, one engine. Each camera has a name and its own account.

python examples/several_cameras.py BUNDLE NAME=SOURCE…
"""

import sys

import edgead
from edgead.runtime.stream import Stream

if len(sys.argv) < 3:
    sys.exit("Usage: " + __doc__.splitlines()[2])
cameras = dict(argument.split("=", 1) for argument in sys.argv[2:])
with edgead.load(sys.argv[1]) as inspector, Stream(inspector, cameras) as stream:
    for result in stream:
        print(result.source_id, result.frame_id, result.verdict.value)
for name, account in stream.ledger.snapshot()["sources"].items():
    print(name, "passed", account["passed"], "failed", account["failed"], "unknown", account["unknown"])
