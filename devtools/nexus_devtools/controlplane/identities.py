"""Identities with real rights: tokens of ServiceAccounts, made by the API server's TokenRequest.

It grants nothing. What an identity may do is what the manifests' RBAC says.
"""

from __future__ import annotations

from nexus_devtools.controlplane.errors import ControlPlaneError
from nexus_devtools.controlplane.kubectl import Kubectl

DEFAULT_SECONDS = 86_400
LEAST_SECONDS = 600


def token(
    kubectl: Kubectl,
    *,
    namespace: str,
    service_account: str,
    audience: str | None,
    expiration_seconds: int,
) -> str:
    """A token for the ServiceAccount; the account is created first where it does not exist."""
    if expiration_seconds < LEAST_SECONDS:
        raise ControlPlaneError(
            f"a token must live for {LEAST_SECONDS} seconds at least, not {expiration_seconds}"
        )
    _ensure_account(kubectl, namespace, service_account)
    arguments = ["create", "token", service_account, f"--namespace={namespace}"]
    arguments.append(f"--duration={expiration_seconds}s")
    if audience is not None:
        arguments.append(f"--audience={audience}")
    return kubectl.run(*arguments, check=True).stdout.strip()


def _ensure_account(kubectl: Kubectl, namespace: str, service_account: str) -> None:
    answer = kubectl.run("create", "serviceaccount", service_account, f"--namespace={namespace}")
    if answer.returncode != 0 and "already exists" not in answer.stderr:
        raise ControlPlaneError(
            f"no token for {namespace}/{service_account}: {answer.stderr.strip()}"
        )
