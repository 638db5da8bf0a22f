"""`edgead plan`: which bundle and engine keep up with so many cameras, and what would have to change if none does.

    from edgead.plan import plan

    found = plan(["bottle.edgead", "bottle-int8.edgead"], cameras=4, fps=30, deadline=20)

`measure` times bundles on this machine, `simulate` plays a stream with those times, `advise` looks for what would fit.
"""

from __future__ import annotations

from edgead.plan.planning import Plan, plan

__all__ = ["Plan", "plan"]
