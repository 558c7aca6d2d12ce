"""A proxy of two workers as a real process, in the standalone mode."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from nexus_devtools.backends import Child, Script, SimulatedBackend

BACKEND = """
    apiVersion: nexus.dev/v1alpha1
    kind: LLMBackend
    metadata: {{name: {name}}}
    spec: {{url: "{url}", type: vllm{more}}}
"""
CHAT = "/v1/chat/completions"


async def until(holds: Callable[[], Awaitable[object]], seconds: float = 10.0) -> None:
    """Wait until something holds; TimeoutError if it is late."""
    async with asyncio.timeout(seconds):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


class WorkersProxy:
    """A running proxy of several workers and the folder it reads."""

    def __init__(self, folder: Path, log: Path, workers: int = 2, **environ: str) -> None:
        self.folder = folder
        command = (sys.executable, "-m", "nexus_proxy", "--manifests", str(folder))
        where = ("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
        flags = (*command, *where, "--workers", str(workers))
        self.child = Child(flags, log=log, environment={**os.environ, **environ})
        self.port = int(self.child.wait_for_line(r"serving on 127.0.0.1:(\d+)")[1])
        self.admin = int(self.child.wait_for_line(r"metrics on 127.0.0.1:(\d+)")[1])
        # Each request over a connection of its own: the kernel picks a worker for each.
        self.http = httpx.AsyncClient(
            timeout=30,
            headers={"connection": "close"},
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=False,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def look(self, path: str) -> httpx.Response:
        """Ask the admin port."""
        return await self.http.get(f"http://127.0.0.1:{self.admin}{path}")

    async def ready(self) -> bool:
        return (await self.look("/readyz")).status_code == 200

    async def chat(self, **body: Any) -> httpx.Response:
        """One request, to any worker."""
        asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
        return await self.http.post(self.url + CHAT, json=asked)

    async def metrics(self) -> dict[tuple[str, ...], float]:
        """Every sample by its name and label values."""
        text = (await self.look("/metrics")).text
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def pids(self) -> list[int]:
        """The workers' processes."""
        text = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text()
        return [int(each) for each in text.split()]

    def terminate(self) -> None:
        os.kill(self.child.pid, signal.SIGTERM)

    async def ended(self, seconds: float = 20.0) -> int | None:
        """The exit code, once there is one."""

        async def has_ended() -> bool:
            return self.child.exit_code is not None

        await until(has_ended, seconds)
        return self.child.exit_code


Write = Callable[..., Path]
Start = Callable[..., Any]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a manifest `name` into the folder: a backend at `url` with `more` of a spec, or
    `text`.
    """
    folder = tmp_path / "manifests"
    folder.mkdir()

    def put(name: str, url: str = "", more: str = "", text: str = "") -> Path:
        document = text or BACKEND.format(name=name, url=url, more=more)
        (folder / f"{name}.yaml").write_text(textwrap.dedent(document))
        return folder

    return put


@pytest.fixture
async def backend() -> AsyncIterator[SimulatedBackend]:
    async with SimulatedBackend(name="sim", models=["m"], script=Script(tokens=2)) as running:
        yield running


@pytest.fixture
def start(tmp_path: Path, write: Write) -> Start:
    """Starts a proxy over the folder; ready when the block begins."""

    @asynccontextmanager
    async def started(workers: int = 2, **environ: str) -> AsyncIterator[WorkersProxy]:
        folder, log = tmp_path / "manifests", tmp_path / "log"
        proxy = await asyncio.to_thread(WorkersProxy, folder, log, workers, **environ)
        try:
            await until(proxy.ready, 20)
            yield proxy
        finally:
            await proxy.http.aclose()
            proxy.child.stop()

    return started


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Awaitable[None]]:
    """`until(holds, seconds)`: wait until something holds."""
    return until
