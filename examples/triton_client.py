"""Decide on every frame of a source, with scores from a Triton server that many lines share.

python examples/triton_client.py SERVER BUNDLE SOURCE

For instance: gpu-server:8001 bottle.edgead rtsp://camera/line

The server needs the model that `edgead export --format triton` writes; this computer needs the bundle, for its
threshold and golden frames, and pip install 'tritonclient[grpc]'. It decides itself: without an answer in time, a
frame is UNKNOWN.
"""

import sys

if len(sys.argv) < 4:
    sys.exit("Usage: " + __doc__.splitlines()[2])

import numpy as np
import tritonclient.grpc as triton

from edgead import Inspector
from edgead.bundle import read_bundle
from edgead.runtime.golden import check_golden, require_agreement

TIMEOUT = 1.0
"""Seconds for an answer."""


class TritonEngine:
    """An edgead.runtime.engines.Engine on a server."""

    def __init__(self, server: str, model: str) -> None:
        self.name, self.model = f"triton {server}", model
        self.client = triton.InferenceServerClient(server)

    def infer(self, frames: np.ndarray) -> "tuple[np.ndarray, np.ndarray]":
        """Return scores [N] and maps [N, H, W] of frames [N, H, W, C] uint8."""
        request = triton.InferInput("frames", frames.shape, "UINT8")
        request.set_data_from_numpy(frames)
        answer = self.client.infer(self.model, [request], client_timeout=TIMEOUT)
        return answer.as_numpy("scores").reshape(len(frames)), answer.as_numpy("maps")

    def close(self) -> None:
        self.client.close()


server, path, source = sys.argv[1:]
bundle = read_bundle(path)
engine = TritonEngine(server, bundle.manifest.name)
require_agreement(check_golden(bundle, engine), f"the model on {server}")  # not another line's
with Inspector(bundle, engine) as inspector:
    for result in inspector.stream(source):
        print(result.frame_id, result.verdict, round(result.score, 6), result.reason)
