"""Who may do what: the API server's answer for each service account is what docs/rbac.md says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nexus_devtools.controlplane import ControlPlane

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = REPOSITORY / "docs" / "rbac.md"
MANIFESTS = REPOSITORY / "manifests"
LINE = re.compile(r"\s*(\S*)\s+\[(.*?)\]\s+\[(.*?)\]\s+\[(.*?)\]\s*")
NOBODY = "system:serviceaccount:default:nobody-at-all"

Right = tuple[str, str, str]
"""Resource, names and verbs, as in a row of the document."""


def documented(section: str) -> set[Right]:
    """The rows of a table of the document."""
    _, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(f"<!-- rights: {section} -->\n")
    assert rest, f"docs/rbac.md has no table {section!r}"
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {(resource, names, verbs) for resource, names, verbs in cells}


def rights(plane: ControlPlane, user: str, namespace: str) -> set[Right]:
    """What an account may do in a namespace, one row for each resource."""
    command = ("auth", "can-i", "--list", "--no-headers", f"--as={user}", "-n", namespace)
    answer = plane.run_kubectl(*command, check=True)
    assert "warning" not in answer.stderr.lower(), answer.stderr
    rows = [LINE.fullmatch(line) for line in answer.stdout.splitlines()]
    assert rows and all(rows), answer.stdout
    return {(row[1] or row[2], row[3], ", ".join(sorted(row[4].split()))) for row in rows if row}


@pytest.fixture
def installed(crds: ControlPlane) -> ControlPlane:
    crds.run_kubectl("apply", "-k", MANIFESTS / "rbac" / "operator", check=True)
    return crds


def own(plane: ControlPlane, account: str, namespace: str, *, of: str) -> set[Right]:
    """What an account may do more than any other may."""
    user = f"system:serviceaccount:{of}:{account}"
    return rights(plane, user, namespace) - rights(plane, NOBODY, namespace)


def test_the_operator_may_do_what_is_documented_and_nothing_else(
    installed: ControlPlane, namespace: str
) -> None:
    everywhere = documented("operator, cluster")
    assert own(installed, "nexus-operator", namespace, of="nexus-system") == everywhere
    at_home = everywhere | documented("operator, nexus-system")
    assert own(installed, "nexus-operator", "nexus-system", of="nexus-system") == at_home


@pytest.fixture(params=["sidecar", "gateway"])
def proxy(request: pytest.FixtureRequest, crds: ControlPlane, namespace: str) -> Iterator[str]:
    """The account of a sidecar or of the gateway, bound in the namespace."""
    folder = MANIFESTS / {"sidecar": "namespace", "gateway": "overlays/gateway"}[request.param]
    rendered = crds.run_kubectl("kustomize", folder, check=True).stdout
    wanted = [
        document.replace("namespace: default", f"namespace: {namespace}").replace(
            "serviceaccounts:default", f"serviceaccounts:{namespace}"
        )
        for document in rendered.split("---\n")
        if re.search(r"^kind: Role(Binding)?$", document, re.MULTILINE)
    ]
    crds.run_kubectl("apply", "-f", "-", input="---\n".join(wanted), check=True)
    yield {"sidecar": "any-account", "gateway": "nexus-gateway"}[request.param]


def test_a_proxy_may_read_the_three_kinds_of_its_namespace_and_nothing_else(
    crds: ControlPlane, namespace: str, proxy: str
) -> None:
    user = f"system:serviceaccount:{namespace}:{proxy}"
    group = f"system:serviceaccounts:{namespace}"
    listed = own(crds, proxy, namespace, of=namespace)
    # The group of a namespace's accounts comes with a token, and with --as-group.
    for verb, resource, expected in (
        ("list", "llmbackends.nexus.dev", "yes"),
        ("watch", "routingpolicies.nexus.dev", "yes"),
        ("patch", "llmbackends.nexus.dev/status", "no"),
        ("get", "secrets", "no"),
        ("report", "llmbackends.nexus.dev", "no"),
    ):
        command = ("auth", "can-i", verb, resource, f"--as={user}", f"--as-group={group}")
        answer = crds.run_kubectl(*command, "-n", namespace)
        assert answer.stdout.strip() == expected, (verb, resource)
    assert listed == documented("proxy")
    assert own(crds, proxy, "default", of=namespace) == set()
