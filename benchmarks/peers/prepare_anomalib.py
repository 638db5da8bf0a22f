"""Export anomalib's DRAEM with random weights to its Torch and OpenVINO forms; latency does not depend on the weights.

    python prepare_anomalib.py TEXTURES OUT

Run it in anomalib's environment: pip install 'anomalib[openvino]==2.7.0'. TEXTURES is any folder of images: anomalib
would download its own before a training.
"""

import sys

import torch
import torchvision_ops  # noqa: F401  before anomalib
from anomalib.engine import Engine
from anomalib.models import Draem

textures, out = sys.argv[1:]
torch.manual_seed(0)
model = Draem(dtd_dir=textures)
for kind in ("torch", "openvino"):
    print(Engine(default_root_dir=out).export(model, kind, export_root=out, input_size=(256, 256)))
