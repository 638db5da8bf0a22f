"""Review of rejects: people's marks, what other thresholds would have done to them, and new versions of a bundle.

The live page and the command line keep marks in one form. See docs/thresholds.md.
"""
