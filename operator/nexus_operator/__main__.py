"""`nexus-operator`: exit code 0 stopped as asked, 1 failed, 2 wrong usage."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence

from nexus_api import pace
from nexus_operator.logs import configure
from nexus_operator.settings import WrongUsage, parse

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    try:
        settings = parse(sys.argv[1:] if arguments is None else arguments)
    except WrongUsage as error:
        sys.stderr.write(f"nexus-operator: {error}\n")
        return 2
    configure(style=settings.log_format, level=settings.log_level)
    if pace.PACE != 1:
        log.warning("%s is set: this is a test, not a service", pace.VARIABLE)
    for number in (signal.SIGTERM, signal.SIGINT):  # until the event loop has its own handlers
        signal.signal(number, lambda *_: sys.exit(0))
    from nexus_operator.app import operate  # kopf takes half a second: not for a wrong flag

    return asyncio.run(operate(settings))


if __name__ == "__main__":
    sys.exit(main())
