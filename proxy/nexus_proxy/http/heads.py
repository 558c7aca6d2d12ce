"""What request heads and answer heads have in common: which headers belong to one connection only.

Promises that a header is judged once per spelling: `Roles` remembers. Values are never interpreted
here beyond the tokens of `Connection`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Head = TypeVar("Head")

# RFC 9110 §7.6.1, and what old peers send in its spirit.
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    )
)
OURS = b"x-nexus-"  # this proxy's own headers pass in neither direction
_HARMLESS = frozenset((b"keep-alive", b"close", b"te", b"upgrade", b"http2-settings", b""))
_REMEMBERED = 1024

Role = Callable[[Head, bytes], bool]
"""What a header does to the head it stands in, by its value; True: its line is passed on as well.
"""


def dropped(_head: object, _value: bytes) -> bool:
    """The role of a header that says nothing and is not passed on."""
    return False


class Roles(dict[bytes, "Role[Head] | None"], Generic[Head]):
    """Header name as spelled -> its role; None: nothing but a line to pass on."""

    __slots__ = ("_by_lower_name",)

    def __init__(self, by_lower_name: dict[bytes, Role[Head]]) -> None:
        super().__init__()
        self._by_lower_name = {**dict.fromkeys(HOP_BY_HOP, dropped), **by_lower_name}

    def __missing__(self, name: bytes) -> Role[Head] | None:
        lower = name.lower()
        role = self._by_lower_name.get(lower)
        if role is None and lower.startswith(OURS):
            role = dropped
        if len(self) < _REMEMBERED:  # spellings are a peer's choice: not without bound
            self[name] = role
        return role


def named_by_connection(value: bytes) -> frozenset[bytes]:
    """The headers, in lower case, that a `Connection` value takes out of the message."""
    return frozenset(token.strip().lower() for token in value.split(b",")) - _HARMLESS


def without(lines: bytes, names: frozenset[bytes]) -> bytes:
    """Header lines (each ending in CRLF) minus those with one of the lower-case `names`."""
    kept = [
        line
        for line in lines.split(b"\r\n")
        if line and line[: line.index(b":")].lower() not in names
    ]
    return b"".join(line + b"\r\n" for line in kept)


def header_text(value: str) -> bytes:
    """`value` as it may stand in a header: Latin-1, on one line."""
    return value.encode("latin-1", "replace").translate(None, b"\r\n\0")
