"""Which spec each published verdict is about: the fingerprint of a backend's judged generation.

A generation is one spec for ever, so what is known of it stays true whichever process learned it.
Promises that a fingerprint is given only for the generation it was taken of, and that what could
not be saved is told again. It is kept in the store beside the counters; without one it is empty
after a restart. What follows from another fingerprint is the engine's (S15).
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import NamedTuple

from nexus_api import LLMBackend
from nexus_api.fingerprint import verdict_fingerprint


class SpecRow(NamedTuple):
    """The spec of a backend in one generation."""

    uid: str
    generation: int
    fingerprint: str


class Specs:
    """The latest judged spec of each backend, by UID."""

    def __init__(self) -> None:
        self._known: dict[str, SpecRow] = {}
        self._changed: set[str] = set()
        self._collected: set[str] = set()

    def published(self, backend: LLMBackend) -> None:
        """A backend as it is stored: if its status is about its spec, that is remembered."""
        uid, generation = backend.metadata.uid, backend.metadata.generation
        if backend.status.observed_generation != generation:
            return
        row = SpecRow(uid, generation, verdict_fingerprint(backend.spec))
        if self._known.get(row.uid) != row:
            self._known[row.uid] = row
            self._changed.add(row.uid)

    def fingerprint(self, uid: str, generation: int) -> str | None:
        """That of a backend's spec in a generation, None if it is not known."""
        row = self._known.get(uid)
        return row.fingerprint if row is not None and row.generation == generation else None

    def forget(self, uid: str) -> None:
        """A backend is gone."""
        if self._known.pop(uid, None) is not None:
            self._changed.add(uid)

    def recall(self, rows: Iterable[SpecRow]) -> None:
        """What an earlier process had saved; what this one knows already is no older."""
        for row in rows:
            self._known.setdefault(row.uid, row)

    def only(self, uids: Container[str]) -> None:
        """Forgets backends that were deleted while nobody looked."""
        for uid in [uid for uid in self._known if uid not in uids]:
            self.forget(uid)

    @property
    def changed(self) -> bool:
        """Whether there is anything to save."""
        return bool(self._changed)

    def collect(self, *, everything: bool) -> tuple[list[SpecRow], list[str]]:
        """The rows to save, and the UIDs of those that are no more, until `saved` or `put_back`."""
        self._collected, self._changed = self._changed, set()
        rows = [row for uid, row in self._known.items() if everything or uid in self._collected]
        return rows, [uid for uid in self._collected if uid not in self._known]

    def saved(self) -> None:
        """What was collected is safe."""
        self._collected = set()

    def put_back(self) -> None:
        """What was collected could not be saved."""
        self._changed |= self._collected
        self._collected = set()
