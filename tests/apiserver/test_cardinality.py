"""What the operator exports stays within the documented bounds, whatever reporters make up."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import backend, eventually, policy
from nexus_devtools.metric_bounds import OPERATOR, Size
from nexus_devtools.product import Product
from nexus_devtools.reports import UP_SECONDS
from nexus_devtools.tokens import pod_token
from nexus_quality.report import Cell, Pulse, Report, encode
from nexus_quality.sketch import bin_of
from nexus_quality.spend import Spend, slot_at
from nexus_quality.window import Family

NAMESPACES, BACKENDS, REPORTERS = 3, 12, 6
EVIL = 'evil"} 1\nnexus_up{x="'
BUDGET = {"budget": {"monthlyLimitUSD": "10"}}


class Fleet:
    """One operator over three namespaces with twelve backends each, and reporters of all sorts."""

    def __init__(self, plane: ControlPlane, client: httpx.Client, places: list[str]) -> None:
        self.plane, self.client, self.places = plane, client, places
        self.uids = {place: self._fill(place) for place in places}

    def _fill(self, place: str) -> list[str]:
        """The UIDs of the backends of a namespace."""
        quiet = {"healthCheck": {"enabled": False}}
        names = [f"b{number}" for number in range(BACKENDS)]
        routing = policy("r", **BUDGET) | {"kind": "RoutingPolicy"}
        items = [backend(name, "http://127.0.0.1:9", **quiet) for name in names]
        everything = {"apiVersion": "v1", "kind": "List", "items": [policy("q"), routing, *items]}
        scope = f"--namespace={place}"
        self.plane.run_kubectl("apply", "-f", "-", scope, input=json.dumps(everything), check=True)
        path = "--output=jsonpath={.items[*].metadata.uid}"
        return self.plane.run_kubectl("get", "llmb", scope, path, check=True).stdout.split()

    def report(self, token: str, body: Report | bytes, **headers: str) -> int:
        sent = {"Authorization": f"Bearer {token}"} | headers
        raw = body if isinstance(body, bytes) else encode(body)
        return self.client.post("/v1/outcomes", content=raw, headers=sent).status_code

    def page(self) -> str:
        return self.client.get("/metrics").text

    def series(self) -> dict[str, int]:
        """How many series each family has, under the name that a query uses."""
        found = text_string_to_metric_families(self.page())
        tail = {"counter": "_total"}
        return {f.name + tail.get(f.type, ""): len(f.samples) for f in found}


@pytest.fixture(scope="module")
def fleet(crds: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    places = [f"bound-{secrets.token_hex(4)}" for _ in range(NAMESPACES)]
    with ExitStack() as stack:
        for place in places:
            crds.create_namespace(place)
            stack.callback(crds.delete_namespace, place)
        product = Product(crds, places[0], tmp_path_factory.mktemp("bounds"), stack)
        product.install("app")
        others = [part for place in places[1:] for part in ("--namespace", place)]
        url = product.operator(*others).url
        client = httpx.Client(base_url=url, timeout=30.0, trust_env=False)
        yield Fleet(crds, stack.enter_context(client), places)


@pytest.fixture
def trusted(fleet: Fleet) -> Iterator[str]:
    """The token of a pod that may report on any namespace, and so may name any."""
    name, place = f"anywhere-{secrets.token_hex(3)}", fleet.places[0]
    rights = ("--verb=report", "--resource=llmbackends.nexus.dev")
    account = f"--serviceaccount={place}:anywhere"
    fleet.plane.run_kubectl("create", "clusterrole", name, *rights, check=True)
    binding = ("create", "clusterrolebinding", name, f"--clusterrole={name}", account)
    fleet.plane.run_kubectl(*binding, check=True)
    yield pod_token(fleet.plane, place, "anywhere", account="anywhere")
    fleet.plane.run_kubectl("delete", "clusterrole,clusterrolebinding", name, check=True)


def made_up(uids: list[str], number: int) -> Report:
    """What a reporter may say, and much that it may not: models, backends, namespaces, keys."""
    cells = [
        Cell(
            family=int(family),
            bucket=UP_SECONDS // family,
            uid=uid,
            model=f"{EVIL}{number}-{model}",
            requests=5,
            errors=2,
            ttft_count=2,
            ttft_ms_sum=400,
            ttft_bins={bin_of(200): 2},
        )
        for family in Family
        for uid in (*uids, f"{EVIL}{number}")
        for model in range(5)
    ]
    pulses = [Pulse(uid=uid, model=f"{EVIL}{number}", key=f"{EVIL}{number}") for uid in uids]
    slot = slot_at(time.time())
    names = [f"made-up-{number}-{n}" for n in range(8)]
    spend = [Spend(namespace=name, slot=slot, nano_usd=1) for name in names]
    return Report(
        incarnation=secrets.token_hex(16),
        now_ms=UP_SECONDS * 1000 + 1000,
        full=True,
        cells=cells,
        pulses=pulses,
        spend=spend,
    )


def nonsense(fleet: Fleet, token: str) -> None:
    """Everything that is refused whole."""
    assert fleet.report(token, b"{}", Authorization="Basic eDp5") == 401
    assert fleet.report(f"forged-{secrets.token_hex(8)}", b"{}") == 401
    assert fleet.report(token, b"{") == 400
    assert fleet.report(token, b"{}", **{"Content-Encoding": EVIL.splitlines()[0]}) == 415


def test_series_stay_within_their_bounds_whatever_is_reported(fleet: Fleet, trusted: str) -> None:
    uids = [uid for place in fleet.places for uid in fleet.uids[place]]
    size = Size(backends=len(uids), namespaces=NAMESPACES)
    assert size.backends == NAMESPACES * BACKENDS
    for number in range(REPORTERS):
        place = fleet.places[number % NAMESPACES]
        mine = pod_token(fleet.plane, place, f"reporter-{number}")
        for token in (mine, trusted):
            assert fleet.report(token, made_up(uids, number)) in (200, 403, 429)
        nonsense(fleet, mine)
    found = eventually(
        fleet.series,
        lambda seen: seen["nexus_agent_ttft_seconds"] == 13 * size.backends,
        what="samples of every backend",
    )
    assert {name for name in found if name.startswith("nexus_")} == set(OPERATOR)
    over = {n: (k, OPERATOR[n].most(size)) for n, k in found.items() if k > OPERATOR[n].most(size)}
    assert over == {}
    for name in ("nexus_agent_error_rate", "nexus_operator_backend_state"):
        assert found[name] == size.backends, name
    for name in ("nexus_budget_spending_usd", "nexus_budget_limit_usd"):
        assert found[name] == NAMESPACES, name
    assert found["nexus_operator_report_refusals_total"] >= 5
    assert "evil" not in fleet.page() and "made-up" not in fleet.page()


def test_what_is_deleted_takes_its_series_along(fleet: Fleet) -> None:
    gone = fleet.places.pop()
    fleet.plane.run_kubectl("delete", "llmb,rp", "--all", f"--namespace={gone}", check=True)
    size = Size(backends=len(fleet.places) * BACKENDS, namespaces=len(fleet.places))

    eventually(fleet.page, lambda page: f'"{gone}' not in page, what=f"no series of {gone}")
    found = fleet.series()
    assert all(number <= OPERATOR[name].most(size) for name, number in found.items())
