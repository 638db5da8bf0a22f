"""Tell by the exit code whether requirements.lock holds for this Python, with one line where it does not."""

import platform
import sys

this = (sys.implementation.name, sys.platform, platform.machine())
holds = this == ("cpython", "linux", "x86_64") and (3, 11, 5) <= sys.version_info[:3] < (3, 14)
if not holds:
    print(
        f"without hashes: requirements.lock holds for CPython 3.11.5 to 3.13 on Linux on x86-64, and this is "
        f"{platform.python_implementation()} {platform.python_version()} on {sys.platform}, {platform.machine()}"
    )
sys.exit(not holds)
