"""From a network camera to an MQTT broker, with a limit on age. Ctrl-C ends it.

python examples/rtsp_to_mqtt.py BUNDLE rtsp://user:password@camera/path mqtt://broker/topic [FRAMES]

Needs pip install 'edgead[cpu,mqtt]'. The command does the same: edgead run BUNDLE --source … --sink …
"""

import itertools
import sys

import edgead
from edgead.runtime.sink_worker import SinkWorker, close_all
from edgead.runtime.sinks import open_sink
from edgead.runtime.stream import Policy, Stream

if len(sys.argv) < 4:
    sys.exit("Usage: " + __doc__.splitlines()[2])
bundle, camera, broker, *most = sys.argv[1:]
worker = SinkWorker(open_sink(broker))  # writes in a thread of its own: a slow broker delays no decision
with edgead.load(bundle) as inspector, Stream(inspector, {"camera": camera}, Policy(max_staleness=1000)) as stream:
    for result in itertools.islice(stream, int(most[0]) if most else None):
        worker.offer(result)
close_all([worker])
print(worker.account())
