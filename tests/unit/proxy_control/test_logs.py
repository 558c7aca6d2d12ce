"""Log lines: one JSON object or one text line per record."""

from __future__ import annotations

import logging
import sys

import msgspec

from nexus_proxy.logs import JsonFormatter, TextFormatter


def record(*, failed: bool = False) -> logging.LogRecord:
    info = None
    if failed:
        try:
            raise ValueError("broken")
        except ValueError:
            info = sys.exc_info()
    made = logging.LogRecord("nexus.proxy", logging.WARNING, "f", 1, "told %s", ("so",), info)
    made.created, made.msecs = 1767225600.25, 250.0
    return made


def test_json_lines_hold_time_level_logger_and_message() -> None:
    line = JsonFormatter().format(record())
    assert msgspec.json.decode(line) == {
        "time": "2026-01-01T00:00:00.250Z",
        "level": "warning",
        "logger": "nexus.proxy",
        "message": "told so",
    }


def test_an_exception_stays_within_its_json_line() -> None:
    line = JsonFormatter().format(record(failed=True))
    assert "\n" not in line
    assert "ValueError: broken" in msgspec.json.decode(line)["exception"]


def test_text_lines_start_with_the_time() -> None:
    assert TextFormatter().format(record()) == "2026-01-01T00:00:00.250Z warning told so"
    assert TextFormatter().format(record(failed=True)).endswith("ValueError: broken")
