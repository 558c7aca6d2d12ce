"""``python -m nexus_devtools.demo``: see the product at work; ``--keep`` leaves it running.

Promises: an interrupt is quiet from the first moment on, while modules are still being read too. It
is NOT the demo: that is ``main``.
"""

from __future__ import annotations

import sys


def _start() -> int:
    try:
        from nexus_devtools.demo.main import main
    except KeyboardInterrupt:
        return 130
    return main()


if __name__ == "__main__":
    sys.exit(_start())
