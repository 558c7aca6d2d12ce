"""The operator goes on when the certificate that it shows the API server has been renewed."""

from __future__ import annotations

import datetime
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import yaml

from nexus_devtools.backends import Child
from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.controlplane.certificates import LIFETIME, Pair, issue
from nexus_devtools.e2e import backend, eventually
from nexus_devtools.product import environment, free_address

SECONDS = 20


def certificate(plane: ControlPlane, name: str, *, folder: Path, seconds: float) -> Pair:
    """One of the API server's CA for an administrator, valid for so long."""
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    ca = Pair(plane.ca_file, plane.ca_file.with_suffix(".key"))
    now = datetime.datetime.now(datetime.UTC) - LIFETIME + datetime.timedelta(seconds=seconds)
    issue(ca, pair, common_name=name, organization="system:masters", now=now)
    return pair


def kubeconfig(path: Path, plane: ControlPlane, pair: Pair) -> Path:
    cluster = {"server": plane.server, "certificate-authority": str(plane.ca_file)}
    user = {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}
    document = {
        "current-context": "it",
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [{"name": "it", "user": user}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_client_certificate_that_is_renewed_is_used_when_the_old_one_has_ended(
    crds: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    crds.run_kubectl("create", "namespace", "nexus-system")
    ends = time.time() + SECONDS
    used = certificate(crds, "operator", folder=tmp_path, seconds=SECONDS)
    address = free_address()
    arguments = ("--namespace", namespace, "--listen", address, "--log-format", "text")

    def state(name: str) -> str | None:
        text = crds.run_kubectl("get", "llmb", name, f"--namespace={namespace}", "--output=json")
        found: dict[str, Any] = json.loads(text.stdout)
        status: dict[str, str] = found.get("status", {})
        return status.get("state")

    def create(name: str) -> None:
        document = json.dumps(backend(name, "http://127.0.0.1:9", suspend=True))
        scope = f"--namespace={namespace}"
        crds.run_kubectl("apply", "-f", "-", scope, input=document, check=True)
        eventually(lambda: state(name), lambda s: s == "Suspended", what=f"a status of {name}")

    with ExitStack() as stack:
        child = Child(
            [sys.executable, "-m", "nexus_operator", *arguments],
            log=tmp_path / "operator.log",
            name="nexus-operator",
            environment=environment(kubeconfig(tmp_path / "kubeconfig", crds, used), home=tmp_path),
        )
        stack.callback(child.stop)

        def ready() -> bool:
            try:
                return httpx.get(f"http://{address}/readyz", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        eventually(ready, bool, what="ready")
        create("before")
        assert time.time() < ends, "the machine is too slow for this test"
        fresh = certificate(crds, "renewed", folder=tmp_path, seconds=3600)
        fresh.key.replace(used.key)
        fresh.certificate.replace(used.certificate)
        time.sleep(max(0.0, ends + 1 - time.time()))
        create("after")
        eventually(
            lambda: child.log.read_text().count("ready: "),
            lambda lives: lives == 2,
            what="the watch has begun anew",
        )
        create("watched")
        assert child.log.read_text().count("changed: connecting anew") == 1
        assert child.exit_code is None and ready()
