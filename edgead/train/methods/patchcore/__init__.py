"""PatchCore: a memory of good patches (Roth, Pemula, Zepeda, Schölkopf, Brox, Gehler, CVPR 2022). The baseline.

A pretrained network, never trained further, describes every place of an image by a feature. The features of all places
of all good images are thinned to a memory: each next one is the farthest from those that were taken. An image is as
anomalous as its place that is farthest from everything in the memory. Nothing is optimised, so it learns in seconds,
from ten pictures on.

The order of reading: `method`, `config`, `network`, `reference_model`, `export_model`.
"""
