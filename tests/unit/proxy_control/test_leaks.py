"""No key shows in anything the process says: log, metrics, errors, explanations, statistics,
reports, representations. The keys are looked for as they are and in the forms they travel in.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import ssl
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from nexus_devtools.authority import Authority
from nexus_devtools.backends import Child, Fault, FaultKind, Script, SimulatedBackend
from nexus_proxy.counters import Counters
from nexus_proxy.http.listener import listener_of
from nexus_proxy.intake import OperatorIntake, Undelivered
from nexus_proxy.reporting import Reporter
from nexus_proxy.settings import parse
from nexus_quality.outcome import Outcome

CLIENT, STRANGER = "ck-of-a-client-0001", "ck-of-a-stranger-0002"
BACKEND, ENVIRONMENT, UNUSABLE = "sk-backend-0003", "sk-environment-0004", "sk-un\tusable-0005"
BROKEN = "sk-in-a-broken-manifest-0006"
REPORT = "report-token-0007"
NO_CA = "ca-that-is-none-0008"
LISTENING = r"serving on 127.0.0.1:(\d+) with TLS and client keys"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def forms(*secrets: str) -> list[str]:
    """Texts that would give one of these away."""
    found = []
    for secret in secrets:
        encoded = base64.b64encode(secret.encode()).decode()
        found += [secret, repr(secret)[1:-1], encoded, encoded.rstrip("="), secret.encode().hex()]
    return found


def manifest(name: str, **spec: Any) -> dict[str, Any]:
    kind = {"apiVersion": "nexus.dev/v1alpha1", "kind": "LLMBackend"}
    return {**kind, "metadata": {"name": name}, "spec": {"models": [{"name": "m"}], **spec}}


def secret(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


KEY_OF_CA = {"name": "ca", "key": "k"}


def auth(name: str) -> dict[str, Any]:
    return {"secretRef": {"name": name, "key": "k"}}


@dataclass
class Lab:
    """A proxy with every kind of secret there is, and what it said."""

    child: Child
    trust: ssl.SSLContext
    manifests: Path
    private_key: str
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.port = int(self.child.wait_for_line(LISTENING)[1])
        self.admin = int(self.child.wait_for_line(r"metrics on 127.0.0.1:(\d+)")[1])

    async def ask(self, key: str, *, path: str = "/v1/chat/completions", **body: Any) -> int:
        """Ask with a key in every form; the status."""
        names = ("x-api-key", "api-key", "x-goog-api-key", "x-unknown")
        headers = {"authorization": f"Bearer {key}", **dict.fromkeys(names, key)}
        async with httpx.AsyncClient(verify=self.trust, trust_env=False) as client:
            url = f"https://127.0.0.1:{self.port}{path}"
            answer = await client.post(url, json=ASK | body, headers=headers)
        self.said += [answer.text, str(answer.headers)]
        return answer.status_code

    async def admin_says(self, path: str, **body: Any) -> str:
        """What an administrative path answers, to a caller that sends a key by mistake."""
        async with httpx.AsyncClient(trust_env=False) as client:
            url = f"http://127.0.0.1:{self.admin}{path}"
            headers = {"authorization": f"Bearer {CLIENT}"}
            answer = await client.request("POST" if body else "GET", url, json=body or None,
                                          headers=headers)  # fmt: skip
        assert answer.status_code in (200, 400, 404, 405)
        self.said.append(answer.text)
        return answer.text

    def everything(self) -> Iterator[str]:
        yield self.child.log.read_text()
        yield from self.said


@pytest.fixture(params=["text", "json"])
async def lab(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Lab]:
    authority = Authority()
    issued = authority.issue("127.0.0.1")
    certificate, key = issued.write(tmp_path)
    (tmp_path / "keys").write_text(f"{CLIENT}\n")
    (tmp_path / "report").write_text(REPORT)
    folder = tmp_path / "manifests"
    folder.mkdir()
    refuses = Script(faults=(Fault(kind=FaultKind.STATUS, status=401),))
    async with (
        SimulatedBackend(name="good", models=["m"]) as good,
        SimulatedBackend(name="refuses", models=["m"], script=refuses) as refusing,
    ):
        documents = [
            secret("own", k=BACKEND),
            secret("tab", k=UNUSABLE),
            secret("ca", k=NO_CA),
            manifest("good", url=good.url, auth=auth("own"), priority=90),
            manifest("refuses", url=refusing.url, auth=auth("env"), priority=1),
            manifest("unusable", url=good.url, auth=auth("tab")),
            manifest("no-ca", url="https://127.0.0.1:1", tls={"caSecretRef": KEY_OF_CA}),
            manifest("dead", url="http://127.0.0.1:1", auth=auth("own"), models=[{"name": "gone"}]),
        ]  # fmt: skip
        (folder / "all.yaml").write_text(yaml.safe_dump_all(documents))
        flags = {
            "--manifests": folder,
            "--listen": "127.0.0.1:0",
            "--admin-listen": "127.0.0.1:0",
            "--tls-cert-file": certificate,
            "--tls-key-file": key,
            "--client-keys-file": tmp_path / "keys",
            "--report-token-file": tmp_path / "report",
            "--log-level": "debug",
            "--log-format": request.param,
        }
        command = [sys.executable, "-m", "nexus_proxy", *(str(p) for f in flags.items() for p in f)]
        environment = {**os.environ, "NEXUS_SECRET_ENV_K": ENVIRONMENT}
        child = Child(command, log=tmp_path / "proxy.log", environment=environment)
        try:
            private = issued.key.decode()
            yield await asyncio.to_thread(
                Lab, child, authority.client_context(), folder, private.splitlines()[1]
            )
        finally:
            child.stop()


async def test_the_process_says_no_key_of_anybody(lab: Lab) -> None:
    served = [await lab.ask(CLIENT) for _ in range(6)]
    assert set(served) == {200}, "past a backend that refuses its key"
    assert await lab.ask(STRANGER) == 401
    assert await lab.ask(CLIENT, model="gone") == 503
    assert await lab.ask(CLIENT, model="none") == 404
    assert await lab.ask(CLIENT, path="/v1/nothing") == 404
    assert await lab.ask(CLIENT, messages=None, model=7) == 400
    for model in ("m", "gone", "none"):
        await lab.admin_says("/v1/explain", **(ASK | {"model": model}))
    for path in ("/metrics", "/v1/stats", "/healthz", "/readyz", "/none"):
        await lab.admin_says(path)
    broken = f"""
        apiVersion: v1
        kind: Secret
        metadata: {{name: own}}
        data: {{k: "{BROKEN}!"}}
        """
    (lab.manifests / "broken.yaml").write_text(textwrap.dedent(broken))
    await asyncio.to_thread(lab.child.wait_for_line, "the last good state stays in force")
    assert await asyncio.to_thread(lab.child.stop) == 0
    secrets = (CLIENT, STRANGER, BACKEND, ENVIRONMENT, UNUSABLE, BROKEN, REPORT, NO_CA)
    texts = list(lab.everything())
    assert any("Secret tab key k holds characters" in text for text in texts), "said by its name"
    assert any("Secret ca key k is not a PEM certificate" in text for text in texts)
    for form in (*forms(*secrets), lab.private_key):
        assert not [text for text in texts if form in text], form


@pytest.mark.parametrize("status", [200, 401, 500])
async def test_no_report_and_no_word_about_one_holds_a_token_or_a_key(
    wired: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "k").write_text(BACKEND)
    (tmp_path / "token").write_text(REPORT)
    wired.put("LLMBackend", "b", spec={"models": [{"name": "m"}], "auth": auth("own")})
    wired.apply()
    reports: list[bytes] = []

    def operator(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == f"Bearer {REPORT}"
        reports.append(request.content)
        return httpx.Response(status, text=f"denied: {request.headers['authorization']}")

    intake = OperatorIntake(
        "http://operator", tmp_path / "token", transport=httpx.MockTransport(operator)
    )
    reporter = Reporter(
        deliver=intake.deliver, clock=lambda: wired.now, random=lambda: 0.5, counters=Counters()
    )
    reporter.attach(wired.monitor)
    subject = wired.monitor.subject("uid-b", "m")
    for _ in range(3):
        subject.begin(wired.now).end(Outcome.CREDENTIALS_REFUSED, wired.now)
    with caplog.at_level(logging.DEBUG):
        await reporter.final()
    await intake.close()
    assert reports
    told = [*(body.decode() for body in reports), *(r.getMessage() for r in caplog.records)]
    assert any("the operator" in text or status == 200 for text in told)
    for form in forms(REPORT, BACKEND):
        assert not [text for text in told if form in text], form


async def test_a_token_file_that_holds_something_else_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{REPORT}\n{BACKEND}\n")
    sent: list[httpx.Headers] = []

    def operator(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers)
        return httpx.Response(401)

    intake = OperatorIntake(
        "http://operator", tmp_path / "token", transport=httpx.MockTransport(operator)
    )
    with pytest.raises(Undelivered, match="does not accept the report token /") as refused:
        await intake.deliver(b"{}")
    await intake.close()
    assert "authorization" not in sent[0]
    assert REPORT not in str(refused.value)


def test_no_representation_holds_a_key(wired: Any, tmp_path: Path) -> None:
    certificate, key = Authority().issue("127.0.0.1").write(tmp_path)
    (tmp_path / "keys").write_text(f"{CLIENT}\n")
    (tmp_path / "token").write_text(REPORT)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "k").write_text(BACKEND)
    names = {"tls-cert": certificate, "tls-key": key, "client-keys": tmp_path / "keys",
             "report-token": tmp_path / "token"}  # fmt: skip
    flags = [part for name, path in names.items() for part in (f"--{name}-file", str(path))]
    settings = parse([*flags, "--credentials-dir", str(tmp_path)], {})
    listener = listener_of(settings)
    wired.put("LLMBackend", "b", spec={"models": [{"name": "m"}], "auth": auth("own")})
    wired.apply()
    backend = wired.router.table.backends["uid-b"]
    assert BACKEND.encode() in backend.credentials.header_line
    told = [repr(settings), repr(vars(listener)), repr(backend.credentials), repr(backend.origin)]
    told += [repr(wired.router.table), repr(wired.control.objects), repr(wired.live.secrets)]
    with contextlib.suppress(StopIteration):
        told.append(repr(next(iter(wired.live._known.values()))))
    for form in forms(CLIENT, REPORT, BACKEND):
        assert not [text for text in told if form in text], form
