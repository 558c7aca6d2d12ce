"""What the demo puts into the cluster, and the identities its processes run under.

Promises: operator, proxies and the demo's own eyes each get a ServiceAccount's token and nothing
more; kinds, RBAC and samples are the files a user would apply. It is NOT the API server itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.demo.folder import Folder
from nexus_devtools.demo.scenario import APPS, NAMESPACE

_REPOSITORY = Path(__file__).resolve().parents[3]
_SAMPLES = _REPOSITORY / "manifests" / "samples" / "demo"
_REPORT_AUDIENCE = "nexus-operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """Files with the credentials of each process."""

    operator: Path
    proxies: Mapping[str, Path]
    report_tokens: Mapping[str, Path]
    viewer_token: str


def install(plane: ControlPlane) -> None:
    """Apply the kinds, the operator's RBAC, and the namespace with the applications' RBAC."""
    plane.run_kubectl("apply", "--server-side", "-f", _REPOSITORY / "crds", check=True)
    kinds = "crd/llmbackends.nexus.dev crd/qualitypolicies.nexus.dev crd/routingpolicies.nexus.dev"
    plane.run_kubectl(
        "wait", "--for=condition=Established", "--timeout=30s", *kinds.split(), check=True
    )
    plane.run_kubectl("apply", "-k", _REPOSITORY / "manifests" / "rbac" / "operator", check=True)
    plane.run_kubectl("apply", "-k", _SAMPLES / "rbac", check=True)


def identities(plane: ControlPlane, folder: Folder) -> Identities:
    """Ask the API server for the tokens and write them where only this user can read them."""
    operator = folder.path / "operator.kubeconfig"
    plane.write_kubeconfig(operator, "nexus-system", "nexus-operator")
    proxies, reports = {}, {}
    for app in APPS:
        proxies[app] = plane.write_kubeconfig(folder.path / f"{app}.kubeconfig", NAMESPACE, app)
        token = plane.identity(NAMESPACE, app, audience=_REPORT_AUDIENCE)
        reports[app] = folder.secret(f"{app}.report-token", token)
    return Identities(
        operator=operator,
        proxies=proxies,
        report_tokens=reports,
        viewer_token=plane.identity(NAMESPACE, "viewer"),
    )


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
