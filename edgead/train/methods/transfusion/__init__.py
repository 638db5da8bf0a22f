"""TransFusion: a transparency-based diffusion model (Fučka, Zavrtanik, Skočaj, ECCV 2024).

One U-Net sees an image and the mask that it found in the step before. It predicts the anomaly's appearance, the good
appearance and a better mask; the anomaly is made a little more transparent, and so on. What the masks say on the way,
and how much the image has changed at the end, is the map.

The order of reading: `method`, `config`, `preprocessing`, `diffusion`, `examples`, `network`, `reference_model`,
`export_model`.
"""
