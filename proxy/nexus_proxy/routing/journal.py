"""Which backends changed, in order: how a memoised plan learns of a new load or latency without
looking at all.

A backend appends itself on every change; a reader remembers how far it has read. When the journal
is cut, readers find another `epoch` and look at everything once.
"""

from __future__ import annotations

from nexus_proxy.routing.candidate import Backend

LONGEST = 4096


class Journal:
    """An append-only list of changed backends, cut when it grows long."""

    __slots__ = ("entries", "epoch")

    def __init__(self) -> None:
        self.entries: list[Backend] = []
        self.epoch = 0

    def changed(self, backend: Backend) -> None:
        """Note a change of a backend's load, latency or rest."""
        entries = self.entries
        if len(entries) >= LONGEST:
            entries.clear()
            self.epoch += 1
        entries.append(backend)
