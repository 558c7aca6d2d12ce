"""The real process in the standalone mode: exit codes, draining, and a taken port."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import openai
import pytest

from nexus_devtools.backends import Child, Script, SimulatedBackend

BACKEND = """
    apiVersion: nexus.dev/v1alpha1
    kind: LLMBackend
    metadata: {{name: sim}}
    spec: {{url: "{url}", type: vllm}}
"""
SLOW = Script(token_seconds=0.2, tokens=8)


class Proxy:
    """A running proxy, its ports read from its log."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.port = int(child.wait_for_line(r"serving on 127.0.0.1:(\d+)")[1])
        self.admin = int(child.wait_for_line(r"metrics on 127.0.0.1:(\d+)")[1])
        self.client = openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1", api_key="x", max_retries=0
        )

    async def draining(self) -> bool:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://127.0.0.1:{self.admin}/readyz")).text == "draining\n"

    async def serving(self) -> bool:
        return [model.id for model in (await self.client.models.list()).data] == ["m"]

    def terminate(self) -> None:
        os.kill(self.child.pid, signal.SIGTERM)


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Wait until something holds; TimeoutError if it is late."""
    async with asyncio.timeout(seconds):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


async def ended(child: Child) -> int | None:
    """The exit code, once there is one."""

    async def has_ended() -> bool:
        return child.exit_code is not None

    await until(has_ended, 20)
    return child.exit_code


@pytest.fixture
async def backend() -> AsyncIterator[SimulatedBackend]:
    async with SimulatedBackend(name="sim", models=["m"], script=SLOW) as running:
        yield running


@pytest.fixture
async def proxy(
    backend: SimulatedBackend, manifests: Callable[..., Path], tmp_path: Path
) -> AsyncIterator[Proxy]:
    folder = manifests(b=BACKEND.format(url=backend.url))
    flags = ("--manifests", str(folder), "--listen", "127.0.0.1:0")
    command = (sys.executable, "-m", "nexus_proxy", *flags, "--admin-listen", "127.0.0.1:0")
    child = Child(command, log=tmp_path / "proxy.log")
    try:
        running = await asyncio.to_thread(Proxy, child)
        await until(running.serving)
        yield running
        await running.client.close()
    finally:
        child.stop()


async def test_a_request_goes_through_and_the_backend_is_named(proxy: Proxy) -> None:
    raw = await proxy.client.chat.completions.with_raw_response.create(
        model="m", messages=[{"role": "user", "content": "hi"}], max_tokens=1
    )
    assert raw.headers["x-nexus-backend"] == "sim"
    assert raw.headers["x-nexus-route-reason"] == "capability-match"
    assert raw.parse().choices[0].message.content


async def test_sigterm_cuts_no_request_in_flight(proxy: Proxy) -> None:
    stream = await proxy.client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hi"}], stream=True
    )
    first = await anext(aiter(stream))
    proxy.terminate()
    await until(proxy.draining)
    with pytest.raises(openai.APIConnectionError):
        await proxy.serving()
    rest = [chunk async for chunk in stream]
    assert first.choices
    assert rest[-1].choices[0].finish_reason == "stop"
    assert await ended(proxy.child) == 0


async def test_a_second_signal_does_not_wait(proxy: Proxy) -> None:
    stream = await proxy.client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hi"}], stream=True
    )
    await anext(aiter(stream))
    proxy.terminate()
    await until(proxy.draining)
    proxy.terminate()
    with pytest.raises(openai.APIError, match="this proxy is stopping"):
        async for _ in stream:
            pass
    assert await ended(proxy.child) == 0


async def test_a_taken_port_is_one_line_that_names_the_flag(
    manifests: Callable[..., Path], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = ("--manifests", str(manifests()), "--admin-listen", f"127.0.0.1:{port}")
        child = Child((sys.executable, "-m", "nexus_proxy", *flags), log=tmp_path / "log")
        try:
            assert await ended(child) == 1
        finally:
            child.stop()
    where = f"127.0.0.1:{port} (--admin-listen)"
    said = (tmp_path / "log").read_text()
    assert said == f"nexus-proxy: cannot listen on {where}: Address already in use\n"


async def test_more_clients_than_open_files_do_not_end_it(
    backend: SimulatedBackend, manifests: Callable[..., Path], tmp_path: Path
) -> None:
    flags = f"--manifests {manifests(b=BACKEND.format(url=backend.url))} --listen 127.0.0.1:0"
    run = f"exec {sys.executable} -m nexus_proxy {flags} --admin-listen 127.0.0.1:0"
    child = Child(["bash", "-c", f"ulimit -n 64; {run}"], log=tmp_path / "proxy.log")
    try:
        proxy = await asyncio.to_thread(Proxy, child)
        await until(proxy.serving)
        crowd = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(100)]
        # The folder is looked at once a second, and that takes a descriptor.
        await asyncio.sleep(1.5)
        assert child.exit_code is None
        for _, writer in crowd:
            writer.close()

        async def serves_a_newcomer() -> bool:
            async with httpx.AsyncClient() as client:
                answer = await client.get(f"http://127.0.0.1:{proxy.port}/v1/models")
            return answer.status_code == 200

        await until(serves_a_newcomer)
        await proxy.client.close()
    finally:
        child.stop()
