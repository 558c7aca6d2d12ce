"""A refused key is asked about now and then, and forgiven when the backend takes it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from nexus_proxy.keycheck import KeyCheck
from nexus_quality.outcome import Outcome

AUTH = {"secretRef": {"name": "s", "key": "k"}}


class Provider:
    """Wired parts, one backend with a key, and its model list."""

    def __init__(self, wired: Any, folder: Path, **spec: Any) -> None:
        self.wired = wired
        self.answer: int | Exception = 401
        self.asked: list[tuple[float, str, str]] = []
        (folder / "s").mkdir()
        (folder / "s" / "k").write_text("own")
        wired.put("LLMBackend", "b", spec={"models": [{"name": "m"}], "auth": AUTH} | spec)
        wired.apply()
        self.subject = wired.monitor.subject("uid-b", "m")
        self.check = KeyCheck(
            monitor=wired.monitor,
            backends=lambda: wired.control.objects.backends,
            live=lambda uid: wired.control.table.backends.get(uid),
            clock=lambda: wired.now,
            random=lambda: 0.5,
            transport=httpx.MockTransport(self.serve),
        )

    def serve(self, request: httpx.Request) -> httpx.Response:
        key = request.headers.get("authorization", "")
        self.asked.append((self.wired.now, f"{request.method} {request.url}", key))
        if isinstance(self.answer, Exception):
            raise self.answer
        return httpx.Response(self.answer)

    def refuse(self, times: int = 3) -> None:
        for _ in range(times):
            self.subject.begin(self.wired.now).end(Outcome.CREDENTIALS_REFUSED, self.wired.now)

    async def after(self, seconds: float) -> bool:
        """Looks after some time; whether the key is out then."""
        self.wired.now += seconds
        await self.check.look()
        return self.subject.rejected() is not None


@pytest.fixture
def provider(wired: Any, tmp_path: Path) -> Provider:
    return Provider(wired, tmp_path)


async def test_a_key_that_is_taken_again_is_used_again(provider: Provider) -> None:
    provider.refuse()
    assert await provider.after(1)
    assert provider.asked == [(1001.0, "GET http://b:8000/v1/models", "Bearer own")]
    assert await provider.after(29)
    assert len(provider.asked) == 1
    provider.answer = 200
    assert not await provider.after(1)
    assert await provider.after(60) is False
    assert len(provider.asked) == 2


async def test_a_list_that_anybody_may_read_says_nothing_of_the_key(provider: Provider) -> None:
    provider.answer = 200
    provider.refuse()
    for _ in range(4):
        assert await provider.after(31)
    assert len(provider.asked) == 4


@pytest.mark.parametrize("trouble", [500, 404, httpx.ConnectError("refused")])
async def test_trouble_is_no_acceptance(provider: Provider, trouble: int | Exception) -> None:
    provider.refuse()
    assert await provider.after(1)
    provider.answer = trouble
    assert await provider.after(31)


async def test_nobody_is_asked_whose_key_is_in_use(provider: Provider) -> None:
    provider.refuse(2)
    await provider.after(1)
    assert provider.asked == []


async def test_another_key_is_another_case(provider: Provider, tmp_path: Path) -> None:
    provider.refuse()
    await provider.after(1)
    (tmp_path / "s" / "k").write_text("another")
    provider.wired.control.reinstall()
    provider.refuse()
    provider.answer = 200
    assert await provider.after(1)  # this one was never refused by the list
    assert provider.asked[-1][2] == "Bearer another"


async def test_without_health_checks_nothing_is_asked(wired: Any, tmp_path: Path) -> None:
    provider = Provider(wired, tmp_path, healthCheck={"enabled": False})
    provider.refuse()
    assert await provider.after(100)
    assert provider.asked == []
