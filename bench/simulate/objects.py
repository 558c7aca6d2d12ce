"""The objects of a simulated namespace, decoded by the same code that reads them from a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nexus_api import LLMBackend, decode_backend, decode_quality_policy, decode_routing_policy
from nexus_proxy.control import Objects

NAMESPACE = "simulated"
CREATED = "2026-01-01T00:00:00Z"


def uid_of(number: int) -> str:
    """The UID of a backend."""
    return f"backend-{number}"


def _meta(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": NAMESPACE, "uid": name, "creationTimestamp": CREATED}


def backend(number: int, models: Sequence[str]) -> LLMBackend:
    """One LLMBackend."""
    name = uid_of(number)
    return decode_backend(
        {
            "apiVersion": "nexus.dev/v1alpha1",
            "kind": "LLMBackend",
            "metadata": _meta(name),
            "spec": {
                "url": f"http://{name}:8000",
                "type": "vllm",
                "models": [{"name": model} for model in models],
            },
        }
    )


def objects(
    *, backends: int, models: Sequence[str], retries: int, quality: dict[str, Any]
) -> Objects:
    """Backends, a RoutingPolicy with `maxRetries`, a QualityPolicy with the spec `quality`."""
    routing = decode_routing_policy({"metadata": _meta("routing"), "spec": {"maxRetries": retries}})
    policy = decode_quality_policy({"metadata": _meta("quality"), "spec": quality})
    return Objects(
        backends=tuple(backend(number, models) for number in range(backends)),
        quality_policies=(policy,),
        routing_policies=(routing,),
    )
