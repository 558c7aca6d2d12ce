"""From the model a client named to the models that may answer: aliases, then fallbacks.

Aliases are followed three deep; a fourth hop, or a cycle, is not followed. Fallbacks are one level:
the fallbacks of a fallback do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nexus_api import Alias, Fallback

MAX_ALIAS_DEPTH = 3


def alias_chain(name: str, aliases: Mapping[str, str]) -> tuple[str, ...]:
    """The name and each name it stands for, the model last."""
    chain = [name]
    while len(chain) <= MAX_ALIAS_DEPTH:
        target = aliases.get(chain[-1])
        if target is None or target in chain:
            break
        chain.append(target)
    return tuple(chain)


def alias_map(aliases: Iterable[Alias]) -> dict[str, str]:
    """Alias name to what it stands for."""
    return {alias.name: alias.model for alias in aliases}


def fallback_map(fallbacks: Iterable[Fallback]) -> dict[str, tuple[str, ...]]:
    """Model to the models that may answer in its place, in order."""
    return {fallback.model: fallback.to for fallback in fallbacks}
