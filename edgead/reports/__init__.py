"""HTML pages of trainings, exports, benchmarks and comparisons, written from the JSON files that those leave.

A page is one file without scripts, fonts or pictures from elsewhere. It can be rebuilt from its folder at any time:
`results.json` has the figures, `pictures.json` the pictures.
"""

from __future__ import annotations
