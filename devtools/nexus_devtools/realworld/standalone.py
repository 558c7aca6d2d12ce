"""The product's proxy as a process in its standalone mode, on manifests that a test writes.

Promises: it serves when `start` returns, with every model that was asked for; it is the real
program with its real flags. It is NOT for clusters: `product` is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from nexus_devtools.backends import Child
from nexus_devtools.e2e import eventually
from nexus_devtools.realworld.lab import Lab

START_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standalone:
    """A running proxy."""

    url: str
    admin_url: str
    child: Child
    manifests: Path

    def models(self) -> dict[str, dict[str, Any]]:
        """The entries of GET /v1/models by id."""
        listed = httpx.get(f"{self.url}/v1/models", trust_env=False).raise_for_status().json()
        return {entry["id"]: entry for entry in listed["data"]}

    def write(self, *documents: Mapping[str, Any]) -> None:
        """Replace the manifests; the proxy sees it within a second."""
        self.manifests.write_text(yaml.safe_dump_all(documents))


def start(
    folder: Path,
    documents: Iterable[Mapping[str, Any]],
    *,
    models: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Standalone:
    """Start it in `folder` and wait until it serves `models`."""
    manifests = folder / "manifests"
    manifests.mkdir(parents=True)
    (manifests / "all.yaml").write_text(yaml.safe_dump_all(documents))
    flags = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "text"]
    command = [sys.executable, "-m", "nexus_proxy", "--manifests", str(manifests), *flags]
    seen = Lab(folder).environment() | dict(environment or {})
    child = Child(command, log=folder / "proxy.log", name="nexus-proxy", environment=seen)
    try:
        url = child.wait_for_line(r"serving on (\S+)", seconds=START_SECONDS)[1]
        admin = child.wait_for_line(r"metrics on (\S+)", seconds=START_SECONDS)[1]
        made = Standalone(
            url=f"http://{url}",
            admin_url=f"http://{admin}",
            child=child,
            manifests=manifests / "all.yaml",
        )
        wanted = set(models)
        eventually(
            lambda: set(made.models()),
            lambda found: wanted <= found,
            what=f"models {sorted(wanted)} served",
            seconds=START_SECONDS,
        )
    except BaseException:
        child.stop()
        raise
    return made
