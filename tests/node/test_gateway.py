"""The shared gateway, rolled out under load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from nexus_devtools.node import pods

GATEWAY = Path(__file__).parents[2] / "manifests" / "overlays" / "gateway"


def install(shop: Any) -> None:
    """`manifests/overlays/gateway` in this namespace."""
    rendered = shop.run("kustomize", GATEWAY)
    documents = list(yaml.safe_load_all(rendered))
    for document in documents:
        document["metadata"]["namespace"] = shop.namespace
        for subject in document.get("subjects", ()):
            subject["namespace"] = shop.namespace
        if document["kind"] == "Deployment":
            # The namespace goes soon after the test, whatever is still under way.
            document["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 60
    shop.apply(*documents)
    shop.run("rollout", "status", "deployment/nexus-gateway", "--timeout=120s")


def test_a_rolling_restart_under_load_fails_no_request(shop: Any) -> None:
    shop.open_up("sim-a", "sim-b")
    install(shop)
    client = pods.pod("client", ["/bin/sleep", "infinity"])
    client["spec"]["containers"][0]["env"].append(
        {"name": "OPENAI_BASE_URL", "value": "http://nexus-gateway:8000/v1"}
    )
    shop.apply(client)
    shop.ready("client")
    warm, _ = shop.shopping("client", seconds=2).done()
    assert warm == {"200": 20}
    shopping = shop.shopping("client", seconds=40)
    shop.run("rollout", "restart", "deployment/nexus-gateway")
    shop.run("rollout", "status", "deployment/nexus-gateway", "--timeout=120s")
    statuses, backends = shopping.done()
    assert statuses == {"200": 400}
    assert set(backends) == {"sim-a", "sim-b"}
