"""Log lines: their form, and what is said again too soon."""

from __future__ import annotations

import json
import logging

from nexus_operator.logs import JsonFormatter, RepeatFilter


def record(message: str, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord("kopf", level, __file__, 1, message, None, None)


def test_a_json_line_has_time_level_logger_and_message() -> None:
    line = json.loads(JsonFormatter().format(record("hello\nworld")))
    assert set(line) == {"time", "level", "logger", "message"}
    assert (line["level"], line["logger"], line["message"]) == ("error", "kopf", "hello\nworld")
    assert line["time"].endswith("Z")


def test_what_goes_wrong_again_is_said_once_a_minute() -> None:
    now = [0.0]
    lets = RepeatFilter(lambda: now[0]).filter
    assert lets(record("away"))
    assert not lets(record("away"))
    assert lets(record("something else"))
    now[0] = 60.0
    assert lets(record("away"))


def test_retries_of_one_address_are_one_thing_whatever_their_number() -> None:
    lets = RepeatFilter(lambda: 0.0).filter
    text = "Request attempt #{} failed; will retry: GET https://api/x?a={} -> OSError()"
    assert lets(record(text.format(1, 1)))
    assert not lets(record(text.format(2, 9)))
    assert lets(record(text.format(1, 1).replace("/x", "/y")))


def test_news_is_never_held_back() -> None:
    lets = RepeatFilter(lambda: 0.0).filter
    assert lets(record("ready", logging.INFO)) and lets(record("ready", logging.INFO))
