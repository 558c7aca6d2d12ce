"""Log lines on standard error: one JSON object a line, or plain text.

Every logger of the process ends here, kopf's too. What goes wrong again and again (kopf says each
retried request as an error) is let through once a minute, for whoever reads must see what is new.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Callable
from typing import Any

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
QUIET = {
    "httpx": "WARNING",
    "httpcore": "WARNING",
    "aiohttp.access": "WARNING",
    "asyncio": "WARNING",
    # Their warnings accompany every ordinary stop, their errors come up to us and are said there.
    "kopf.activities": "CRITICAL",
    "kopf._core.reactor.running": "CRITICAL",
    "kopf._core.reactor.orchestration": "CRITICAL",
}
REPEAT_SECONDS = 60.0
REMEMBERED = 1000


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "logger", "message", …extra}`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in STANDARD and isinstance(value, str | int | float | bool):
                line[name] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class RepeatFilter(logging.Filter):
    """Lets a warning or error through once a minute; kopf's retries once per address."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """True: the line is written."""
        if record.levelno < logging.WARNING:
            return True
        key, now = subject(record.getMessage()), self._monotonic()
        if now - self._said.get(key, -math.inf) < REPEAT_SECONDS:
            return False
        if len(self._said) >= REMEMBERED:
            self._said.clear()
        self._said[key] = now
        return True


def subject(text: str) -> str:
    """What a line is about: of a retried request its address, else all of it."""
    if "failed; will retry: " not in text:
        return text
    return text.partition(": ")[2].partition("?")[0].partition(" -> ")[0]


def configure(*, style: str, level: str) -> None:
    """Replaces the root handlers; `style` is `json` or `text`, `level` a lower-case level name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter()
        if style == "json"
        else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    handler.addFilter(RepeatFilter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name, lowest in QUIET.items():
        logging.getLogger(name).setLevel(lowest)
    if level != "debug":
        logging.getLogger("kopf").setLevel("WARNING")
