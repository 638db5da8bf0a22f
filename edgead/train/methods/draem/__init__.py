"""DRAEM: a discriminatively trained reconstruction embedding (Zavrtanik, Kristan, Skočaj, ICCV 2021).

Two networks learn together on good images with synthetic anomalies. The reconstructive one has no skip connections
and learns to give back the good image; the discriminative one sees image and reconstruction side by side and marks
the pixels that differ for a reason. Module and parameter names are the published code's, so its weights load.

Images are BGR in [0, 1] without any further normalisation, as in the published code.

The order of reading: `method`, `config`, `network`, `reference_model`, `export_model`.
"""
