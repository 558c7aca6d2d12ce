"""Ctrl-C, SIGTERM and SIGHUP: each ends the demo in the same orderly way.

Promises: until ``ignore`` the first of them raises ``KeyboardInterrupt`` in the main thread, so
that ``with`` blocks are left; from then on, while things are being ended, all are ignored. It is
NOT needed by the children: they run in sessions of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def install() -> None:
    """From now on each of the signals raises ``KeyboardInterrupt``."""
    for number in _SIGNALS:
        signal.signal(number, signal.default_int_handler)


def ignore() -> None:
    """From now on nothing interrupts."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def cancelling(task: asyncio.Task[object]) -> Iterator[None]:
    """Inside an event loop: each of the signals cancels the task instead."""
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        install()
