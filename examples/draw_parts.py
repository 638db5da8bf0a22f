"""Draw sample parts, washers with four kinds of defect. They stand in for photographs of your own parts.

python examples/draw_parts.py FOLDER [TRAIN GOOD BAD]

TRAIN: good parts to train on. GOOD, BAD: test images of good parts, and of each kind of defect.
"""

import sys
from pathlib import Path

from edgead.console import Terminal
from edgead.demo import make_parts

if len(sys.argv) < 2:
    sys.exit("Usage: " + __doc__.splitlines()[2])
train, good, bad = map(int, sys.argv[2:5]) if len(sys.argv) > 2 else (150, 40, 10)
folder = make_parts(Path(sys.argv[1]), train=train, good=good, bad=bad, console=Terminal())
print(f"{train} good parts to train on, {good} good and {4 * bad} defective ones to test on: {folder}")
