"""Many trainings and their measurements from one file: methods × categories × seeds × precisions, on Ray.

Needs ``pip install 'edgead[train,benchmark,cpu,ray]'``.
"""
