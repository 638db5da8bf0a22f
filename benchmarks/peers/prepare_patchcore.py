"""Train anomalib's PatchCore on a set with given backbone weights, and export its Torch and OpenVINO forms.

    MALLOC_MMAP_THRESHOLD_=4194304 python prepare_patchcore.py DATA WEIGHTS OUT [LEVELS [SHARE]]

Run it in anomalib's environment: pip install 'anomalib[openvino]==2.7.0'. DATA is a set in MVTec's form, WEIGHTS are
squeezenet1_1's, LEVELS are those of the backbone that describe a place (default: 2,3, as in anomalib and the paper),
SHARE is the share of the features that are kept (default: 0.1). Everything else is anomalib's default: 256×256.
Without a post-processor, whose scale anomalib would learn from labelled images; it changes no ranking. Without the
variable, glibc before 2.38 fragments its heap while features are chosen, and 31 images fill 23 GB.
"""

import json
import sys
import time
from pathlib import Path

import torch
import torchvision_ops  # noqa: F401  before anomalib
from anomalib.data.utils import read_image
from anomalib.engine import Engine
from anomalib.models import Patchcore
from torchvision.models import squeezenet1_1

LEVELS = {"1": "features.4", "2": "features.7", "3": "features.12"}
BATCH = 8


@torch.no_grad()
def main() -> None:
    data, weights, out = map(Path, sys.argv[1:4])
    levels = sys.argv[4] if len(sys.argv) > 4 else "2,3"
    share = float(sys.argv[5]) if len(sys.argv) > 5 else 0.1
    torch.manual_seed(0)
    backbone = squeezenet1_1()
    backbone.load_state_dict(torch.load(weights, weights_only=True))
    model = Patchcore(
        backbone=backbone,
        layers=[LEVELS[level] for level in levels.split(",")],
        pre_trained=False,
        post_processor=False,
        coreset_sampling_ratio=share,
    )
    began = time.perf_counter()
    model.model.train()
    images = [read_image(path, as_tensor=True) for path in sorted((data / "train" / "good").iterdir())]
    images = [image.expand(3, -1, -1) for image in images]  # grey ones too
    for start in range(0, len(images), BATCH):
        batch = torch.stack([model.pre_processor.transform(image) for image in images[start : start + BATCH]])
        model.model(batch)
    model.model.feature_extractor.eval()
    model.model.subsample_embedding(share)
    model.model.eval()
    facts = {"images": len(images), "levels": levels, "share": share, "train_seconds": time.perf_counter() - began}
    for kind in ("torch", "openvino"):
        made = Engine(default_root_dir=out).export(
            model, kind, export_root=out, input_size=(256, 256), onnx_kwargs={"dynamic_shapes": None}
        )  # otherwise this model is exported for two images at a time
        print(made)
    (out / "training.json").write_text(json.dumps(facts | {"memory": list(model.model.memory_bank.shape)}))


if __name__ == "__main__":
    main()
