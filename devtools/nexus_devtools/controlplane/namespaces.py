"""Namespaces in a control plane of our own: made ready for use, and gone at once afterwards.

No controller fills or empties them there, so this does what the service account controller and the
namespace controller would have done.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nexus_devtools.controlplane.admin import AdminClient

_DELETE_AT_ONCE = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}


def create(client: AdminClient, name: str) -> None:
    """Create it, with the ServiceAccount ``default`` that admission demands of every pod."""
    client.request("POST", "/api/v1/namespaces", _object("Namespace", name))
    account = _object("ServiceAccount", "default")
    client.request("POST", f"/api/v1/namespaces/{name}/serviceaccounts", account)


def delete(client: AdminClient, name: str) -> None:
    """Delete it with all that is in it; returns once it is gone."""
    client.request("DELETE", f"/api/v1/namespaces/{name}")
    # From here on the API server refuses new objects in it.
    for prefix, resource in _deletable(client):
        client.request("DELETE", f"{prefix}/namespaces/{name}/{resource}", _DELETE_AT_ONCE)
    emptied = _object("Namespace", name) | {"spec": {"finalizers": []}}
    client.request("PUT", f"/api/v1/namespaces/{name}/finalize", emptied)


def _object(kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}


def _deletable(client: AdminClient) -> Iterator[tuple[str, str]]:
    """Path prefix and plural of every kind that lives in namespaces."""
    groups = client.request("GET", "/apis")["groups"]
    preferred = [f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups]
    for prefix in ["/api/v1", *preferred]:
        for resource in client.request("GET", prefix)["resources"]:
            if resource["namespaced"] and "deletecollection" in resource["verbs"]:
                yield prefix, resource["name"]
