"""The live page of `edgead run --view`: what the line does, for people beside it. See docs/live-page.md."""

from edgead.errors import require_installed

require_installed(("starlette", "uvicorn"), "view")
