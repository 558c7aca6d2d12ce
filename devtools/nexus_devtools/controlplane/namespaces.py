"""Namespaces for tests: made fresh, and gone at once afterwards.

In a control plane of our own no controller fills or empties namespaces, so this does what the
service account controller and the namespace controller would have done. In a given cluster they
do.
"""

from __future__ import annotations

import json

from nexus_devtools.controlplane.kubectl import Kubectl


def create(kubectl: Kubectl, name: str, *, own: bool) -> None:
    """Create it, with the ServiceAccount ``default`` that admission demands of every pod."""
    kubectl.run("create", "namespace", name, check=True)
    if own:
        kubectl.run("create", "serviceaccount", "default", f"--namespace={name}", check=True)


def delete(kubectl: Kubectl, name: str, *, own: bool) -> None:
    """Delete it with all that is in it; in a given cluster this only begins the deletion."""
    kubectl.run("delete", "namespace", name, "--wait=false", check=True)
    if own:
        _empty(kubectl, name)
        _finalize(kubectl, name)


def _empty(kubectl: Kubectl, name: str) -> None:
    listed = kubectl.run(
        "api-resources", "--namespaced", "--verbs=delete,list", "--output=name", check=True
    )
    kinds = ",".join(listed.stdout.split())
    arguments = ["--all", f"--namespace={name}", "--grace-period=0", "--force", "--wait=false"]
    kubectl.run("delete", kinds, *arguments, check=True)


def _finalize(kubectl: Kubectl, name: str) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name},
        "spec": {"finalizers": []},
    }
    path = f"/api/v1/namespaces/{name}/finalize"
    kubectl.run("replace", f"--raw={path}", "--filename=-", input=json.dumps(document), check=True)
