"""Which backends changed, in order: how a memoised plan learns of a new load or latency without
looking at all.

A backend appends itself on every change; a reader remembers how far it has read. When the journal
is cut, readers find another `epoch` and look at everything once.
"""

from __future__ import annotations

from collections.abc import Callable

from nexus_proxy.routing.candidate import Backend

LONGEST = 4096


class Journal:
    """An append-only list of changed backends, cut when it has grown long.

    `changed` notes a change of a backend's load, latency or rest. Several changes of every request
    come here, so it is the list's own `append`; readers call `trim`, and no attempt begins unread.
    """

    __slots__ = ("changed", "entries", "epoch")

    def __init__(self) -> None:
        self.entries: list[Backend] = []
        self.epoch = 0
        self.changed: Callable[[Backend], None] = self.entries.append

    def trim(self) -> None:
        """Begin anew if the list is long."""
        if len(self.entries) > LONGEST:
            self.entries.clear()
            self.epoch += 1
