"""DifferNet: a normalising flow over multi-scale image features (Rudolph, Wandt, Rosenhahn, WACV 2021).

A pretrained network, never trained further, sees the image at several sizes; the means of its feature maps are one
vector. A flow of affine couplings learns to map the vectors of good images to a standard normal distribution. An
image is rotated to fixed angles, and the published score is s, the mean square of what the flow makes of them. Module
and parameter names are the published code's, so its weights load.

The graph gives log(1 + s). s grows by powers of ten with each coupling that an anomaly goes through, up to 10¹², and
its last digits are rounding there; its logarithm has the same order, so the same verdicts, and a usable scale.

The paper localises by the gradient of the score with respect to the pixels, which takes a backward pass through
everything. Here the score is expanded to second order around the mean features of good images, and each place of a
feature map is worth its share of it: one matrix product, no backward pass, and a graph that any engine runs.

The order of reading: `method`, `config`, `rotation`, `network`, `reference_model`, `export_model`.
"""
