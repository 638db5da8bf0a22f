"""Latency against accuracy: the harness behind `edgead benchmark`. Needs neither torch nor onnx."""
