"""Pods get their sidecar from a real API server, by the manifests as they are."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.documents import blocks_of
from nexus_devtools.e2e import eventually

REPOSITORY = Path(__file__).parents[2]
MANIFESTS = REPOSITORY / "manifests"
IN_FORCE_SECONDS = 30.0
POLICIES = {"mutating": "nexus-sidecar", "validating": "nexus-sidecar-checks"}
CONFINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


class Cluster:
    """Pods as they would be: a dry run tells what admission makes of them."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane = plane
        self.namespace = namespace

    def pod(self, *, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "app",
                "labels": {"nexus.dev/inject": "true"},
                "annotations": annotations or {},
            },
            "spec": {
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 1000,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{"name": "app", "image": "app", "securityContext": CONFINED}],
                **spec,
            },
        }

    def create(self, pod: dict[str, Any]) -> dict[str, Any]:
        done = self._run(pod)
        assert done.returncode == 0, done.stderr
        made: dict[str, Any] = yaml.safe_load(done.stdout)
        return made["spec"]

    def refusal(self, pod: dict[str, Any]) -> str:
        done = self._run(pod)
        assert done.returncode != 0, done.stdout
        return str(done.stderr)

    def _run(self, pod: dict[str, Any]) -> Any:
        command = ("-n", self.namespace, "create", "--dry-run=server", "-o", "yaml", "-f", "-")
        return self.plane.run_kubectl(*command, input=yaml.safe_dump(pod))


@pytest.fixture(scope="module")
def injecting(crds: ControlPlane) -> Iterator[ControlPlane]:
    """The API server with `manifests/overlays/default` in force."""
    overlay = MANIFESTS / "overlays" / "default"
    crds.run_kubectl("apply", "-k", MANIFESTS / "rbac" / "operator", check=True)
    applied = crds.run_kubectl("apply", "-k", overlay, check=True)
    assert "Warning" not in applied.stderr
    yield crds
    # The policies alone: other tests use the namespace and what else is in it.
    for kind, name in POLICIES.items():
        for each in ("policybindings", "policies"):
            crds.run_kubectl("delete", f"{kind}admission{each}", name, check=True)


@pytest.fixture
def cluster(injecting: ControlPlane, namespace: str) -> Cluster:
    """A namespace that enforces the restricted standard, with the policies in force."""
    standard = "pod-security.kubernetes.io/enforce=restricted"
    injecting.run_kubectl("label", "namespace", namespace, standard, check=True)
    account = ("create", "serviceaccount", "default")
    injecting.run_kubectl("-n", namespace, *account)
    cluster = Cluster(injecting, namespace)
    deadline = time.monotonic() + IN_FORCE_SECONDS
    bad = cluster.pod(annotations={"nexus.dev/port": "none"})
    while "nexus.dev/port" not in cluster._run(bad).stderr or not _proxies(cluster):
        assert time.monotonic() < deadline, "the policies are not in force"
        time.sleep(0.2)
    return cluster


def _proxies(cluster: Cluster) -> bool:
    done = cluster._run(cluster.pod())
    return done.returncode == 0 and "nexus-proxy" in done.stdout


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["env"]}


def test_a_pod_with_the_label_gets_a_proxy_that_starts_before_it(cluster: Cluster) -> None:
    own = {"name": "migrate", "image": "app", "securityContext": CONFINED}
    spec = cluster.create(cluster.pod(initContainers=[own]))
    proxy, migrate = spec["initContainers"]
    assert (proxy["name"], proxy["restartPolicy"], migrate["name"]) == (
        "nexus-proxy",
        "Always",
        "migrate",
    )
    assert environment(proxy) == {
        "NEXUS_NAMESPACE": cluster.namespace,
        "NEXUS_LISTEN": "127.0.0.1:14800",
        "NEXUS_ADMIN_LISTEN": "0.0.0.0:14890",
        "NEXUS_OPERATOR_URL": "http://nexus-operator.nexus-system.svc:8080",
        "NEXUS_REPORT_TOKEN_FILE": "/var/run/secrets/nexus/report/token",
        "NEXUS_LOG_FORMAT": "json",
    }
    (port,) = proxy["ports"]
    assert (port["name"], port["containerPort"]) == ("nexus-admin", 14890)
    assert proxy["startupProbe"]["httpGet"]["path"] == "/readyz"


def test_the_application_finds_the_proxy_unless_it_says_where_else_to_go(cluster: Cluster) -> None:
    mine = [{"name": "OPENAI_BASE_URL", "value": "http://elsewhere/v1"}]
    spec = cluster.create(
        cluster.pod(
            containers=[
                {"name": "bare", "image": "app", "securityContext": CONFINED},
                {"name": "told", "image": "app", "securityContext": CONFINED, "env": mine},
            ]
        )
    )
    bare, told = spec["containers"]
    assert environment(bare) == {
        "OPENAI_BASE_URL": "http://127.0.0.1:14800/v1",
        "OPENAI_API_KEY": "nexus",
    }
    assert environment(told) == {
        "OPENAI_BASE_URL": "http://elsewhere/v1",
        "OPENAI_API_KEY": "nexus",
    }


def test_the_proxy_has_tokens_of_its_own_where_the_application_has_none(cluster: Cluster) -> None:
    spec = cluster.create(cluster.pod())
    (proxy,) = spec["initContainers"]
    places = {mount["mountPath"]: mount["name"] for mount in proxy["volumeMounts"]}
    sources = {
        volume["name"]: [next(iter(source)) for source in volume["projected"]["sources"]]
        for volume in spec["volumes"]
    }
    api = places["/var/run/secrets/kubernetes.io/serviceaccount"]
    assert sources[api] == ["serviceAccountToken", "configMap", "downwardAPI"]
    report = places["/var/run/secrets/nexus/report"]
    (volume,) = (each for each in spec["volumes"] if each["name"] == report)
    (token,) = volume["projected"]["sources"]
    assert token["serviceAccountToken"]["audience"] == "nexus-operator"
    (app,) = spec["containers"]
    assert "volumeMounts" not in app


def test_annotations_choose_ports_backends_and_secrets(cluster: Cluster) -> None:
    spec = cluster.create(
        cluster.pod(
            annotations={
                "nexus.dev/port": "9000",
                "nexus.dev/admin-port": "9001",
                "nexus.dev/backends-namespace": "models",
                "nexus.dev/credentials": "openai, anthropic",
            }
        )
    )
    (proxy,) = spec["initContainers"]
    told = environment(proxy)
    assert (told["NEXUS_LISTEN"], told["NEXUS_ADMIN_LISTEN"]) == ("127.0.0.1:9000", "0.0.0.0:9001")
    assert told["NEXUS_NAMESPACE"] == "models"
    assert proxy["ports"][0]["containerPort"] == 9001
    assert environment(spec["containers"][0])["OPENAI_BASE_URL"] == "http://127.0.0.1:9000/v1"
    secrets = {v["name"]: v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v}
    folder = told["NEXUS_CREDENTIALS_DIR"]
    mounted = {m["mountPath"]: secrets.get(m["name"]) for m in proxy["volumeMounts"]}
    assert mounted[f"{folder}/openai"] == "openai"
    assert mounted[f"{folder}/anthropic"] == "anthropic"


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({"nexus.dev/port": "http"}, "take a number from 1024 to 65535"),
        ({"nexus.dev/admin-port": "70000"}, "take a number from 1024 to 65535"),
        ({"nexus.dev/port": "14890"}, "must differ"),
        ({"nexus.dev/backends-namespace": "Models!"}, "takes the name of a namespace"),
        ({"nexus.dev/credentials": "a b"}, "takes names of Secrets"),
        ({"nexus.dev/credentials": "a,b,a"}, "names a Secret twice"),
    ],
)
def test_an_annotation_that_makes_no_sense_is_refused_in_words(
    cluster: Cluster, annotations: dict[str, str], words: str
) -> None:
    assert words in cluster.refusal(cluster.pod(annotations=annotations))


def test_a_pod_with_a_proxy_of_its_own_is_left_alone(cluster: Cluster) -> None:
    own = {"name": "nexus-proxy", "image": "mine", "securityContext": CONFINED}
    spec = cluster.create(cluster.pod(containers=[own]))
    assert "initContainers" not in spec
    assert "env" not in spec["containers"][0]


def test_pods_without_the_label_and_namespaces_that_opted_out_are_left_alone(
    cluster: Cluster,
) -> None:
    plain = cluster.pod()
    del plain["metadata"]["labels"]
    assert "initContainers" not in cluster.create(plain)
    out = ("label", "namespace", cluster.namespace, "nexus.dev/inject=false")
    cluster.plane.run_kubectl(*out, check=True)
    deadline = time.monotonic() + IN_FORCE_SECONDS
    while "initContainers" in cluster.create(cluster.pod()):
        assert time.monotonic() < deadline, "the namespace's label is not looked at"
        time.sleep(0.2)


def test_one_apply_lets_every_service_account_of_a_namespace_read_the_three_kinds(
    cluster: Cluster,
) -> None:
    plane, namespace = cluster.plane, cluster.namespace
    rendered = plane.run_kubectl("kustomize", MANIFESTS / "namespace", check=True).stdout
    documents = [_moved(each, namespace) for each in yaml.safe_load_all(rendered)]
    account = ("auth", "can-i", "watch", "llmbackends.nexus.dev", "-n", namespace)
    who = (
        f"--as=system:serviceaccount:{namespace}:any",
        f"--as-group=system:serviceaccounts:{namespace}",
    )
    assert plane.run_kubectl(*account, *who).stdout.strip() == "no"
    plane.run_kubectl("apply", "-f", "-", input=yaml.safe_dump_all(documents), check=True)
    assert plane.run_kubectl(*account, *who).stdout.strip() == "yes"
    verbs = ("auth", "can-i", "patch", "llmbackends.nexus.dev", "-n", namespace)
    assert plane.run_kubectl(*verbs, *who).stdout.strip() == "no"


def _moved(document: dict[str, Any], namespace: str) -> dict[str, Any]:
    moved = yaml.safe_dump(document).replace("default", namespace)
    return dict(yaml.safe_load(moved))


def test_older_clusters_get_the_same_sidecar_by_kustomize(cluster: Cluster, tmp_path: Path) -> None:
    work = tmp_path / "app"
    work.mkdir()
    pod = cluster.pod()["spec"]
    workload = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "app", "labels": {"nexus.dev/inject": "true"}},
        "spec": {
            "selector": {"matchLabels": {"app": "app"}},
            "template": {"metadata": {"labels": {"app": "app"}}, "spec": pod},
        },
    }
    (work / "app.yaml").write_text(yaml.safe_dump(workload))
    place = os.path.relpath(MANIFESTS / "components" / "sidecar-patch", work.resolve())
    kustomization = {"resources": ["app.yaml"], "components": [place]}
    (work / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    rendered = cluster.plane.run_kubectl("kustomize", work, check=True).stdout
    made = yaml.safe_load(rendered)["spec"]["template"]["spec"]
    (patched,) = made["initContainers"]
    (injected,) = cluster.create(cluster.pod())["initContainers"]
    for field in ("name", "image", "restartPolicy", "resources", "volumeMounts"):
        assert patched[field] == injected[field], field
    del injected["securityContext"]["privileged"]
    assert patched["securityContext"] == injected["securityContext"]
    names = {each["name"] for each in patched["env"]}
    assert names | {"NEXUS_OPERATOR_URL"} == set(environment(injected))


def overlay_of(page: str) -> dict[str, Any]:
    """The overlay in a document that patches the policy."""
    blocks = [each.text for each in blocks_of(REPOSITORY, page) if each.language == "yaml"]
    (found,) = (text for text in blocks if "kind: MutatingAdmissionPolicy" in text)
    return dict(yaml.safe_load(found.replace("../manifests", "manifests")))


def overlay_of_flux() -> dict[str, Any]:
    """What Flux puts around the product's own overlay."""
    path = REPOSITORY / "docs" / "examples" / "gitops" / "flux" / "nexus.yaml"
    (spec,) = (
        each["spec"]
        for each in yaml.safe_load_all(path.read_text("utf-8"))
        if "patches" in each["spec"]
    )
    return {"resources": [spec["path"]], **{key: spec[key] for key in ("images", "patches")}}


def policy_of(plane: ControlPlane, overlay: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The policy that injects, as kustomize renders it."""
    root = os.path.relpath(REPOSITORY, folder.resolve())
    places = {
        key: [f"{root}/{each}" for each in overlay[key]]
        for key in ("resources", "components")
        if key in overlay
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({**overlay, **places}))
    rendered = plane.run_kubectl("kustomize", folder, check=True).stdout
    (found,) = (
        each for each in yaml.safe_load_all(rendered) if each["kind"] == "MutatingAdmissionPolicy"
    )
    return dict(found)


def settings(policy: dict[str, Any]) -> dict[str, str]:
    """What all sidecars have in common, by name."""
    variables = policy["spec"]["variables"]
    literals = itertools.takewhile(lambda each: each["expression"].startswith("'"), variables)
    return {each["name"]: each["expression"].strip("'") for each in literals}


DEFAULT = {"resources": ["manifests/overlays/default"]}
PROXY = "registry.example.com/nexus-proxy"


def test_the_page_names_what_all_sidecars_have_in_common_by_its_place(
    crds: ControlPlane, tmp_path: Path
) -> None:
    page = (REPOSITORY / "docs" / "sidecar-and-gateway.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| `(.+)` \|$", page, re.MULTILINE)
    shared = settings(policy_of(crds, DEFAULT, tmp_path))
    assert [(str(n), *each) for n, each in enumerate(shared.items())] == rows


@pytest.mark.parametrize(
    ("overlay", "changed"),
    [
        (overlay_of("docs/install.md"), {"image": f"{PROXY}:0.1.0"}),
        (overlay_of_flux(), {"image": f"{PROXY}:v0.1.0"}),
        (
            overlay_of("docs/sidecar-and-gateway.md"),
            {"image": f"{PROXY}:0.1.0", "memoryLimit": "512Mi"},
        ),
    ],
    ids=["install", "flux", "sidecar"],
)
def test_an_overlay_as_documented_changes_what_it_says_and_nothing_else(
    crds: ControlPlane, tmp_path: Path, overlay: dict[str, Any], changed: dict[str, str]
) -> None:
    as_installed = settings(policy_of(crds, DEFAULT, tmp_path))
    assert settings(policy_of(crds, overlay, tmp_path)) == as_installed | changed


def test_what_an_overlay_changes_holds_for_the_pods_made_after_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    plane = cluster.plane
    as_installed = policy_of(plane, DEFAULT, tmp_path)
    changed = policy_of(plane, overlay_of("docs/sidecar-and-gateway.md"), tmp_path)

    def proxy() -> tuple[str, str]:
        (found,) = cluster.create(cluster.pod())["initContainers"]
        return found["image"], found["resources"]["limits"]["memory"]

    for policy, wanted in (
        (changed, (f"{PROXY}:0.1.0", "512Mi")),
        (as_installed, ("nexus-proxy", "256Mi")),
    ):
        plane.run_kubectl("apply", "-f", "-", input=yaml.safe_dump(policy), check=True)
        eventually(proxy, wanted.__eq__, what="the change is in force", seconds=IN_FORCE_SECONDS)


@pytest.mark.parametrize("bare", ["registry.example.com/nexus-proxy:0.1.0", "512Mi", "json"])
def test_a_value_without_quotes_of_its_own_is_refused_at_once(
    injecting: ControlPlane, tmp_path: Path, bare: str
) -> None:
    policy = policy_of(injecting, DEFAULT, tmp_path)
    policy["spec"]["variables"][0]["expression"] = bare
    command = ("apply", "--dry-run=server", "-f", "-")
    refused = injecting.run_kubectl(*command, input=yaml.safe_dump(policy))
    assert refused.returncode != 0
    assert "spec.variables[0].expression" in refused.stderr


def test_removed_and_installed_again_on_the_same_server_it_injects_again(
    empty: ControlPlane,
) -> None:
    overlay = MANIFESTS / "overlays" / "default"
    empty.create_namespace("shop")
    cluster = Cluster(empty, "shop")

    def answer() -> str:
        done = cluster._run(cluster.pod())
        return done.stderr or str(sorted(yaml.safe_load(done.stdout)["spec"]))

    def becomes(wanted: bool, what: str) -> None:
        eventually(
            answer,
            lambda said: said.startswith("[") and ("initContainers" in said) is wanted,
            what=what,
            seconds=IN_FORCE_SECONDS,
        )

    for _ in range(2):
        empty.run_kubectl("apply", "-k", overlay, check=True)
        becomes(True, "a sidecar is injected")
        # The namespace controller of a whole cluster does what comes last.
        empty.run_kubectl("delete", "-k", overlay, "--wait=false", check=True)
        empty.delete_namespace("nexus-system")
        becomes(False, "nothing is injected any more")
