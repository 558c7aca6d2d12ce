"""Entry point of a worker, which its parent starts: `NUMBER LINK LISTENERS` and the parent's own
arguments, LINK and LISTENERS being numbers of open files. Not for people.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

import uvloop

from nexus_proxy.allocator import keep_freed
from nexus_proxy.descriptors import take_all
from nexus_proxy.logs import configure
from nexus_proxy.settings import parse
from nexus_proxy.workers.worker import ParentGone, Worker

_log = logging.getLogger("nexus.proxy.workers")


async def _run(link: int, listeners: list[int], arguments: list[str]) -> None:
    settings = parse(arguments, os.environ)
    sockets = [socket.socket(fileno=number) for number in listeners]
    await Worker(settings, os.environ, sockets).run(socket.socket(fileno=link))


def main() -> int:
    """Run the worker; the return value is the exit code."""
    # A terminal or a service manager signals all processes at once: only the parent heeds it.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    number, link, listeners, *arguments = sys.argv[1:]
    settings = parse(arguments, os.environ)
    configure(log_format=settings.log_format, level=settings.log_level)
    _leave_to_parent(int(number))
    take_all()
    keep_freed()
    try:
        uvloop.run(_run(int(link), list(map(int, listeners.split(","))), arguments))
    except ParentGone:
        _log.error("worker %s ends: its parent is gone", number)
        return 1
    except Exception:
        _log.exception("worker %s failed", number)
        return 1
    return 0


def _leave_to_parent(number: int) -> None:
    """What every process finds in the same objects is said once, by the parent; what is said here
    has the worker's number.
    """
    logging.getLogger("nexus.proxy").addFilter(lambda record: record.levelno >= logging.ERROR)
    logging.getLogger("nexus.proxy.routing").setLevel(logging.ERROR)
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: bool(record.__dict__.setdefault("worker", number)))


if __name__ == "__main__":
    sys.exit(main())
