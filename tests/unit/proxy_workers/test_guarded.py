"""TLS and client keys in front of several workers: asked for, and followed, by each of them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from nexus_devtools.authority import Authority
from nexus_devtools.backends import SimulatedBackend

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def statuses(port: int, trust: ssl.SSLContext, key: str) -> set[int]:
    """What a dozen requests on connections of their own are answered; 0: no trust."""

    async def ask() -> int:
        headers = {"authorization": f"Bearer {key}"}
        try:
            async with httpx.AsyncClient(verify=trust, trust_env=False, timeout=20) as client:
                url = f"https://127.0.0.1:{port}/v1/chat/completions"
                return (await client.post(url, json=ASK, headers=headers)).status_code
        except httpx.ConnectError:
            return 0

    return set(await asyncio.gather(*(ask() for _ in range(12))))


async def test_every_worker_asks_for_tls_and_keys_and_follows_their_files(
    backend: SimulatedBackend,
    write: Callable[..., Path],
    start: Any,
    until: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write("sim", backend.url)
    old, new = Authority("old"), Authority("new")
    certificate, private = old.issue("127.0.0.1").write(tmp_path)
    keys = tmp_path / "keys"
    replace(keys, "ck-1")
    monkeypatch.setenv("NEXUS_TLS_CERT_FILE", str(certificate))
    monkeypatch.setenv("NEXUS_TLS_KEY_FILE", str(private))
    monkeypatch.setenv("NEXUS_CLIENT_KEYS_FILE", str(keys))
    async with start() as proxy:
        assert await statuses(proxy.port, old.client_context(), "ck-1") == {200}
        assert await statuses(proxy.port, old.client_context(), "ck-2") == {401}
        new.issue("127.0.0.1").write(tmp_path)
        replace(keys, "ck-2")

        async def followed() -> bool:
            return await statuses(proxy.port, new.client_context(), "ck-2") == {200}

        await until(followed)
        assert await statuses(proxy.port, old.client_context(), "ck-2") == {0}
        assert await statuses(proxy.port, new.client_context(), "ck-1") == {401}

        async def counted() -> bool:
            found = await proxy.metrics()
            return bool(found["nexus_proxy_requests_total", "/v1/chat/completions", "401"] >= 24)

        await until(counted)


def replace(path: Path, text: str) -> None:
    """Give a file another content."""
    path.write_text(text)
