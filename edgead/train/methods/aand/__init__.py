"""AAND: anomaly amplification and normality distillation ("Advancing Pre-trained Teacher", arXiv 2405.02068).

A frozen pretrained network gets a small residual module at each of three levels. Stage I teaches them, on synthetic
anomalies, to find anomalous patches (a gate) and to push their features away (a generator). Stage II distils the
amplified features of good images into a student that sees them through a bottleneck only. What the student cannot
follow is anomalous. Module and parameter names are the published code's (the ResNet version), so its weights load;
layers that it declares and never uses are left out.

The order of reading: `method`, `config`, `network`, `losses`, `reference_model`, `export_model`.
"""
