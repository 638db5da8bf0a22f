"""One answer for each part: parts are triggered from Python, one of them without a picture.

python examples/triggered_line.py BUNDLE
"""

import queue
import sys
import threading
import time

import numpy as np

import edgead
from edgead.line.part import PartRules
from edgead.line.parts import Parts
from edgead.runtime.ledger import Ledger
from edgead.runtime.pipeline import run_stream

if len(sys.argv) < 2:
    sys.exit("Usage: " + __doc__.splitlines()[2])
pictures: queue.Queue = queue.Queue()


def camera():
    """Wait for the next picture; None ends the run. A real line has --source URI instead."""
    return pictures.get()


def line() -> None:
    for number in range(3):
        parts.trigger(f"A-{number}")  # the light barrier
        if number != 1:  # its picture is lost
            pictures.put(np.full((64, 64, 3), 40 * number, np.uint8))
        time.sleep(0.3)
    pictures.put(None)


parts = Parts(PartRules(within=200))
with edgead.load(sys.argv[1]) as inspector:
    run_stream(
        inspector,
        {"front": camera},
        [],
        Ledger(),
        gate=parts,
        on_start=lambda stream: threading.Thread(target=line).start(),
        on_result=lambda result: print(result.part_id, result.verdict.value, result.cause or f"{result.score:.3g}"),
    )
print(parts.ledger.snapshot())
