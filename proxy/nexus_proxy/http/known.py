"""A head that comes again, byte for byte but for the digits of its Content-Length.

Clients and servers say the same head over and over on one connection. Once llhttp has accepted one,
an equal one needs no parsing: it means what it meant. Promises that nothing is recognised which
differs in a single byte elsewhere, that only bodies with a length are, and that a peer whose heads
vary soon costs next to nothing here.
"""

from __future__ import annotations

import re
from typing import Generic, TypeVar

Meaning = TypeVar("Meaning")

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*", re.IGNORECASE)
_MAX_DIGITS = 10
_TRUST = 8
_AGAIN_AFTER = 16


class KnownHead(Generic[Meaning]):
    """The last head learnt on one connection; after a `match`, `length` and `digits` are the body
    length of the one recognised.
    """

    __slots__ = ("_prefix", "_start", "_suffix", "_trust", "digits", "length", "meaning")

    meaning: Meaning

    def __init__(self) -> None:
        self._prefix = b"\0"  # begins no head
        self._start = 1
        self._suffix = b""
        self._trust = _TRUST
        self.digits = b""
        self.length = 0

    def match(self, data: bytes) -> int:
        """Where the body begins in `data` if it begins with the known head, else 0."""
        if not data.startswith(self._prefix):
            return 0
        start = self._start
        end = data.find(b"\r\n", start, start + _MAX_DIGITS + 2)
        if end <= start or not data.startswith(self._suffix, end):
            return 0
        digits = data[start:end]
        if not digits.isdigit():
            return 0
        self.digits = digits
        self.length = int(digits)
        self._trust = _TRUST
        return end + len(self._suffix)

    def learn(self, data: bytes, meaning: Meaning) -> None:
        """Remember the head that `data` begins with, which llhttp has accepted, as `meaning`."""
        self._trust -= 1
        if self._trust < 0 and self._trust % _AGAIN_AFTER:
            return  # it has rarely been the same twice
        stop = data.find(b"\r\n\r\n")
        found = _LENGTH.search(data, 0, stop + 2) if stop > 0 else None
        if found is None:
            return
        end = data.find(b"\r\n", found.end())
        if not data[found.end() : end].isdigit():
            return
        self._prefix = data[: found.end()]
        self._start = found.end()
        self._suffix = data[end : stop + 4]
        self.meaning = meaning
