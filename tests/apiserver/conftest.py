"""An API server for one test alone, and how GitOps tools read an object of ours.

`kstatus` is written from the published rules for kinds it has none of its own for: deletion, then
the generation observed, then the conditions Reconciling, Stalled and Ready. `argo_health` runs the
Lua that ships, in Lua 5.1 with the base library alone, as Argo CD does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from lupa import lua51

from nexus_devtools.controlplane import ControlPlane

ARGOCD = Path(__file__).parents[2] / "docs" / "examples" / "gitops" / "argocd"
SCRIPTS = {
    "LLMBackend": "llmbackend.lua",
    "QualityPolicy": "policy.lua",
    "RoutingPolicy": "policy.lua",
}
BASE_LIBRARY_ALONE = "string = nil; math = nil; io = nil; os = nil; package = nil; python = nil"

Reader = Callable[[Mapping[str, Any]], str]


def _kstatus(found: Mapping[str, Any]) -> str:
    metadata, status = found["metadata"], found.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    if status.get("observedGeneration", metadata["generation"]) != metadata["generation"]:
        return "InProgress"
    said = {c["type"]: c["status"] for c in status.get("conditions") or ()}
    if said.get("Reconciling") == "True":
        return "InProgress"
    if said.get("Stalled") == "True":
        return "Failed"
    return "Current" if said.get("Ready", "True") == "True" else "InProgress"


@pytest.fixture(scope="session")
def kstatus() -> Reader:
    """What kstatus makes of an object."""
    return _kstatus


@pytest.fixture(scope="session")
def argo_health() -> Reader:
    """What the shipped health checks make of an object."""

    def read(found: Mapping[str, Any]) -> str:
        lua = lua51.LuaRuntime(register_eval=False)
        lua.execute(BASE_LIBRARY_ALONE)
        lua.globals().obj = lua.table_from(dict(found), recursive=True)
        told = lua.execute((ARGOCD / SCRIPTS[found["kind"]]).read_text(encoding="utf-8"))
        assert isinstance(told.message, str) and told.message
        return str(told.status)

    return read


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane of this test's own, with nothing of ours in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        patch.setenv("NEXUS_TEST_KUBECONFIG", "")
        with ControlPlane.start("empty") as plane:
            yield plane
