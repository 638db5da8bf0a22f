"""Set an output for a PLC: high only while parts pass. Here the output is a file, as Linux shows GPIO pins.

python examples/custom_sink.py BUNDLE SOURCE OUTPUT-FILE

A FAIL, an UNKNOWN and the end of the run all set the output low, so that the line rejects the part. A program that is
killed or hangs leaves the output as it is: for that, see the heartbeat in docs/plc.md.
"""

import sys
from pathlib import Path

import edgead
from edgead.runtime.ledger import Ledger
from edgead.runtime.pipeline import run_stream
from edgead.runtime.sinks import BaseSink

if len(sys.argv) < 4:
    sys.exit("Usage: " + __doc__.splitlines()[2])


class GoodPartOutput(BaseSink):
    """Writes 1 for a PASS and 0 for everything else, also at the end."""

    def __init__(self, pin: Path) -> None:
        super().__init__(name=f"output:{pin}")
        self.pin = pin
        self.pin.write_text("0")

    def write(self, result: edgead.Result) -> None:
        self.pin.write_text("1" if result.verdict is edgead.Verdict.PASS else "0")

    def close(self) -> None:
        self.pin.write_text("0")


with edgead.load(sys.argv[1]) as inspector:
    ledger = Ledger()
    run_stream(inspector, sys.argv[2], [GoodPartOutput(Path(sys.argv[3]))], ledger)
print(ledger.passed, "passed,", ledger.failed, "failed,", ledger.unknown, "unknown")
