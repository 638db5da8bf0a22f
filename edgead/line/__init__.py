"""A line makes parts: triggers open them, frames belong to them, and each part has one answer.

It stands above the runtime, which does not know it, as a gate between frames and engine (`edgead.runtime.gate`).
"""
