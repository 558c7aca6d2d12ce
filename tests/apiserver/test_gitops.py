"""The repository of docs/examples/gitops, applied as Flux and Argo CD apply one, under traffic.

An hour of traffic is a minute here: figures are published each second instead of each half minute,
a backend fails and recovers twice, and at least 40 writes of status are awaited.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from nexus_devtools.backends import Fault, FaultKind, Script
from nexus_devtools.chronicle import Chronicle
from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import MODEL, PROMPT, World, eventually, open_world
from nexus_devtools.traffic import Traffic

Stored = dict[str, Any]
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "gitops"
MODELS = EXAMPLE / "models"
KINDS = "llmbackends,qualitypolicies,routingpolicies"
STATUS_WRITES = 40
OUTAGES = 2
SERVED_BY = {"vllm-a": "alpha", "vllm-b": "beta", "openai": "gamma"}
BROKEN = Script(headers_seconds=0.01, faults=(Fault(kind=FaultKind.STATUS, status=500),))
FLAKY = Script(
    headers_seconds=0.01,
    faults=(Fault(kind=FaultKind.STATUS, status=500, probability=0.35),),
    seed=3,
)
READ_AS = {
    "Active": ("Current", "Healthy"),
    "Probation": ("Current", "Healthy"),
    "Excluded": ("InProgress", "Progressing"),
    "Suspended": ("InProgress", "Suspended"),
}
Reader = Callable[[Stored], str]
QUICK = {
    "metricsIntervalSeconds": 1,
    "consecutiveFailures": 0,
    "recovery": {"baseExclusionSeconds": 3, "maxExclusionSeconds": 6, "slowStartSeconds": 1},
}


@dataclass
class Team:
    """A platform team: its repository (an overlay of the example's) and who applies it.

    Objects that left the repository go, by the inventory of the apply before (Flux) or by their
    label (Argo CD).
    """

    world: World
    folder: Path
    overlay: str
    manager: str
    instance: str = ""
    components: tuple[str, ...] = ()
    changes: tuple[Stored, ...] = ()
    inventory: set[tuple[str, str]] = field(default_factory=set)

    def commit(self) -> None:
        """Write the repository as it is meant to be now."""
        root = Path(os.path.relpath(MODELS.resolve(), self.folder.resolve()))
        addresses = [
            patch("LLMBackend", name, url=self.world.backends[served].url, healthCheck=PROBED)
            for name, served in SERVED_BY.items()
        ]
        label = {"app.kubernetes.io/instance": f"models-{self.overlay}"}
        document = {
            "namespace": self.world.product.namespace,
            "labels": [{"pairs": label}],
            "resources": [str(root / "overlays" / self.overlay)],
            "components": [str(root / "changes" / name) for name in self.components],
            "patches": [*addresses, *self.changes, WITHOUT_NAMESPACE],
        }
        (self.folder / "kustomization.yaml").write_text(yaml.safe_dump(document))

    def rendered(self) -> set[tuple[str, str]]:
        text = self.world.kubectl("kustomize", str(self.folder))
        return {(d["kind"], d["metadata"]["name"]) for d in yaml.safe_load_all(text)}

    def sync(self) -> None:
        """Server-side apply as a field manager of its own, then prune."""
        self.commit()
        self.world.kubectl("apply", *self._as_manager(), "-k", str(self.folder))
        wanted = self.rendered()
        for kind, name in self._owned() - wanted:
            self.world.kubectl("delete", kind, name)
        self.inventory = wanted

    def _owned(self) -> set[tuple[str, str]]:
        if not self.instance:
            return self.inventory
        return {
            (found["kind"], found["metadata"]["name"])
            for found in self.objects(f"app.kubernetes.io/instance={self.instance}")
        }

    def objects(self, selector: str = "") -> list[Stored]:
        """Our kinds' objects as they are stored, with who owns which field."""
        text = self.world.kubectl(
            "get", KINDS, "-o", "json", "--show-managed-fields", f"--selector={selector}"
        )
        found: list[Stored] = json.loads(text)["items"]
        return found

    def diff(self) -> str:
        """What `kubectl diff` prints; "" where nothing drifted."""
        plane = self.world.product.plane
        seen = plane.run_kubectl("diff", *self._as_manager(), "-k", str(self.folder))
        assert seen.returncode in (0, 1), seen.stderr
        assert bool(seen.stdout) == (seen.returncode == 1)
        return seen.stdout

    def _as_manager(self) -> tuple[str, ...]:
        return ("--server-side", "--force-conflicts", f"--field-manager={self.manager}")


PROBED = {"periodSeconds": 1}
WITHOUT_NAMESPACE = {
    "target": {"kind": "Namespace"},
    "patch": yaml.safe_dump(
        {"$patch": "delete", "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "any"}}
    ),
}


def patch(kind: str, name: str, **spec: Any) -> Stored:
    """A strategic patch of a spec, for a kustomization."""
    document = {
        "apiVersion": "nexus.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }
    return {"target": {"kind": kind, "name": name}, "patch": yaml.safe_dump(document)}


@pytest.fixture(scope="module")
def world(crds: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("gitops")
        yield open_world(crds, f"gitops-{secrets.token_hex(4)}", folder, stack)


@pytest.fixture
def chronicle(world: World) -> Iterator[Chronicle]:
    product = world.product
    with ExitStack() as stack:
        folder = product.folder / secrets.token_hex(4)
        folder.mkdir()
        yield Chronicle(product.plane, product.namespace, folder, stack)


@pytest.fixture
def traffic(world: World) -> Traffic:
    return Traffic({app: proxy.url for app, proxy in world.proxies.items()}, MODEL)


def status_of(world: World, kind: str, name: str) -> Stored:
    found: Stored = json.loads(world.kubectl("get", kind, name, "-o", "json"))
    return found.get("status") or {}


def assert_owners(team: Team) -> None:
    """The team owns what is in the repository, the operator owns status; nobody else anything."""
    for found in team.objects():
        name = f"{found['kind']} {found['metadata']['name']}"
        owners = {
            (entry["manager"], entry.get("subresource", "")): entry
            for entry in found["metadata"]["managedFields"]
        }
        assert set(owners) == {(team.manager, ""), ("nexus-operator", "status")}, name
        assert set(owners["nexus-operator", "status"]["fieldsV1"]) == {"f:status"}, name
        assert "f:status" not in owners[team.manager, ""]["fieldsV1"], name
        assert not found["metadata"].get("finalizers"), name


def wait_until_seen(team: Team) -> None:
    eventually(
        team.objects,
        lambda objects: all(
            (o.get("status") or {}).get("observedGeneration") == o["metadata"]["generation"]
            for o in objects
        ),
        what="the operator has seen every object",
    )


def states_read_as_they_are(chronicle: Chronicle, kstatus: Reader, argo_health: Reader) -> set[str]:
    """kstatus and Argo CD read every version that was ever stored as its state; returns these."""
    seen = set()
    for name in SERVED_BY:
        for version in chronicle.versions(name):
            status = version.get("status") or {}
            if status.get("observedGeneration") != version["metadata"]["generation"]:
                assert argo_health(version) == "Progressing"
                continue
            stalled = {"type": "Stalled", "status": "True"}.items()
            mend = any(stalled <= condition.items() for condition in status["conditions"])
            expected = READ_AS[status["state"]]
            if mend:
                suspended = status["state"] == "Suspended"
                expected = ("Failed", "Suspended" if suspended else "Degraded")
            assert (kstatus(version), argo_health(version)) == expected, version
            seen |= {status["state"], *(["Stalled"] if mend else [])}
    return seen


def break_and_heal(world: World, name: str) -> None:
    """Out by its errors, and back: two transitions of its verdict."""
    world.backends[SERVED_BY[name]].set(BROKEN)
    world.wait_for_state(name, "Excluded", seconds=40)
    world.backends[SERVED_BY[name]].set(PROMPT)
    world.wait_for_state(name, "Active", seconds=40)


def change_status(world: World, chronicle: Chronicle) -> None:
    """Traffic flows already; one backend fails and recovers, and figures are published."""
    for _ in range(OUTAGES):
        break_and_heal(world, "vllm-b")
    eventually(
        lambda: sum(chronicle.status_writes(name) for name in SERVED_BY),
        lambda writes: writes >= STATUS_WRITES,
        what=f"{STATUS_WRITES} writes of status",
        seconds=120,
    )


@pytest.mark.parametrize(
    ("overlay", "instance"), [("staging", "models-staging"), ("production", "models-production")]
)
def test_both_overlays_are_taken_by_a_server(
    crds: ControlPlane, namespace: str, tmp_path: Path, overlay: str, instance: str
) -> None:
    root = Path(os.path.relpath(MODELS.resolve(), tmp_path.resolve()))
    document = {
        "namespace": namespace,
        "resources": [str(root / "overlays" / overlay)],
        "patches": [WITHOUT_NAMESPACE],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(document))
    command = ("apply", "--server-side", "--dry-run=server", "--field-manager=any", "-k", tmp_path)
    taken = crds.run_kubectl(*command, check=True)
    assert "Warning" not in taken.stderr
    rendered = list(yaml.safe_load_all(crds.run_kubectl("kustomize", tmp_path, check=True).stdout))
    assert len(taken.stdout.splitlines()) == len(rendered)
    labels = [document["metadata"]["labels"]["app.kubernetes.io/instance"] for document in rendered]
    assert set(labels) == {instance}


def test_as_flux_does_it_nothing_drifts_and_a_policy_is_tried_before_it_is_meant(
    world: World,
    traffic: Traffic,
    chronicle: Chronicle,
    tmp_path: Path,
    kstatus: Reader,
    argo_health: Reader,
) -> None:
    quick = patch("QualityPolicy", "local", **QUICK)
    team = Team(world, tmp_path, "staging", "kustomize-controller", changes=(quick,))
    team.sync()
    wait_until_seen(team)
    world.wait_for_state("vllm-b", "Active")
    world.wait_for_state("openai", "Suspended")
    with traffic:
        change_status(world, chronicle)
        # 1. What is on trial names whom it would exclude, and excludes nobody.
        world.backends["beta"].set(FLAKY)
        eventually(
            lambda: status_of(world, "qp", "local-at-20").get("wouldExclude"),
            lambda names: names == ["vllm-b"],
            what="the trial names vllm-b",
            seconds=90,
        )
        assert world.state("vllm-b") == "Active"
        assert team.diff() == ""
        assert_owners(team)
        # 2. It is meant: the tier's own policy takes its threshold, and the trial leaves.
        assert ("QualityPolicy", "local-at-20") in team.inventory
        drop = patch("QualityPolicy", "local-at-20")
        drop["patch"] = yaml.safe_dump({"$patch": "delete"} | yaml.safe_load(drop["patch"]))
        strict = patch("QualityPolicy", "local", **QUICK, errorRateThreshold="20%")
        team.changes = (drop, strict)
        team.sync()
        world.wait_for_state("vllm-b", "Excluded", seconds=60)
        assert "threshold 20%" in status_of(world, "llmb", "vllm-b")["exclusion"]["reason"]
    assert "local-at-20" not in world.kubectl("get", "qp", "-o", "name")
    assert team.diff() == ""
    assert_owners(team)
    seen = states_read_as_they_are(chronicle, kstatus, argo_health)
    assert seen >= {"Active", "Probation", "Excluded", "Suspended"}
    world.backends["beta"].set(PROMPT)
    world.kubectl("delete", KINDS, "--all")


def test_as_argo_cd_does_it_nothing_drifts_and_what_leaves_the_repository_goes(
    world: World,
    traffic: Traffic,
    chronicle: Chronicle,
    tmp_path: Path,
    kstatus: Reader,
    argo_health: Reader,
) -> None:
    team = Team(
        *(world, tmp_path, "production", "argocd-controller", "models-production"),
        components=("stricter-local",),
        changes=(patch("QualityPolicy", "local", **QUICK),),
    )
    team.sync()
    wait_until_seen(team)
    world.wait_for_state("vllm-b", "Active")
    # Its Secret is not there: a person must mend that.
    eventually(
        lambda: kstatus(world.get("openai")),
        lambda read: read == "Failed",
        what="openai is stalled",
        seconds=60,
    )
    with traffic:
        change_status(world, chronicle)
        assert status_of(world, "rp", "team")["budget"]["state"] == "Normal"
        assert team.diff() == ""
        assert_owners(team)
    team.components = ()
    team.sync()
    assert "local-at-20" not in world.kubectl("get", "qp", "-o", "name")
    assert team.diff() == ""
    # What a person changes by hand is drift, and is seen as such.
    world.kubectl("patch", "llmb", "vllm-a", "--type=merge", '-p={"spec":{"priority":77}}')
    assert "priority: 77" in team.diff()
    team.sync()
    assert team.diff() == ""
    seen = states_read_as_they_are(chronicle, kstatus, argo_health)
    assert seen >= {"Active", "Probation", "Excluded", "Stalled"}
