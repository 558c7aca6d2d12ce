"""What the demo puts into the cluster: kinds, RBAC, samples.

Promises: they are the files a user would apply. It is NOT the API server itself, and gives nobody
credentials.
"""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.demo.scenario import NAMESPACE
from nexus_devtools.product import RBAC, REPOSITORY

_SAMPLES = REPOSITORY / "manifests" / "samples" / "demo"


def install(plane: ControlPlane) -> None:
    """Apply the kinds, the operator's RBAC, and the namespace with the applications' RBAC."""
    plane.apply_crds()
    plane.run_kubectl("apply", "-k", RBAC / "operator", check=True)
    plane.run_kubectl("apply", "-k", _SAMPLES / "rbac", check=True)


def apply_samples(plane: ControlPlane, urls: Mapping[str, str]) -> None:
    """Apply the policy and the backends, these at the addresses they have in this run."""
    plane.run_kubectl("apply", "-n", NAMESPACE, "-f", _SAMPLES / "qualitypolicy.yaml", check=True)
    text = (_SAMPLES / "llmbackends.yaml").read_text(encoding="utf-8")
    backends = with_urls(text, urls)
    plane.run_kubectl("apply", "-n", NAMESPACE, "-f", "-", input=backends, check=True)


def with_urls(manifests: str, urls: Mapping[str, str]) -> str:
    """The LLMBackend manifests with ``spec.url`` of each replaced by name."""
    documents = list(yaml.safe_load_all(manifests))
    for document in documents:
        document["spec"]["url"] = urls[document["metadata"]["name"]]
    return yaml.safe_dump_all(documents, sort_keys=False)


def is_taken(plane: ControlPlane) -> bool:
    """Whether the demo's namespace exists already, so that what is in it may be somebody's."""
    found = plane.run_kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name")
    return bool(found.stdout.strip())


def uninstall(plane: ControlPlane) -> None:
    """Remove the demo's namespace from a cluster that is not ours; kinds and roles stay."""
    everything = ("llmbackends,qualitypolicies", "--all", "--ignore-not-found")
    plane.run_kubectl("delete", "-n", NAMESPACE, *everything)
    plane.run_kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")
