"""What keeps the operator from working, each with the line that says what to do about it.

`Fatal` ends the process with exit code 1; `Unready` is waited out, for it can heal without us.
"""

from __future__ import annotations


class Problem(Exception):
    """Its text is one line for a person."""


class Fatal(Problem):
    """Nothing but a person (or a new process) can mend this."""


class Unready(Problem):
    """Heals when somebody acts elsewhere: the operator keeps trying."""


def api_away(server: str, error: Exception) -> Unready:
    """The API server does not answer."""
    what = str(error) or type(error).__name__
    return Unready(f"API server {server} does not answer ({what}): is it running and reachable?")


def token_rejected(server: str, origin: str) -> Unready:
    """401: heals when the token is renewed, or when a starting API server knows it again."""
    return Unready(
        f"API server {server} rejects our credentials (401) from {origin}: "
        "renew the token, or log in again"
    )


def right_missing(*, verb: str, resource: str, namespace: str | None) -> Unready:
    """403, naming the missing right."""
    where = f"in namespace {namespace}" if namespace else "in all namespaces"
    return Unready(
        f"not allowed to {verb} {resource} {where} (403): "
        "apply manifests/rbac/operator, or bind its role to this service account"
    )


def namespace_missing(namespace: str) -> Unready:
    """There is no namespace to keep the Lease in."""
    return Unready(
        f"no namespace {namespace} to hold the Lease in: kubectl apply -k manifests/rbac/operator"
    )


def crds_missing(plurals: list[str]) -> Unready:
    """The kinds are not served."""
    names = ", ".join(f"{plural}.nexus.dev" for plural in plurals)
    return Unready(f"custom resource definitions missing ({names}): kubectl apply -f crds/")


def port_taken(host: str, port: int, error: OSError) -> Fatal:
    """The address cannot be bound."""
    return Fatal(
        f"cannot listen on {host}:{port} ({error.strerror or error}): "
        "stop what uses it, or choose another address with --listen"
    )


def no_cluster(detail: str) -> Fatal:
    """Neither a service account nor a kubeconfig."""
    return Fatal(f"no way to an API server: {detail}; set KUBECONFIG or run in a cluster")


def rivalled(*, name: str) -> Fatal:
    """Another operator writes the statuses that this one writes."""
    return Fatal(
        f"another writer changes the status of {name}: stepping down; "
        "see that one nexus-operator serves each namespace"
    )


def staying(*, name: str) -> str:
    """The same, of one that is to leave in the place of this process."""
    return (
        f"another writer changes the status of {name}, and is expected to step down; "
        "see that one nexus-operator serves each namespace"
    )


def outranked(*, name: str, theirs: int, ours: int) -> Fatal:
    """A higher generation that this process did not write."""
    return Fatal(
        f"another writer moved {name} to verdict generation {theirs} (ours was {ours}): "
        "stepping down; see that one nexus-operator serves each namespace"
    )
