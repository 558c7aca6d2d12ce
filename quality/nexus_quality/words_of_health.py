"""The sentences about a backend's health that a person reads, each spelled once.

Promises what `words` does. `seen` is what a probe saw: its own sentence, or several together.
"""

from __future__ import annotations

from nexus_quality.words import Words

LOOK = "look at the backend, or correct spec.url or spec.healthCheck"
NOT_PROBED = "Not probed yet"
PROBING_OFF = "spec.healthCheck.enabled is false: never probed"


def disagrees(*, seen: str, seconds: int) -> str:
    """Probes fail, but requests succeed."""
    return (
        f"Probes fail ({seen}), but requests succeeded within the last {seconds} s, so it stays in "
        "service; correct spec.healthCheck.path, or look at the network between operator and "
        "backend"
    )


def unheard(*, seen: str, seconds: int) -> str:
    """Probes fail, and the proxies have not been heard since."""
    return (
        f"Probes fail ({seen}); before that counts, the proxies have up to {seconds} s to say "
        "whether requests succeed"
    )


def suspect(*, seen: str, failing: int, probed: int, seconds: int) -> str:
    """Too many backends turned at once to be their own fault."""
    return (
        f"Probes fail ({seen}), but {failing} of {probed} backends, more than half, began to fail "
        f"within the same {seconds} s, so none is taken out; look at the operator's own network"
    )


def failing(*, seen: str, failures: int, threshold: int, seconds: int) -> Words:
    """Probes failed as often as it takes, and no request succeeded meanwhile."""
    return Words(
        f"{failures} probes in a row failed, {threshold} suffice ({seen}), and no request "
        f"succeeded within the last {seconds} s",
        LOOK,
    )


def seen_in(message: str) -> str:
    """What the probe saw, out of the sentence that says that it is out."""
    _, found, rest = message.partition(" suffice (")
    seen, ended, _ = rest.rpartition("), and no request")
    return seen if found and ended else message
