"""Opens bundles and decides on frames. Needs neither torch nor onnx: ``pip install 'edgead[cpu]'``."""
