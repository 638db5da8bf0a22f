"""From a checkpoint to a bundle. Needs torch and onnx: ``pip install 'edgead[train]'``."""
