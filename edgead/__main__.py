"""``python -m edgead``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. Ctrl-C while it is imported ends it without a traceback, too."""
    try:
        from edgead.cli import main as run
        from edgead.failures import leave
    except KeyboardInterrupt:
        print("Error: interrupted.", file=sys.stderr)
        sys.exit(130)
    try:
        run()
    except SystemExit as end:
        leave(end.code)


if __name__ == "__main__":
    main()
