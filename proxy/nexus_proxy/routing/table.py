"""The routing table: who serves which model, and by which rules. Immutable; a change makes a new
one.

The `Backend` and `Candidate` objects in it are live and the same from table to table. Building one
from objects is `live`'s business, choosing from it the router's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from nexus_proxy.routing.candidate import Backend, Candidate
from nexus_proxy.routing.request import CAPABILITY_NAMES
from nexus_proxy.routing.rules import Rules


@dataclass(frozen=True, slots=True)
class Table:
    """Candidates by model name, backends by UID, and the rules of the namespace."""

    candidates: Mapping[str, tuple[Candidate, ...]] = field(default_factory=dict)
    backends: Mapping[str, Backend] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)

    def names(self) -> list[str]:
        """Every name a client may ask for that leads to a candidate, aliases included, sorted."""
        aliases = (a for a in self.rules.aliases if self.rules.chain(a)[-1] in self.candidates)
        return sorted({*self.candidates, *aliases})

    def undiscovered(self) -> list[Backend]:
        """The backends of which no model is known yet, sorted by name."""
        known = {c.backend.uid for members in self.candidates.values() for c in members}
        return sorted(
            (backend for uid, backend in self.backends.items() if uid not in known),
            key=lambda backend: backend.name,
        )

    def models_body(self) -> bytes:
        """The body of GET /v1/models: every name that a backend can serve now."""
        data = []
        for name in self.names():
            serving = [c for c in self.candidates[self.rules.chain(name)[-1]] if _can_serve(c)]
            if serving:
                data.append(_model(name, serving))
        return msgspec.json.encode({"object": "list", "data": data})


def _can_serve(candidate: Candidate) -> bool:
    traits = candidate.traits
    out = traits.suspended or traits.obstacle or traits.unhealthy or candidate.subject.rejected()
    return not out


def _model(name: str, serving: list[Candidate]) -> dict[str, object]:
    entry: dict[str, object] = {
        "id": name,
        "object": "model",
        "created": min(candidate.traits.created for candidate in serving),
        "owned_by": ",".join(sorted({candidate.backend.name for candidate in serving})),
    }
    lengths = [c.traits.context_length for c in serving if c.traits.context_length]
    if lengths:
        entry["context_length"] = max(lengths)
    known = [c.traits.capabilities for c in serving if c.traits.capabilities is not None]
    if known:
        entry["capabilities"] = {
            label: any(bits & bit for bits in known) for bit, label in CAPABILITY_NAMES.items()
        }
    return entry
