"""DRepT: defect-representation transfer with a transmittance mask (IJCNN 2023, IEEE 10191690).

Real defects of other products are learned as mixtures of coloured Gaussians, put on the target's good images, and a
segmentation network learns to find them.

The order of reading: `method`, `config`, `pretraining`, `mixture`, `network`, `reference_model`, `export_model`.
"""
