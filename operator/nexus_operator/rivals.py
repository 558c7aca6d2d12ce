"""Another operator that serves the same backends: known by the statuses that it writes.

Two operators with leases of their own would overwrite each other for ever, each right by what its
proxies told it. Promises to notice a status that this process neither found, sent nor wrote, and
that an operator wrote; what a person or another tool puts there is no rival, and is overwritten.
And that of two which fight over a backend exactly one gives way: the one that hears fewer proxies,
where both hear as many the one that came later. For a status is only overwritten by who has seen
it, so a process that gives way at the sight of one never writes what would make the other do so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from nexus_api import LLMBackend, LLMBackendStatus
from nexus_api.pace import paced
from nexus_operator.kube import FIELD_MANAGER
from nexus_operator.material import without_foreign_conditions

# The last write of the process that this one replaces may still be under way.
SETTLED_SECONDS = paced(20.0)
MOST_SENT = 4
# One that was here first lets the other see so, for longer than that one is deaf to it.
ESTABLISHED_SECONDS = paced(120.0)
PATIENCE_SECONDS = paced(60.0)
FORGOTTEN_SECONDS = paced(600.0)


class Rivals:
    """By UID, the statuses that surprise nobody. `started`: when this process began to judge."""

    def __init__(self, *, clock: Callable[[], float], started: Callable[[], float]) -> None:
        self._clock = clock
        self._started = started
        self._expected: dict[str, list[LLMBackendStatus]] = {}
        self._met = self._seen = -math.inf

    def sending(self, uid: str, status: LLMBackendStatus) -> None:
        """This status may be stored from now on, also if the answer to the write is lost."""
        self._expected[uid] = [*self._expected.get(uid, []), status][-MOST_SENT:]

    def stored(self, uid: str, status: LLMBackendStatus) -> None:
        """This is what a write of ours made of it."""
        self._expected[uid] = [status]

    def forget(self, uid: str) -> None:
        """A backend is gone."""
        self._expected.pop(uid, None)

    def wrote(self, backend: LLMBackend, stored: Mapping[str, Any]) -> bool:
        """Whether another operator wrote the status of this backend; each write is told once."""
        uid, status = backend.metadata.uid, backend.status
        expected = self._expected.get(uid)
        if expected is not None and any(_same(status, one) for one in expected):
            return False
        self._expected[uid] = [status]
        settled = self._clock() - self._started() >= SETTLED_SECONDS
        return expected is not None and settled and writers(stored) == {FIELD_MANAGER}

    def outlast(self, *, ours: int, theirs: int) -> bool:
        """Whether this process stays, at the sight of a status that another operator wrote; `ours`
        and `theirs`: the proxies that either hears about the backend.
        """
        now = self._clock()
        if now - self._seen > FORGOTTEN_SECONDS:
            self._met = now
        self._seen = now
        if ours != theirs:
            return ours > theirs
        here_first = self._met - self._started() >= ESTABLISHED_SECONDS
        return here_first and now - self._met < PATIENCE_SECONDS


def writers(stored: Mapping[str, Any]) -> set[str]:
    """The field managers of an object's status."""
    entries = (stored.get("metadata") or {}).get("managedFields") or ()
    return {str(e.get("manager")) for e in entries if e.get("subresource") == "status"}


def _same(seen: LLMBackendStatus, ours: LLMBackendStatus) -> bool:
    return _ordered(without_foreign_conditions(seen, ours)) == _ordered(ours)


def _ordered(status: LLMBackendStatus) -> LLMBackendStatus:
    """The status with its maps in one order: the API server may keep that of before."""
    return replace(
        status,
        conditions=tuple(sorted(status.conditions, key=lambda condition: condition.type)),
        models=tuple(sorted(status.models, key=lambda model: model.name)),
    )
