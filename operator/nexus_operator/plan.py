"""What is to be written of which object, between who wants it and who writes it.

Promises shapes alone: `planner` makes plans, `writer` carries them out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from nexus_api import ObjectMeta
from nexus_api.wire import Wire
from nexus_operator.notes import Note


class Key(NamedTuple):
    """An object: plural of its kind, and UID."""

    plural: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A write to be: the object's metadata as last seen, the status, and what follows from it.

    `accepted` gets the stored object and returns the Events to create.
    """

    metadata: ObjectMeta
    status: Wire
    accepted: Callable[[Mapping[str, Any]], list[Note]]


class Planner(Protocol):
    """Knows what should be written now."""

    def plan(self, key: Key) -> Plan | None:
        """The write that is due, None if there is none."""
        ...

    def reread(self, key: Key, stored: Mapping[str, Any] | None) -> None:
        """Takes in an object read again after a conflict; None: it is gone."""
        ...
