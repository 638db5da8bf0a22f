"""Declare the operators without which torchvision's wheel from PyPI does not import beside a CPU build of torch."""

import torch

library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
"""Kept: the declarations end with it."""
for operator in ("nms", "qnms"):
    try:
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    except RuntimeError:  # torchvision's own are there
        continue
