"""Train, export and benchmark many models from one file: methods × categories × seeds × precisions, on Ray.

Needs ``pip install 'edgead[train,benchmark,cpu,ray]'``.
"""
