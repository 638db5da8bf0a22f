"""ONNX graphs: trace, simplify, downgrade, adapt to a bundle's signature, check for TensorRT."""

from edgead.errors import is_installed, require_installed

require_installed(("onnx", "onnxruntime"), "train" if is_installed("torch") else "import")
