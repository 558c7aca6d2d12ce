"""How large a world is measured, and who uses what in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NAMESPACE = "scale"
MODELS = ("large", "small")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """`rate`: requests a second of each reporter; `history`: seconds of traffic before the start.

    `failing`: the share of backends that fail at any moment of the storm.
    """

    backends: int = 1000
    reporters: int = 1000
    used: int = 10
    rate: float = 10.0
    history: float = 600.0
    failing: float = 0.05

    def users_of(self, reporter: int) -> list[int]:
        """The backends a reporter uses: each has the same number of reporters, in ever new sets."""
        steps = (reporter * self.used + k * (1 + reporter // 7) for k in range(self.backends))
        chosen = dict.fromkeys(step % self.backends for step in steps)
        return list(chosen)[: self.used]


def uid_of(number: int) -> str:
    """The UID of a backend, as long as a real one."""
    return f"00000000-0000-4000-8000-{number:012d}"


def manifest(number: int) -> dict[str, Any]:
    """A backend as the API server stores it."""
    return {
        "apiVersion": "nexus.dev/v1alpha1",
        "kind": "LLMBackend",
        "metadata": {
            "name": f"b{number:04d}",
            "namespace": NAMESPACE,
            "uid": uid_of(number),
            "resourceVersion": str(number + 1),
            "generation": 1,
            "creationTimestamp": "2026-11-24T00:00:00Z",
            "labels": {},
        },
        "spec": {
            "url": f"http://b{number:04d}.example:8000",
            "type": "vllm",
            "models": [{"name": model} for model in MODELS],
            "healthCheck": {"enabled": False},
        },
    }
