"""What the operator's parts tell the one who runs them.

Promises names for it alone: what follows is `context`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nexus_operator.credentials import Credentials
from nexus_operator.problems import Fatal


@dataclass(frozen=True, slots=True, kw_only=True)
class Wires:
    """What parts tell the one who runs them. `load` finds credentials anew; `replaced`: others than
    a token were.
    """

    load: Callable[[], Credentials]
    deposed: Callable[[], None]
    fail: Callable[[Fatal], None]
    replaced: Callable[[], None]
    why_not_ready: Callable[[], str | None]
