"""Manifests on disk, and the parts of a proxy wired together without a network."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nexus_api import LLMBackend, QualityPolicy, RoutingPolicy
from nexus_api.decode import decode_object
from nexus_proxy.control import Control, Objects, shared_by_status
from nexus_proxy.kube.client import ServerClock
from nexus_proxy.routing.live import LiveBackends
from nexus_proxy.routing.router import Router
from nexus_proxy.secrets import MountedSecrets
from nexus_quality.monitor import Monitor


@dataclass
class Wired:
    """Monitor, router and control over objects of the test's own."""

    secrets_dir: Path
    now: float = 1000.0
    month: str = "2026-01"
    objects: dict[tuple[str, str], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.router = Router(random=lambda: 0.5)
        self.monitor = Monitor(
            incarnation="ab" * 16,
            started=self.now,
            random=lambda: 0.5,
            on_change=self.router.invalidate,
            on_urgent=lambda _seconds: None,
        )
        self.live = LiveBackends(
            subject=self.monitor.subject,
            secrets=MountedSecrets(self.secrets_dir),
            journal=self.router.journal,
            key=self.monitor.key,
        )
        self.control = Control(
            monitor=self.monitor,
            router=self.router,
            live=self.live,
            shared=shared_by_status(ServerClock(now=self.now, local=self.now)),
            utc_month=lambda: self.month,
        )

    def put(
        self, kind: str, name: str, *, meta: dict[str, Any] | None = None, **parts: Any
    ) -> None:
        """Put an object: `spec` and `status` as in YAML."""
        metadata = {"name": name, "namespace": "team", "uid": f"uid-{name}", **(meta or {})}
        if kind == "LLMBackend":
            parts["spec"] = {"url": f"http://{name}:8000", **parts.get("spec", {})}
        document = {"apiVersion": "nexus.dev/v1alpha1", "kind": kind, "metadata": metadata, **parts}
        self.objects[kind, name] = decode_object(document)

    def apply(self) -> None:
        """Hand everything put so far to the control."""
        kinds = (LLMBackend, QualityPolicy, RoutingPolicy)
        groups = [tuple(o for o in self.objects.values() if isinstance(o, k)) for k in kinds]
        self.control.apply(Objects(*groups), self.now)


@pytest.fixture
def wired(tmp_path: Path) -> Wired:
    """Parts wired together, with an empty folder of Secrets."""
    return Wired(tmp_path)


@pytest.fixture
def manifests(tmp_path: Path) -> Callable[..., Path]:
    """Writes files into a folder of manifests and returns the folder."""
    folder = tmp_path / "manifests"
    folder.mkdir()

    def write(**files: str) -> Path:
        for name, text in files.items():
            (folder / f"{name}.yaml").write_text(textwrap.dedent(text))
        return folder

    return write
