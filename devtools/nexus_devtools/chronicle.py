"""Every version of every LLMBackend of a namespace that the API server ever stored.

Promises that nothing is missed between begin and end: it is one watch of `kubectl`, written to a
file. It ends with the API server it began with.
"""

from __future__ import annotations

import itertools
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nexus_api.meta import BACKEND_PLURAL, GROUP, VERSION
from nexus_devtools.backends import Child
from nexus_devtools.controlplane import ControlPlane

Stored = dict[str, Any]


class Chronicle:
    """Begins at once with what is there; `stack` ends it."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path, stack: ExitStack) -> None:
        place = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{BACKEND_PLURAL}?watch=1"
        self._log = folder / f"{namespace}.chronicle"
        kubectl = [str(plane.kubectl), f"--kubeconfig={plane.kubeconfig}", "get", "--raw", place]
        child = Child(kubectl, log=self._log, name="kubectl watch")
        stack.callback(child.stop)

    def versions(self, name: str) -> list[Stored]:
        """The stored versions of one backend in order, deletions left out."""
        whole = self._log.read_text().rpartition("\n")[0].splitlines()
        events = [json.loads(line) for line in whole if line.startswith("{")]
        objects = [e["object"] for e in events if e["type"] in ("ADDED", "MODIFIED")]
        return [o for o in objects if o["metadata"]["name"] == name]

    def generations(self, name: str) -> list[int]:
        """The verdict generations that were ever stored, in order, each run once."""
        found: list[int] = []
        for version in self.versions(name):
            generation = (version.get("status") or {}).get("verdictGeneration")
            if generation is not None and found[-1:] != [generation]:
                found.append(generation)
        return found

    def status_writes(self, name: str) -> int:
        """How many versions differ from the one before them in status."""
        statuses = [None, *(version.get("status") for version in self.versions(name))]
        return sum(a != b for a, b in itertools.pairwise(statuses))

    def figure_writes(self, name: str) -> int:
        """How many versions differ from the one before them in status, but in nothing that
        decides: the state, the generation, what the conditions come to.
        """
        statuses = [version.get("status") or {} for version in self.versions(name)]
        return sum(a != b and _decided(a) == _decided(b) for a, b in itertools.pairwise(statuses))


def _decided(status: Stored) -> tuple[object, ...]:
    conditions = status.get("conditions") or ()
    said = sorted((c["type"], c["status"], c["reason"]) for c in conditions)
    return status.get("state"), status.get("verdictGeneration"), said
