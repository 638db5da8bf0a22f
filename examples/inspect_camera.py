"""Decide on the frames of a camera in time, and account for every frame.

python examples/inspect_camera.py BUNDLE SOURCE

SOURCE: 0, rtsp://…, v4l2:///dev/video0, or for a try synthetic:?fps=25&frames=100
"""

import sys

import edgead
from edgead.runtime.stream import Policy, Stream

if len(sys.argv) < 3:
    sys.exit("Usage: " + __doc__.splitlines()[2])
in_time = Policy(deadline=200, on_full="drop-oldest")  # ms from exposure to decision; later is UNKNOWN
with edgead.load(sys.argv[1]) as inspector, Stream(inspector, [sys.argv[2]], in_time) as stream:
    for result in stream:
        if result.verdict is not edgead.Verdict.PASS:
            print("reject", result.frame_id, result.verdict.value, result.cause or "", result.reason)
counts = stream.ledger.snapshot()
print(counts["captured"], "captured =", counts["inferred"], "decided +", counts["dropped"], "dropped")
