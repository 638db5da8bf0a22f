"""The same in fewer and faster operations, as exported."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from edgead.train.maps import box_mean
from edgead.train.methods.draem.network import DraemNetwork
from edgead.train.methods.draem.reference_model import SCORE_WINDOW, preprocess


class ExportModel(nn.Module):
    """The same function in fewer operations.

    The softmax over two classes is the sigmoid of the difference of their logits, so the last convolution gives that
    difference. The 21×21 mean with zero padding is a product with a banded matrix on either side.
    """

    def __init__(self, network: DraemNetwork, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        last = self.network.discriminative.decoder_segment.fin_out[0]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        difference = nn.Conv2d(last.in_channels, 1, 3, padding=1)
        difference.weight = nn.Parameter((last.weight[1:] - last.weight[:1]).detach())
        difference.bias = nn.Parameter((last.bias[1:] - last.bias[:1]).detach())
        self.network.discriminative.decoder_segment.fin_out[0] = difference
        self.scoring = _Scoring(size)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        scores, maps = self.scoring(self.network.logits(preprocess(frames))[1])
        return scores, maps


class _Scoring(nn.Module):
    """Logits ``[N, 1, H, W]`` to scores ``[N]`` and maps ``[N, H, W]``."""

    rows: Tensor
    columns: Tensor

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("rows", box_mean(size[0], SCORE_WINDOW))
        self.register_buffer("columns", box_mean(size[1], SCORE_WINDOW))

    def forward(self, logit: Tensor) -> tuple[Tensor, Tensor]:
        maps = logit.sigmoid().squeeze(1)
        pooled = self.rows @ maps @ self.columns
        return pooled.amax(dim=(1, 2)), maps
