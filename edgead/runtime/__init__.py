"""From a bundle to a decision on every frame. Needs neither torch nor onnx: ``pip install 'edgead[cpu]'``."""
