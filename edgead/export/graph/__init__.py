"""ONNX graphs: traced from PyTorch, simplified, downgraded, adapted to a bundle's signature, checked for TensorRT."""

from edgead.errors import is_installed, require_installed

require_installed(("onnx", "onnxruntime"), "train" if is_installed("torch") else "import")
