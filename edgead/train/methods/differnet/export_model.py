"""The same in fewer and faster operations, as exported."""

from __future__ import annotations

import copy

from edgead.train.backbones import fold_normalisation
from edgead.train.methods.differnet.config import DiffernetConfig
from edgead.train.methods.differnet.network import DiffernetNetwork
from edgead.train.methods.differnet.reference_model import ReferenceModel


class ExportModel(ReferenceModel):
    """The same with ImageNet's normalisation in the first convolution, where the backbone begins with one."""

    def __init__(self, network: DiffernetNetwork, config: DiffernetConfig) -> None:
        super().__init__(copy.deepcopy(network), config)
        self.preprocess = fold_normalisation(self.network.feature_extractor)
