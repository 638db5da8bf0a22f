"""From a checkpoint, or somebody else's model, to a bundle.

What comes as ONNX needs ``pip install 'edgead[import]'``; what comes from PyTorch needs ``'edgead[train]'``.
"""

from edgead.errors import is_installed, require_installed

require_installed(("onnx", "onnxruntime"), "train" if is_installed("torch") else "import")
