"""Data sets on disk: which images are good, which are defective, and where their masks are.

Recognised automatically, see docs/data.md: MVTec AD (LOCO, 3D-AD and BTAD too), VisA, the ``meta.json`` of WinCLIP and
its successors, the manifests of Lookout for Vision, folders called good and bad, a plain folder of good images; and a
folder of several such categories. Ambiguous folders are refused.
"""

from edgead.datasets.category import GOOD, Category, Sample
from edgead.datasets.frames import Frames, cut_tiles, find_depth_range, load_frames
from edgead.datasets.labels import check_masks, read_labelled_mask
from edgead.datasets.layouts import open_again, open_categories, open_category

__all__ = [
    "GOOD",
    "Category",
    "Frames",
    "Sample",
    "check_masks",
    "cut_tiles",
    "find_depth_range",
    "load_frames",
    "open_again",
    "open_categories",
    "open_category",
    "read_labelled_mask",
]
