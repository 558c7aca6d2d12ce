"""What one server-sent event of an OpenAI-compatible stream means.

Pure: bytes in, a `Meaning` out. It judges content (for the time to first token), errors and the
end; it does not validate, and what it does not understand means nothing.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode

BOUNDARY = re.compile(rb"\r?\n\r?\n")
_DONE = re.compile(rb"(?:^|\n)data: ?\[DONE\]")
_END = re.compile(
    rb'"finish_reason"\s*:\s*"|"type"\s*:\s*"response\.(?:completed|incomplete)"'
    rb"|(?:^|\n)data: ?\[DONE\]"
)
_DELTA_KEYS = (
    "content",
    "reasoning_content",
    "reasoning",
    "tool_calls",
    "function_call",
    "refusal",
)


class Meaning(enum.Enum):
    """What an event says; NOTHING for preambles, usage, comments and whatever is not known."""

    NOTHING = 0
    CONTENT = 1
    ERROR = 2


def is_done(tail: bytes) -> bool:
    """`data: [DONE]` stands in these events."""
    return _DONE.search(tail) is not None


def has_ended(tail: bytes) -> bool:
    """These events hold a mark of a good end: a finish reason, `response.completed` or `[DONE]`."""
    return _END.search(tail) is not None


def meanings(events: bytes) -> Iterator[Meaning]:
    """The meaning of each event that carries data, in order; comments do not count as events."""
    for block in BOUNDARY.split(events):
        meaning = _meaning(block)
        if meaning is not None:
            yield meaning


def _meaning(block: bytes) -> Meaning | None:
    name = b""
    data: list[bytes] = []
    for line in block.splitlines():
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.strip()
        elif field == b"error":  # llama.cpp before 2025 wrote its errors so
            return Meaning.ERROR
    if name == b"error":
        return Meaning.ERROR
    return _meaning_of_data(b"\n".join(data)) if data else None


def _meaning_of_data(data: bytes) -> Meaning:
    try:
        message = _decode(data)
    except msgspec.DecodeError:
        return Meaning.NOTHING
    if not isinstance(message, dict):
        return Meaning.NOTHING
    if is_error(message):
        return Meaning.ERROR
    return Meaning.CONTENT if _has_content(message) else Meaning.NOTHING


def is_error(message: dict[str, Any]) -> bool:
    """A JSON object that is an error, in any of the shapes that servers use."""
    if message.get("error"):
        return True
    if message.get("object") == "error" or message.get("type") in ("error", "response.failed"):
        return True
    response = message.get("response")
    return isinstance(response, dict) and bool(response.get("error"))


def _has_content(message: dict[str, Any]) -> bool:
    kind = message.get("type")
    if isinstance(kind, str) and kind.startswith("response."):
        return kind.endswith(".delta") and bool(message.get("delta"))
    choices = message.get("choices")
    return isinstance(choices, list) and any(map(_choice_has_content, choices))


def _choice_has_content(choice: object) -> bool:
    if not isinstance(choice, dict):
        return False
    if choice.get("text"):
        return True
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(delta.get(key) for key in _DELTA_KEYS)
