"""Lines of the page by table and UID, encoded: a whole picture, or what is new since the last.

Promises that a picture that took in all changes is what a listener has who got all of them. It
knows no table by name.
"""

from __future__ import annotations

import msgspec

Tables = dict[str, dict[str, bytes]]


class Changes:
    """`head` and lines are JSON; of a line that is gone only its UID is told."""

    def __init__(self) -> None:
        self.head = b""
        self._tables: Tables = {}
        self._gone: dict[str, None] = {}

    @property
    def any(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.head or self._tables or self._gone)

    def get(self, table: str, uid: str) -> bytes | None:
        """A line."""
        return self._tables.get(table, {}).get(uid)

    def put(self, table: str, uid: str, line: bytes) -> None:
        """A line is new, or another than before."""
        self._tables.setdefault(table, {})[uid] = line
        self._gone.pop(uid, None)

    def remove(self, uid: str) -> None:
        """All lines of an object are gone."""
        for lines in self._tables.values():
            lines.pop(uid, None)
        self._gone[uid] = None

    def take(self, later: Changes) -> None:
        """Takes in what came after; a picture does not remember what is gone."""
        for uid in later._gone:
            self.remove(uid)
        for table, lines in later._tables.items():
            self._tables.setdefault(table, {}).update(lines)
        self.head = later.head or self.head
        self._gone.clear()

    def encoded(self, now: float) -> bytes:
        """As JSON; `now` in epoch seconds, so that a page need not trust its own clock."""
        document: dict[str, object] = {"now": int(now)}
        if self.head:
            document["head"] = msgspec.Raw(self.head)
        for table, lines in self._tables.items():
            document[table] = {uid: msgspec.Raw(line) for uid, line in lines.items()}
        if self._gone:
            document["gone"] = list(self._gone)
        return msgspec.json.encode(document)
