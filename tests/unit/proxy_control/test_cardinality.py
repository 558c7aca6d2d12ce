"""What a proxy exports stays within the documented bounds, whatever clients and backends say."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from nexus_devtools import metric_bounds as bounds
from nexus_devtools.metric_bounds import Size
from nexus_devtools.metric_table import mode_families, proxy_families
from nexus_devtools.rawhttp.messages import Message, answer, post
from nexus_devtools.rawhttp.peers import Peer
from nexus_devtools.rawhttp.stage import Stage
from nexus_proxy.admin.metrics import STATUS_LABELS, ProxyCollector
from nexus_proxy.routing.endpoint import Endpoint

BACKENDS, MODELS = 30, 40
STATUSES = range(200, 1000)
EVIL = 'evil"} 1\nnexus_up{x="'


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A proxy before a backend that answers with whatever status it was last asked for."""
    stage = Stage()
    await stage.start()

    async def obey(peer: Peer, request: Message) -> None:
        wanted = request.header("x-wanted") or b"200"
        await peer.send(answer(b"{}").replace(b"200 OK", wanted + b" Made Up", 1))

    await stage.backend(obey)
    yield stage
    await stage.stop()


def pages(stage: Stage, wired: Any) -> list[Metric]:
    """The page as Prometheus reads it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ProxyCollector(stage.counters, wired.router))
    page = generate_latest(registry).decode()
    assert EVIL not in page
    return list(text_string_to_metric_families(page))


def families(stage: Stage, wired: Any) -> dict[str, int]:
    """How many series each family has."""
    return {family.name: len(family.samples) for family in pages(stage, wired)}


def bound(family: str) -> bounds.Bound:
    return bounds.PROXY.get(family) or bounds.PROXY[f"{family}_total"]


async def test_statuses_models_and_paths_that_others_make_up_make_no_series(
    stage: Stage, wired: Any
) -> None:
    client = await stage.client()
    for endpoint in Endpoint:
        for status in STATUSES if endpoint is Endpoint.CHAT else STATUSES[::29]:
            wanted = b"X-Wanted: %d\r\n" % status
            body = b'{"messages":[],"input":"x","prompt":"x","model":"%d\\"} 1"}' % status
            await client.send(post(body, path=endpoint.path, more=wanted))
            assert (await client.receive()).status == status
    for number in range(100):
        await client.send(post(path=f"/v1/{number}/{EVIL.splitlines()[0]}".replace(" ", "")))
        assert (await client.receive()).status == 404
    await client.send(b"DELETE /v1/models HTTP/1.1\r\nHost: proxy\r\n\r\n")
    assert (await client.receive()).status == 405
    found = families(stage, wired)
    assert len(stage.counters.requests) >= len(STATUSES)
    assert 60 < found["nexus_proxy_requests"] <= len(Endpoint) * STATUS_LABELS
    size = Size(backends=0, namespaces=0)
    assert all(number <= bound(name).most(size) for name, number in found.items()), found


def test_a_status_without_a_name_counts_as_its_class(stage: Stage, wired: Any) -> None:
    for status, count in ((503, 1), (599, 2), (555, 3), (499, 4), (999, 5)):
        for _ in range(count):
            stage.counters.request("/v1/embeddings", status)
    (family,) = (f for f in pages(stage, wired) if f.name == "nexus_proxy_requests")
    seen = {sample.labels["status"]: sample.value for sample in family.samples}
    assert seen == {"503": 1, "5xx": 5, "499": 4, "9xx": 5}


async def test_series_grow_with_backends_and_not_with_their_models(
    stage: Stage, wired: Any
) -> None:
    for number in range(BACKENDS):
        models = [{"name": f"{EVIL}{number}-{m}"} for m in range(MODELS)]
        tls = {"tls": {"insecureSkipVerify": True}}
        spec = {"url": f"https://b{number}:1", "models": models, **tls}
        wired.put("LLMBackend", f"b{number}", spec=spec)
    before = families(stage, wired)
    wired.apply()
    found = families(stage, wired)
    size = Size(backends=BACKENDS, namespaces=1)
    for name, number in found.items():
        assert number <= bound(name).most(size), name
        assert number - before[name] == bound(name).per_backend * BACKENDS, name


def test_every_family_has_a_bound_and_every_bound_a_family() -> None:
    names = Counter(family.name for family in (*proxy_families(), *mode_families()))
    assert set(names) == set(bounds.PROXY)
    assert set(names.values()) == {1}
