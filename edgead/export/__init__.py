"""From a checkpoint to a bundle. Needs torch and onnx: ``pip install 'edgead[train]'``."""

from edgead.errors import require_installed

require_installed(("torch", "onnx", "onnxruntime"), "train")
