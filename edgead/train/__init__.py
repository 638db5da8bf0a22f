"""From photographs of good parts to a checkpoint. Needs torch: ``pip install 'edgead[train]'``."""

from edgead.errors import require_installed

require_installed(("torch", "accelerate", "safetensors", "PIL", "matplotlib", "cv2"), "train")
