"""The custom resources on a real API server: what it refuses, takes, fills in and prints."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from nexus_api import decode_object
from nexus_api.meta import API_VERSION, BACKEND_KIND, KINDS, PLURALS
from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.schemas import status_problems

pytestmark = [pytest.mark.apiserver, pytest.mark.usefixtures("crds")]

Manifest = dict[str, Any]
HERE = Path(__file__).parent
TIME = "2026-01-31T12:00:00Z"


def load(name: str) -> list[Manifest]:
    loaded: list[Manifest] = yaml.safe_load((HERE / name).read_text(encoding="utf-8"))
    return loaded


BAD = load("manifests_bad.yaml")
GOOD = load("manifests_good.yaml")
STATUSES = load("statuses.yaml")


def manifest(case: Manifest, name: str, namespace: str) -> Manifest:
    metadata = {"name": name, "namespace": namespace}
    whole = {"apiVersion": API_VERSION, "kind": case["kind"], "metadata": metadata}
    return whole | ({"spec": case["spec"]} if "spec" in case else {})


def without_empty(value: Any) -> Any:
    """A value without nulls, empty lists and empty objects, which mean the same as nothing."""
    if isinstance(value, dict):
        inner = {key: without_empty(each) for key, each in value.items()}
        return {key: each for key, each in inner.items() if each not in (None, [], {})}
    if isinstance(value, list | tuple):
        return [without_empty(each) for each in value]
    return value


def spelled_out(value: Any) -> Any:
    """A typed object as it is on the wire with all its defaults written out."""
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.fields(value)
        return {field.encode_name: spelled_out(getattr(value, field.name)) for field in fields}
    if isinstance(value, tuple):
        return [spelled_out(each) for each in value]
    return msgspec.to_builtins(value)


def read(control_plane: ControlPlane, namespace: str, kind: str, name: str) -> Manifest:
    answer = control_plane.run_kubectl(
        "get", PLURALS[kind], name, "-n", namespace, "-o", "json", check=True
    )
    found: Manifest = json.loads(answer.stdout)
    return found


def apply(control_plane: ControlPlane, applied: Manifest) -> None:
    control_plane.run_kubectl(
        "apply", "--server-side", "-f", "-", input=json.dumps(applied), check=True
    )


def patch_status(
    control_plane: ControlPlane, namespace: str, kind: str, name: str, status: Manifest
) -> subprocess.CompletedProcess[str]:
    body = json.dumps({"status": status})
    place = ("patch", PLURALS[kind], name, "-n", namespace, "--subresource=status")
    return control_plane.run_kubectl(*place, "--type=merge", "-p", body)


def test_the_tables_are_as_long_as_promised() -> None:
    assert len(BAD) >= 40
    assert len(GOOD) >= 15


def many(manifests: list[Manifest]) -> str:
    """Several manifests as one list: one call of kubectl instead of a hundred."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})


@pytest.fixture(scope="module")
def home(crds: ControlPlane) -> Iterator[str]:
    """A namespace for the tests of the tables, which have names of their own."""
    name = f"crds-{secrets.token_hex(4)}"
    crds.create_namespace(name)
    yield name
    crds.delete_namespace(name)


@pytest.fixture(scope="module")
def refusals(crds: ControlPlane, home: str) -> list[str]:
    """What kubectl says to each bad manifest; empty if it is accepted."""
    manifests = [manifest(case, f"bad-{index}", home) for index, case in enumerate(BAD)]
    command = ("create", "--dry-run=server", "-f", "-")
    said = crds.run_kubectl(*command, input=many(manifests)).stderr
    lines = re.finditer(
        r'^Error from server \(Invalid\): .*?"(bad-\d+)" is invalid: .*$', said, re.M
    )
    named = {line.group(1): line.group(0) for line in lines}
    # A strict decoding error does not name the object: those are asked for one by one.
    return [
        named.get(whole["metadata"]["name"])
        or crds.run_kubectl(*command, input=json.dumps(whole)).stderr
        for whole in manifests
    ]


@pytest.mark.parametrize("index", range(len(BAD)), ids=[case["what"] for case in BAD])
def test_a_bad_manifest_is_refused_with_words_that_help(refusals: list[str], index: int) -> None:
    assert BAD[index]["field"] in refusals[index]
    assert BAD[index]["says"] in refusals[index]


@pytest.fixture(scope="module")
def stored(crds: ControlPlane, home: str) -> dict[str, Manifest]:
    """The good manifests as they are read back, by name."""
    manifests = [manifest(case, f"good-{index}", home) for index, case in enumerate(GOOD)]
    applied = crds.run_kubectl("apply", "--server-side", "-f", "-", input=many(manifests))
    assert applied.returncode == 0, applied.stderr
    answer = crds.run_kubectl("get", "nexus", "-n", home, "-o", "json", check=True)
    return {item["metadata"]["name"]: item for item in json.loads(answer.stdout)["items"]}


@pytest.mark.parametrize("index", range(len(GOOD)), ids=[case["what"] for case in GOOD])
def test_a_good_manifest_round_trips_with_the_defaults_of_nexus_api(
    stored: dict[str, Manifest], home: str, index: int
) -> None:
    found = stored[f"good-{index}"]
    typed = decode_object(found)
    assert typed.spec == decode_object(manifest(GOOD[index], f"good-{index}", home)).spec
    assert without_empty(found["spec"]) == without_empty(spelled_out(typed.spec))
    assert typed.metadata.generation == 1
    assert typed.metadata.uid == found["metadata"]["uid"]


def names(count: int) -> list[str]:
    """Names that differ at their ends only, as long as the schema allows."""
    return [f"{'n' * 249}{index:04d}" for index in range(count)]


def pairs(count: int, first: str, second: str) -> list[Manifest]:
    return [{first: name, second: name[1:]} for name in names(count)]


def longest(kind: str, field: str, more: int) -> Manifest:
    """A spec with a list as long as the contract allows, and `more` entries."""
    lists: dict[str, list[Manifest]] = {
        "models": [{"name": name} for name in names(256 + more)],
        "aliases": pairs(128 + more, "name", "model"),
        "fallbacks": [
            {"model": name, "to": [f"{other}x"[1:] for other in names(8)]}
            for name in names(64 + more)
        ],
        "trafficPolicies": [{"modelPattern": name, "minTier": 2} for name in names(64 + more)],
    }
    url = {"url": "http://x/".ljust(2048, "y")} if kind == BACKEND_KIND else {}
    return {"kind": kind, "spec": url | {field: lists[field]}}


LISTS = [
    ("LLMBackend", "models"),
    ("RoutingPolicy", "aliases"),
    ("RoutingPolicy", "fallbacks"),
    ("RoutingPolicy", "trafficPolicies"),
]


@pytest.mark.parametrize(("kind", "field"), LISTS)
def test_a_list_may_be_as_long_as_the_contract_says_and_no_longer(
    crds: ControlPlane, home: str, kind: str, field: str
) -> None:
    command = ("create", "--dry-run=server", "-f", "-")
    whole = [manifest(longest(kind, field, more), "long", home) for more in (0, 1)]
    taken, refused = (crds.run_kubectl(*command, input=json.dumps(each)) for each in whole)
    assert taken.returncode == 0, taken.stderr
    assert f"spec.{field}: Too many" in refused.stderr


def test_aliases_three_deep_may_be_as_many_as_the_contract_says(
    crds: ControlPlane, home: str
) -> None:
    ends = names(129)
    aliases = [
        {"name": ends[index], "model": ends[index + 1] if index % 4 < 2 else f"model-{index}"}
        for index in range(128)
    ]
    whole = manifest({"kind": "RoutingPolicy", "spec": {"aliases": aliases}}, "deep", home)
    taken = crds.run_kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(whole))
    assert taken.returncode == 0, taken.stderr


@pytest.mark.parametrize("index", range(len(STATUSES)), ids=[case["what"] for case in STATUSES])
def test_the_status_validator_and_the_api_server_agree(
    control_plane: ControlPlane, home: str, index: int
) -> None:
    case, name = STATUSES[index], f"status-{index}"
    spec = {"url": "http://x"} if case["kind"] == BACKEND_KIND else {}
    apply(control_plane, manifest({"kind": case["kind"], "spec": spec}, name, home))
    patched = patch_status(control_plane, home, case["kind"], name, case["status"])
    problems = status_problems(case["kind"], case["status"])
    if "problem" in case:
        assert any(case["problem"] in problem for problem in problems), problems
        assert patched.returncode != 0 or "unknown field" in patched.stderr, patched.stdout
    else:
        assert problems == []
        assert patched.returncode == 0, patched.stderr
        found = read(control_plane, home, case["kind"], name)
        assert found["status"] == case["status"]
        assert found["metadata"]["generation"] == 1
        assert without_empty(spelled_out(decode_object(found).status)) == case["status"]


COLUMNS = ["NAME", "STATE", "ERRORS-1H", "TTFT(MS)", "SUCCESS-24H", "REQUESTS-1H"]
COLUMNS += ["LAST-FAILURE", "AGE"]
WIDE = ["TYPE", "URL", "P95(MS)", "POLICY", "REASON"]
QUALITY = {
    "errorRate1h": "4.76%",
    "requests1h": 21,
    "errors1h": 1,
    "successRate24h": "99.9%",
    "avgTtftMilliseconds": 123,
    "p95TtftMilliseconds": 456,
    "lastFailureTime": TIME,
}
READY = {
    "type": "Ready",
    "status": "True",
    "reason": "NoTraffic",
    "message": "no request in the last hour",
    "lastTransitionTime": TIME,
}


def table(text: str) -> list[dict[str, str]]:
    """The rows of a kubectl table, keyed by its header; blank cells are empty strings."""
    header, *rows = text.splitlines()
    starts = [found.start() for found in re.finditer(r"\S+", header)]
    ends = [*starts[1:], None]
    return [
        {
            header[start:end].strip(): row[start:end].strip()
            for start, end in zip(starts, ends, strict=True)
        }
        for row in rows
    ]


@pytest.fixture
def two_backends(control_plane: ControlPlane, namespace: str) -> None:
    for name in ("measured", "new"):
        spec = {"url": f"http://{name}:8000", "type": "vllm"}
        apply(control_plane, manifest({"kind": BACKEND_KIND, "spec": spec}, name, namespace))
    status = {
        "state": "Active",
        "quality": QUALITY,
        "qualityPolicy": "strict",
        "conditions": [READY],
    }
    patched = patch_status(control_plane, namespace, BACKEND_KIND, "measured", status)
    assert patched.returncode == 0, patched.stderr


@pytest.mark.usefixtures("two_backends")
def test_kubectl_get_prints_the_figures_and_leaves_blank_what_is_unknown(
    control_plane: ControlPlane, namespace: str
) -> None:
    answer = control_plane.run_kubectl(
        "get", "llmbackends", "measured", "new", "-n", namespace, check=True
    )
    measured, new = table(answer.stdout)
    assert list(measured) == COLUMNS
    assert re.fullmatch(r"(\d+[smhdy])+", measured.pop("LAST-FAILURE"))
    assert re.fullmatch(r"(\d+[smhdy])+", measured.pop("AGE"))
    assert measured == {
        "NAME": "measured",
        "STATE": "Active",
        "ERRORS-1H": "4.76%",
        "TTFT(MS)": "123",
        "SUCCESS-24H": "99.9%",
        "REQUESTS-1H": "21",
    }
    assert new.pop("AGE")
    assert new == {"NAME": "new"} | dict.fromkeys(COLUMNS[1:-1], "")


@pytest.mark.usefixtures("two_backends")
def test_kubectl_get_wide_adds_columns_at_the_end(
    control_plane: ControlPlane, namespace: str
) -> None:
    answer = control_plane.run_kubectl(
        "get", "llmb", "measured", "new", "-n", namespace, "-o", "wide", check=True
    )
    measured, new = table(answer.stdout)
    assert list(measured) == COLUMNS + WIDE
    assert [measured[name] for name in WIDE] == [
        "vllm",
        "http://measured:8000",
        "456",
        "strict",
        "NoTraffic",
    ]
    assert [new[name] for name in WIDE] == ["vllm", "http://new:8000", "", "", ""]


def test_all_kinds_are_listed_by_category_and_short_name(
    control_plane: ControlPlane, namespace: str
) -> None:
    for kind in KINDS:
        spec = {"url": "http://x"} if kind == BACKEND_KIND else {}
        apply(control_plane, manifest({"kind": kind, "spec": spec}, "listed", namespace))
    by_category = control_plane.run_kubectl("get", "nexus", "-n", namespace, "-o", "name")
    assert sorted(by_category.stdout.split()) == [
        "llmbackend.nexus.dev/listed",
        "qualitypolicy.nexus.dev/listed",
        "routingpolicy.nexus.dev/listed",
    ]
    for short in ("llmb", "qp", "rp"):
        found = control_plane.run_kubectl("get", short, "-n", namespace, "-o", "name", check=True)
        assert found.stdout.endswith("/listed\n")


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("llmbackends.spec.url", "optional path prefix"),
        ("llmbackends.spec.timeouts.firstTokenSeconds", "Default: 120"),
        ("llmbackends.status.exclusion.untilTime", "probation begins"),
        ("qualitypolicies.spec.errorRateThreshold", 'Default: "50%"'),
        ("qualitypolicies.spec.recovery.maxExclusionSeconds", "Default: 300"),
        ("routingpolicies.spec.weights", "sum to 100"),
        ("routingpolicies.spec.budget.hardLimitAction", "Default: Warn"),
    ],
)
def test_kubectl_explain_is_a_manual(control_plane: ControlPlane, field: str, words: str) -> None:
    # The API server publishes its descriptions some moments after a definition is established.
    deadline = time.monotonic() + 30
    found = ""
    while words not in found and time.monotonic() < deadline:
        found = " ".join(control_plane.run_kubectl("explain", field).stdout.split())
    assert words in found
