"""A student: a small network that learns to give what a bundle, its teacher, gives (knowledge distillation).

Any bundle can teach. It is run once over a transfer set: jittered good images, synthetic anomalies of every kind that
edgead draws, and, in later rounds, variants of those on which student and teacher disagree most. The student sees the
teacher's maps and scores, never its layers, so both may be of any architecture. `edgead distil` chooses the size of the
network by measured latency, trains it and exports it in INT8.

The order of reading: `method`, `config`, `network`, `losses`, `transfer_set`, `examples`, `export_model`.
"""
