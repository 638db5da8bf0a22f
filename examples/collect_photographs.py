"""Store photographs of good parts from a camera, one every two seconds.

python examples/collect_photographs.py SOURCE FOLDER COUNT [SECONDS]
"""

import sys
import time
from pathlib import Path

from edgead.images import encode_png
from edgead.runtime.sources import open_source

if len(sys.argv) < 4:
    sys.exit("Usage: " + __doc__.splitlines()[2])
folder, count = Path(sys.argv[2]), int(sys.argv[3])
pause = float(sys.argv[4]) if len(sys.argv) > 4 else 2.0
folder.mkdir(parents=True, exist_ok=True)
numbers = [int(path.stem) for path in folder.glob("*.png") if path.stem.isdecimal()]  # some may have been deleted
stored, number, due = len(numbers), max(numbers, default=-1) + 1, 0.0
with open_source(sys.argv[1]) as frames:
    for captured in frames:  # every frame is read, so that the one that is stored is new
        if captured.image is None or captured.error:  # damaged, or not to be trusted
            print("no picture:", captured.error)
        elif time.monotonic() >= due:
            (folder / f"{number:04}.png").write_bytes(encode_png(captured.image))
            stored, number, due = stored + 1, number + 1, time.monotonic() + pause
            print(f"{stored} of {count}")
        if stored >= count:
            break
