"""What counts as a failure that a client saw, and the generator on a simulated backend."""

from __future__ import annotations

import asyncio
import json

import pytest

from nexus_devtools.backends import Fault, FaultKind, Script, SimulatedBackend
from nexus_devtools.demo.traffic import Traffic, judge

CHUNK = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def whole(content: str | None) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}}]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "streamed", "wrong"),
    [
        (200, whole("a"), False, ""),
        (200, whole(None), False, "an answer without content"),
        (200, b'{"error": {}}', False, "an answer without content"),
        (200, b"{", False, "an answer that is not JSON"),
        (503, b"none left", False, "status 503: none left"),
        (200, ROLE + CHUNK + DONE, True, ""),
        (200, ROLE + DONE, True, "a stream without content"),
        (200, ROLE + CHUNK, True, "a stream that did not reach its end"),
        (200, b"", True, "a stream that did not reach its end"),
        (200, CHUNK + b"data: {\n\n" + DONE, True, "a stream with an event that is not JSON"),
        (200, CHUNK + b'data: {"error":{}}\n\n' + DONE, True, "a stream with an error event"),
        (500, b"", True, "status 500: "),
    ],
)
def test_an_answer_is_good_only_if_a_client_could_use_it(
    status: int, body: bytes, streamed: bool, wrong: str
) -> None:
    assert judge(status, body, streamed=streamed) == wrong


async def run_until(traffic: Traffic, backend: SimulatedBackend, requests: int) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(traffic.run())
        await backend.until(lambda seen: seen.requests >= requests)
        traffic.stop()


async def test_every_application_sends_streaming_and_not_and_all_is_recorded() -> None:
    async with SimulatedBackend(models=["m"]) as backend:
        proxies = {"one": backend.url, "two": backend.url}
        traffic = Traffic(proxies, model="m", per_second=100)
        await run_until(traffic, backend, 12)
        assert len(traffic.outcomes) == backend.seen().requests
    assert {outcome.app for outcome in traffic.outcomes} == {"one", "two"}
    assert {outcome.streamed for outcome in traffic.outcomes} == {True, False}
    assert all(outcome.ok for outcome in traffic.outcomes)
    # Nobody said who answered: that is not made up.
    assert {outcome.backend for outcome in traffic.outcomes} == {None}


async def test_a_slow_answer_does_not_slow_the_rate_of_requests() -> None:
    async with SimulatedBackend(models=["m"], script=Script(headers_seconds=0.3)) as backend:
        traffic = Traffic({"one": backend.url}, model="m", per_second=100)
        await run_until(traffic, backend, 10)
        assert backend.seen().peak_in_flight >= 5
    assert all(outcome.ok for outcome in traffic.outcomes)


@pytest.mark.parametrize("kind", [FaultKind.STATUS, FaultKind.CUT, FaultKind.TRUNCATE])
async def test_failures_are_recorded_as_the_client_saw_them(kind: FaultKind) -> None:
    script = Script(faults=(Fault(kind=kind, after_chunks=1),))
    async with SimulatedBackend(models=["m"], script=script) as backend:
        traffic = Traffic({"one": backend.url}, model="m", per_second=100)
        await run_until(traffic, backend, 3)
    assert not any(outcome.ok for outcome in traffic.outcomes)
    assert all(outcome.detail for outcome in traffic.outcomes)


async def test_a_proxy_that_is_not_there_is_a_failure_too() -> None:
    async with SimulatedBackend(models=["m"]) as backend:
        backend.script = Script(faults=(Fault(kind=FaultKind.REFUSE),))
        traffic = Traffic({"one": backend.url}, model="m", per_second=50)
        async with asyncio.TaskGroup() as group:
            group.create_task(traffic.run())
            await asyncio.sleep(0.1)
            traffic.stop()
    assert traffic.outcomes
    assert {outcome.ok for outcome in traffic.outcomes} == {False}
    assert "ClientConnectorError" in traffic.outcomes[0].detail
