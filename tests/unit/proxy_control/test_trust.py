"""Whom a proxy trusts: authorities from Secrets that rotate, and no trust without a word of it."""

from __future__ import annotations

import gc
import logging
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from nexus_api import reasons
from nexus_devtools.authority import Authority
from nexus_proxy.admin.metrics import ProxyCollector
from nexus_proxy.prober import Prober
from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.routing.explain import explain
from nexus_proxy.routing.reach import TlsContexts
from nexus_proxy.routing.request import analyze
from nexus_proxy.secrets import MountedSecrets
from nexus_quality import words
from nexus_quality.health import Health

BODY = b'{"model":"m","messages":[]}'
NOTE = words.UNVERIFIED.message


def secure(wired: Any, name: str = "b", **tls: Any) -> None:
    """Put a backend that speaks TLS."""
    url = f"https://{name}.example.com"
    wired.put("LLMBackend", name, spec={"url": url, "models": [{"name": "m"}], "tls": tls})


def mount(folder: Path, pem: bytes | str) -> None:
    """Mount Secret `ca` with key `ca.crt`."""
    (folder / "ca").mkdir(exist_ok=True)
    (folder / "ca" / "ca.crt").write_bytes(pem if isinstance(pem, bytes) else pem.encode())


CA: dict[str, Any] = {"caSecretRef": {"name": "ca", "key": "ca.crt"}}


def said(wired: Any) -> list[tuple[str, str, str]]:
    """What a client is told of each candidate."""
    refused = wired.router.choose(analyze(Endpoint.CHAT, BODY), wired.now)
    return [(each.reconciler, each.reason, each.suggested_action) for each in refused.reasons]


def test_an_authority_rotates_while_the_proxy_runs(wired: Any, tmp_path: Path) -> None:
    mount(tmp_path, Authority("old").pem)
    secure(wired, **CA)
    wired.apply()
    backend = wired.router.table.backends["uid-b"]
    old = backend.origin.tls
    wired.control.reinstall()
    assert backend.origin.tls is old, "nothing changed: its connections stay"
    mount(tmp_path, Authority("new").pem)
    assert wired.live.secrets.changed()
    wired.control.reinstall()
    assert backend.origin.tls is not old
    assert [ca["subject"] for ca in backend.origin.tls.get_ca_certs()] == [
        ((("commonName", "new"),),)
    ]


def test_contexts_are_kept_while_a_backend_uses_them_and_no_longer() -> None:
    contexts = TlsContexts()
    kept = contexts.get(ca="", insecure=False)
    assert contexts.get(ca="", insecure=False) is kept
    for number in range(3):
        contexts.get(ca=Authority(str(number)).pem.decode(), insecure=False)
    gc.collect()
    assert list(contexts._known.values()) == [kept]


@pytest.mark.parametrize(
    ("pem", "expected"),
    [
        ("nothing of the kind", words.ca_unusable(secret="ca", key="ca.crt")),
        (b"\xff\xfe\x00 binary", words.ca_unusable(secret="ca", key="ca.crt")),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            words.ca_unusable(secret="ca", key="ca.crt"),
        ),
    ],
)
def test_an_authority_that_is_none_is_said_to_the_client(
    wired: Any, tmp_path: Path, pem: bytes | str, expected: words.Words
) -> None:
    mount(tmp_path, pem)
    secure(wired, **CA)
    wired.apply()
    assert said(wired) == [(reasons.SCHEDULER_RECONCILER, *expected)]
    mount(tmp_path, Authority().pem)
    wired.control.reinstall()
    assert wired.router.choose(analyze(Endpoint.CHAT, BODY), wired.now).candidate


def test_a_rotation_that_goes_wrong_leaves_the_backend_out_rather_than_trusting_all(
    wired: Any, tmp_path: Path
) -> None:
    mount(tmp_path, Authority().pem)
    secure(wired, **CA)
    wired.apply()
    (tmp_path / "ca" / "ca.crt").unlink()
    assert wired.live.secrets.changed()
    wired.control.reinstall()
    ((reconciler, reason, _),) = said(wired)
    assert (reconciler, reason) == (reasons.SCHEDULER_RECONCILER, "Secret ca has no key ca.crt")


def test_a_changed_key_is_noticed_once_without_reading_it(tmp_path: Path) -> None:
    secrets = MountedSecrets(tmp_path)
    assert secrets.get("s", "k") is None
    assert not secrets.changed()
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "k").write_text("one")
    assert secrets.changed()
    assert not secrets.changed(), "nobody has asked since"
    assert secrets.get("s", "k") == "one"
    assert not secrets.changed()
    (tmp_path / "s" / "k").write_text("two!")
    assert secrets.changed()
    assert secrets.get("s", "k") == "two!"
    (tmp_path / "s" / "k").unlink()
    assert secrets.changed()


def test_a_key_that_is_no_text_is_one_that_no_header_can_carry(wired: Any, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "k").write_bytes(b"\xff\x00key")
    auth = {"secretRef": {"name": "s", "key": "k"}}
    wired.put("LLMBackend", "b", spec={"models": [{"name": "m"}], "auth": auth})
    wired.apply()
    expected = words.key_unusable(secret="s", key="k")
    assert said(wired) == [(reasons.SCHEDULER_RECONCILER, *expected)]


def test_no_verification_is_one_warning_per_backend(
    wired: Any, caplog: pytest.LogCaptureFixture
) -> None:
    secure(wired, "safe")
    secure(wired, "b", insecureSkipVerify=True)
    wired.put("LLMBackend", "plain", spec={"tls": {"insecureSkipVerify": True}})
    with caplog.at_level(logging.WARNING):
        wired.apply()
        wired.control.reinstall()
        secure(wired, "b", insecureSkipVerify=True, serverName="other")
        wired.apply()
    assert [record.message for record in caplog.records] == [f"team/b: {NOTE}"]
    secure(wired, "b")
    wired.apply()
    secure(wired, "b", insecureSkipVerify=True)
    with caplog.at_level(logging.WARNING):
        wired.apply()
    assert len(caplog.records) == 2, "turned on again: said again"


def test_no_verification_shows_in_the_metrics_and_in_explain(wired: Any) -> None:
    secure(wired, "safe")
    secure(wired, "b", insecureSkipVerify=True)
    wired.apply()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ProxyCollector(wired.router.counters, wired.router))
    samples = [
        line
        for line in generate_latest(registry).decode().splitlines()
        if line.startswith("nexus_proxy_backend_tls_unverified{")
    ]
    assert samples == ['nexus_proxy_backend_tls_unverified{agent_id="team/b"} 1.0']
    told = explain(wired.router, analyze(Endpoint.CHAT, BODY), wired.now)
    notes = {entry["backend"]: entry.get("notes") for entry in told["legs"][0]["candidates"]}
    assert notes == {"b": [NOTE], "safe": None}


async def test_a_prober_keeps_no_client_of_a_trust_that_is_gone(wired: Any, tmp_path: Path) -> None:
    secure(wired, **CA)
    prober = Prober(
        backend_of=lambda uid: wired.router.table.backends.get(uid),
        random=lambda: 0.5,
        transport=httpx.MockTransport(lambda request: httpx.Response(200, json={"data": []})),
    )
    mount(tmp_path, Authority().pem)
    wired.apply()
    (backend,) = wired.control.objects.backends
    prober.watch((backend,), lambda *_: None)
    trusts: list[ssl.SSLContext] = []
    for number in range(4):
        mount(tmp_path, Authority(str(number)).pem)
        wired.control.reinstall()
        trusts.append(wired.router.table.backends["uid-b"].origin.tls)
        await prober.probe(backend, Health())
    assert list(prober._clients) == [trusts[-1]]
    await prober.close()
