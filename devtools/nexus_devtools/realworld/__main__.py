"""`python -m nexus_devtools.realworld install | lock`: make the real clients and servers ready, or
pin the npm packages anew (`make lock` does both halves of that).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from nexus_devtools.browser.chromium import PINS as BROWSER_PINS
from nexus_devtools.browser.chromium import WANTED as BROWSER
from nexus_devtools.realworld.errors import RealWorldError
from nexus_devtools.realworld.lab import NPM_PINS, ready_lab
from nexus_devtools.realworld.npm import lock


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nexus_devtools.realworld")
    parser.add_argument("what", choices=("install", "lock"))
    parser.add_argument("--npm", default="npm", help="the npm that `lock` asks")
    options = parser.parse_args()
    try:
        if options.what == "install":
            print(ready_lab().folder)
        else:
            with tempfile.TemporaryDirectory() as folder:
                npm, place = (options.npm,), Path(folder)
                NPM_PINS.write_text(lock(npm=npm, folder=place))
                BROWSER_PINS.write_text(lock(BROWSER, npm=npm, folder=place))
    except RealWorldError as error:
        print(f"real clients and servers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
