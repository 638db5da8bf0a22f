"""PLC outputs: sinks that show each result to a PLC and wait until it has acknowledged it. See docs/plc.md.

`edgead.sinks`, the group of entry points, leads the runtime here; setup.py lists them.
"""
