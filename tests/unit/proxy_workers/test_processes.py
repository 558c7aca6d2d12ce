"""Real workers: one port, one table, one set of numbers, and what happens when one is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from nexus_devtools.backends import Child, Fault, FaultKind, Script, SimulatedBackend

CHAT = "/v1/chat/completions"
BURST = 120


async def test_a_burst_reaches_all_workers_and_every_number_is_exact(
    backend: SimulatedBackend, write: Callable[..., Path], start: Any, until: Any
) -> None:
    write("sim", backend.url)
    async with start() as proxy:
        for _ in range(4):
            answers = await asyncio.gather(*(proxy.chat() for _ in range(BURST // 4)))
            assert {answer.status_code for answer in answers} == {200}
        streams = await asyncio.gather(*(proxy.chat(stream=True) for _ in range(20)))
        assert all(answer.text.endswith("data: [DONE]\n\n") for answer in streams)
        sent = BURST + 20
        assert backend.seen().requests == sent

        async def told() -> bool:
            found = await proxy.metrics()
            return found["nexus_proxy_requests_total", "/v1/chat/completions", "200"] == sent

        await until(told, 2)
        found = await proxy.metrics()
        served = [found["nexus_proxy_worker_requests_total", worker] for worker in "12"]
        assert sum(served) == sent
        assert min(served) > sent / 10
        assert found["nexus_proxy_attempts_total", "success"] == sent
        assert found["nexus_proxy_backend_attempts_total", "default/sim"] == sent
        assert found["nexus_proxy_backend_in_flight", "default/sim"] == 0
        stats = (await proxy.look("/v1/stats")).json()
        assert stats["requests"] == {"total": sent, "success": sent, "errors": 0}
        assert stats["backends"][0]["requests"] == sent
        assert stats["backends"][0]["average_latency_ms"] > 0

        async def reported() -> bool:
            # The engine's own counts: they have come through the one stream of reports.
            found = await proxy.metrics()
            return found.get(("nexus_agent_ttft_seconds_count", "default/sim")) == 20

        await until(reported, 40)
        stats = (await proxy.look("/v1/stats")).json()
        assert stats["backends"][0]["success_rate_24h"] == 1.0


async def test_a_killed_worker_costs_its_own_connections_alone(
    backend: SimulatedBackend, write: Callable[..., Path], start: Any, until: Any
) -> None:
    write("sim", backend.url)
    backend.script = Script(tokens=2, headers_seconds=0.02)
    async with start() as proxy:
        answered, failed, stop = 0, 0, asyncio.Event()

        async def load() -> None:
            nonlocal answered, failed
            while not stop.is_set():
                try:
                    answer = await proxy.chat()
                    answered += answer.status_code == 200
                except httpx.TransportError:
                    failed += 1

        loads = [asyncio.create_task(load()) for _ in range(8)]

        async def warm() -> bool:
            return answered > 100

        await until(warm, 20)
        before, seen = proxy.pids(), answered
        os.kill(before[0], signal.SIGKILL)

        async def replaced() -> bool:
            return len(proxy.pids()) == 2 and before[0] not in proxy.pids()

        await until(replaced, 10)
        await until(proxy.ready, 10)

        async def goes_on() -> bool:
            return answered > seen + 100

        await until(goes_on, 20)
        stop.set()
        await asyncio.gather(*loads)
        assert failed <= 8  # no more than were under way
        await asyncio.sleep(0.3)
        found = await proxy.metrics()
        counted = found["nexus_proxy_requests_total", "/v1/chat/completions", "200"]
        # What the killed one had not told yet: a tick's answers, and its last ones under way.
        assert answered - 16 <= counted <= answered + failed
        assert found["nexus_proxy_worker_restarts_total",] == 1
        assert found["nexus_proxy_backend_in_flight", "default/sim"] == 0
        assert found["nexus_proxy_active_connections",] == 0


async def test_a_changed_file_reaches_all_workers_within_a_second_of_being_read(
    backend: SimulatedBackend, write: Callable[..., Path], start: Any, until: Any
) -> None:
    write("sim", backend.url, ", models: [{name: m}]")
    async with start() as proxy:

        async def names(count: int = 12) -> set[str]:
            found: set[str] = set()
            for _ in range(count):
                answer = await proxy.http.get(f"{proxy.url}/v1/models")
                found.update(each["id"] for each in answer.json()["data"])
            return found

        assert await names() == {"m"}
        write("sim", backend.url, ", models: [{name: m2, upstreamName: m}]")

        async def seen() -> bool:
            return await names(1) == {"m2"}

        await until(seen, 3)
        await asyncio.sleep(0.2)
        assert await names() == {"m2"}
        assert (await proxy.chat(model="m2")).status_code == 200


async def test_sigterm_lets_streams_of_all_workers_end(
    backend: SimulatedBackend, write: Callable[..., Path], start: Any, until: Any
) -> None:
    write("sim", backend.url)
    backend.script = Script(token_seconds=0.2, tokens=8)
    async with start() as proxy:
        streams = [asyncio.create_task(proxy.chat(stream=True)) for _ in range(12)]

        async def under_way() -> bool:
            return backend.seen().in_flight == 12

        await until(under_way)
        proxy.terminate()

        async def draining() -> bool:
            return (await proxy.look("/readyz")).text == "draining\n"

        await until(draining)

        async def closed() -> bool:
            with suppress(httpx.ConnectError):
                await proxy.http.get(f"{proxy.url}/v1/models")
                return False
            return True

        await until(closed, 2)
        texts = [(await stream).text for stream in streams]
        assert all(text.endswith("data: [DONE]\n\n") for text in texts)
        assert await proxy.ended() == 0


async def test_a_second_signal_does_not_wait(
    backend: SimulatedBackend, write: Callable[..., Path], start: Any, until: Any
) -> None:
    write("sim", backend.url)
    backend.script = Script(token_seconds=5, tokens=8)
    async with start() as proxy:
        stream = asyncio.create_task(proxy.chat(stream=True))

        async def under_way() -> bool:
            return backend.seen().in_flight == 1

        await until(under_way)
        proxy.terminate()
        await asyncio.sleep(0.3)
        proxy.terminate()
        assert "this proxy is stopping" in (await stream).text
        assert await proxy.ended() == 0


async def test_no_worker_outlives_its_parent(
    backend: SimulatedBackend, write: Callable[..., Path], start: Any, until: Any
) -> None:
    write("sim", backend.url)
    backend.script = Script(token_seconds=5, tokens=8)
    async with start() as proxy:
        stream = asyncio.create_task(proxy.chat(stream=True))

        async def under_way() -> bool:
            return backend.seen().in_flight == 1

        await until(under_way)
        workers = proxy.pids()
        assert len(workers) == 2
        proxy.child.kill()
        assert "this proxy is stopping" in (await stream).text

        async def gone() -> bool:
            return not any(_runs(pid) for pid in workers)

        await until(gone, 5)


def _runs(pid: int) -> bool:
    try:
        return "nexus_proxy" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


async def test_workers_keep_to_a_limit_together_and_all_are_served(
    backend: SimulatedBackend, write: Callable[..., Path], start: Any, until: Any
) -> None:
    write("sim", backend.url, ", maxConcurrency: 4")
    backend.script = Script(tokens=2, headers_seconds=0.05)
    async with start() as proxy:
        first = [asyncio.create_task(proxy.chat()) for _ in range(3)]
        await asyncio.gather(*first)
        answers = await asyncio.gather(*(proxy.chat() for _ in range(60)))
        assert {answer.status_code for answer in answers} == {200}
        # At once, each worker may fill it before it hears of the other; then they share.
        assert backend.seen().peak_in_flight <= 8


async def test_failures_that_reach_different_workers_open_one_breaker(
    backend: SimulatedBackend, write: Callable[..., Path], start: Any, until: Any
) -> None:
    write("sim", backend.url, ", priority: 0")
    async with SimulatedBackend(name="spare", models=["m"], script=Script()) as spare:
        write("spare", spare.url, ", priority: 100")
        async with start(workers=3) as proxy:
            backend.script = Script(faults=(Fault(kind=FaultKind.STATUS),))
            for _ in range(60):
                assert (await proxy.chat()).status_code == 200
            assert backend.seen().since_script.requests <= 7  # five, and what travels meanwhile

            async def explained() -> bool:
                body = {"model": "m", "messages": []}
                where = f"http://127.0.0.1:{proxy.admin}/v1/explain"
                said = (await proxy.http.post(where, json=body)).json()
                tiers = {each["backend"]: each["tier"] for each in said["legs"][0]["candidates"]}
                return tiers == {"sim": "Excluded", "spare": "Active"}

            await until(explained, 5)


async def test_a_port_that_somebody_else_listens_on_is_not_shared(
    backend: SimulatedBackend, write: Callable[..., Path], tmp_path: Path, until: Any
) -> None:
    folder = write("sim", backend.url)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = ("--manifests", str(folder), "--listen", f"127.0.0.1:{port}", "--workers", "2")
        command = (sys.executable, "-m", "nexus_proxy", *flags, "--admin-listen", "127.0.0.1:0")
        child = Child(command, log=tmp_path / "log")
        try:

            async def ended() -> bool:
                return child.exit_code is not None

            await until(ended, 20)
            assert child.exit_code == 1
        finally:
            child.stop()
    said = (tmp_path / "log").read_text()
    assert f"cannot listen on 127.0.0.1:{port} (--listen): Address already in use" in said


async def test_a_worker_that_dies_again_and_again_costs_no_new_connection(
    backend: SimulatedBackend, write: Callable[..., Path], start: Any, until: Any
) -> None:
    write("sim", backend.url)
    async with start() as proxy:
        for _ in range(3):
            victim = proxy.pids()[-1]
            os.kill(victim, signal.SIGKILL)

            async def replaced(gone: int = victim) -> bool:
                return len(proxy.pids()) == 2 and gone not in proxy.pids()

            # What comes meanwhile waits for its successor, or another gets it.
            answers = await asyncio.gather(*(proxy.chat() for _ in range(10)))
            assert {answer.status_code for answer in answers} == {200}
            await until(replaced, 10)
            await until(proxy.ready, 10)


async def test_a_worker_that_hangs_is_replaced(
    backend: SimulatedBackend, write: Callable[..., Path], start: Any, until: Any
) -> None:
    write("sim", backend.url)
    async with start(NEXUS_TEST_PACE="10") as proxy:
        hanging = proxy.pids()[0]
        os.kill(hanging, signal.SIGSTOP)

        async def replaced() -> bool:
            return len(proxy.pids()) == 2 and hanging not in proxy.pids()

        await until(replaced, 10)
        await until(proxy.ready, 10)
        answers = await asyncio.gather(*(proxy.chat() for _ in range(12)))
        assert {answer.status_code for answer in answers} == {200}
    assert "worker 1 has been silent for" in proxy.child.log.read_text()


async def test_a_worker_says_which_it_is(
    backend: SimulatedBackend, write: Callable[..., Path], start: Any, until: Any
) -> None:
    write("sim", backend.url)
    async with start(NEXUS_LOG_FORMAT="json") as proxy:
        workers = proxy.pids()
        proxy.child.kill()

        async def gone() -> bool:
            return not any(_runs(pid) for pid in workers)

        await until(gone, 5)
    lines = [json.loads(line) for line in proxy.child.log.read_text().splitlines()]
    last = {line["worker"]: line["message"] for line in lines if "worker" in line}
    assert last == {n: f"worker {n} ends: its parent is gone" for n in (1, 2)}


async def test_flags_hold_for_every_worker(
    backend: SimulatedBackend, write: Callable[..., Path], start: Any, until: Any, tmp_path: Path
) -> None:
    write("sim", backend.url)
    keys = tmp_path / "keys"
    keys.write_text("sesame\n")
    async with start(NEXUS_CLIENT_KEYS_FILE=str(keys)) as proxy:

        async def answers(key: str) -> set[int]:
            headers = {"authorization": f"Bearer {key}"}
            url = f"{proxy.url}/v1/models"
            return {(await proxy.http.get(url, headers=headers)).status_code for _ in range(12)}

        assert await answers("sesame") == {200}
        assert await answers("guessed") == {401}
        keys.write_text("another\n")

        async def taken() -> bool:
            return await answers("another") == {200} and await answers("sesame") == {401}

        await until(taken, 5)
