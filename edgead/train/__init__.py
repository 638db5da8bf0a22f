"""From photographs of good parts to a checkpoint. Needs torch: ``pip install 'edgead[train]'``."""
