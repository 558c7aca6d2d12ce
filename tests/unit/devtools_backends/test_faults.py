"""Every scripted fault, as the official client or a plain HTTP client meets it."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    InternalServerError,
    RateLimitError,
)

from nexus_devtools.backends import Fault, FaultKind, Script, SimulatedBackend

ASK = [{"role": "user", "content": "hello"}]
BODY = {"model": "m1", "messages": ASK}


def failing(kind: FaultKind, **fields: object) -> Script:
    return Script(tokens=4, faults=(Fault(kind=kind, **fields),))


async def streamed(client: AsyncOpenAI) -> list[str]:
    stream = await client.chat.completions.create(model="m1", messages=ASK, stream=True)
    return [chunk.choices[0].delta.content or "" async for chunk in stream]


async def raw_stream(backend: SimulatedBackend) -> tuple[bytes, Exception | None]:
    """The bytes of a stream up to where it broke, and how."""
    got = b""
    async with httpx.AsyncClient(timeout=2) as http:
        try:
            async with http.stream(
                "POST", f"{backend.url}/v1/chat/completions", json=BODY | {"stream": True}
            ) as answer:
                async for piece in answer.aiter_raw():
                    got += piece
        except httpx.HTTPError as error:
            return got, error
    return got, None


async def test_a_status_fault_is_an_error_with_an_openai_body(
    backend: SimulatedBackend, client: AsyncOpenAI
) -> None:
    backend.script = failing(FaultKind.STATUS, status=503)
    with pytest.raises(InternalServerError, match="simulated fault: status 503") as caught:
        await client.chat.completions.create(model="m1", messages=ASK)
    assert caught.value.code == "simulated_fault"
    assert "retry-after" not in caught.value.response.headers


async def test_a_429_says_when_to_come_back(backend: SimulatedBackend, client: AsyncOpenAI) -> None:
    backend.script = failing(FaultKind.STATUS, status=429, retry_after="7")
    with pytest.raises(RateLimitError) as caught:
        await streamed(client)
    assert caught.value.response.headers["retry-after"] == "7"


async def test_a_probable_fault_strikes_the_same_requests_for_the_same_seed(
    backend: SimulatedBackend, client: AsyncOpenAI
) -> None:
    async def run(seed: int) -> list[bool]:
        faults = (Fault(kind=FaultKind.STATUS, probability=0.5),)
        backend.script = Script(faults=faults, seed=seed)
        outcomes = []
        for _ in range(20):
            try:
                await client.chat.completions.create(model="m1", messages=ASK)
                outcomes.append(True)
            except APIStatusError:
                outcomes.append(False)
        return outcomes

    first = await run(1)
    assert 3 < first.count(False) < 17
    assert await run(1) == first
    assert await run(2) != first


async def test_refusing_closes_the_port_and_its_idle_connections_until_the_script_changes(
    backend: SimulatedBackend, client: AsyncOpenAI
) -> None:
    await client.chat.completions.create(model="m1", messages=ASK)
    url = backend.url
    backend.script = failing(FaultKind.REFUSE)
    with pytest.raises(APIConnectionError):
        await client.chat.completions.create(model="m1", messages=ASK)
    async with httpx.AsyncClient() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(f"{url}/health")
        assert (await http.get(f"{backend.control_url}/_seen")).status_code == 200
    backend.script = Script()
    assert backend.url == url
    await client.chat.completions.create(model="m1", messages=ASK)


async def test_hanging_before_the_headers_ends_only_with_the_clients_patience(
    backend: SimulatedBackend, client: AsyncOpenAI
) -> None:
    backend.script = failing(FaultKind.HANG_HEADERS)
    with pytest.raises(APITimeoutError):
        await client.with_options(timeout=0.1).chat.completions.create(model="m1", messages=ASK)


@pytest.mark.parametrize("after", [0, 2])
async def test_a_hanging_stream_sends_headers_preamble_and_so_many_tokens(
    backend: SimulatedBackend, after: int
) -> None:
    backend.script = failing(FaultKind.HANG_STREAM, after_chunks=after)
    got = b""
    async with (
        httpx.AsyncClient(timeout=0.2) as http,
        http.stream(
            "POST", f"{backend.url}/v1/chat/completions", json=BODY | {"stream": True}
        ) as answer,
    ):
        assert answer.status_code == 200
        with pytest.raises(httpx.ReadTimeout):
            async for piece in answer.aiter_raw():
                got += piece
    assert got.count(b"data: ") == 1 + after


@pytest.mark.parametrize("kind", [FaultKind.CUT, FaultKind.RESET])
async def test_a_cut_stream_breaks_the_connection_after_so_many_tokens(
    backend: SimulatedBackend, kind: FaultKind
) -> None:
    backend.script = failing(kind, after_chunks=2)
    got, error = await raw_stream(backend)
    assert got.count(b"data: ") == 3
    expected = httpx.RemoteProtocolError if kind is FaultKind.CUT else httpx.ReadError
    assert isinstance(error, expected)


async def test_a_truncated_stream_ends_in_good_order_without_done(
    backend: SimulatedBackend,
) -> None:
    backend.script = failing(FaultKind.TRUNCATE, after_chunks=2)
    got, error = await raw_stream(backend)
    assert error is None
    assert got.count(b"data: ") == 3
    assert b"[DONE]" not in got
    assert b'"finish_reason":"stop"' not in got


async def test_a_malformed_stream_has_an_event_that_is_no_json(
    backend: SimulatedBackend, client: AsyncOpenAI
) -> None:
    backend.script = failing(FaultKind.MALFORMED, after_chunks=1)
    with pytest.raises(ValueError, match="Expecting"):
        await streamed(client)


async def test_a_stream_error_event_is_raised_by_the_client(
    backend: SimulatedBackend, client: AsyncOpenAI
) -> None:
    backend.script = failing(FaultKind.STREAM_ERROR, after_chunks=1)
    with pytest.raises(APIError, match="the engine died"):
        await streamed(client)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_body_comes_with_status_200(backend: SimulatedBackend, stream: bool) -> None:
    backend.script = failing(FaultKind.ERROR_BODY)
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            f"{backend.url}/v1/chat/completions", json=BODY | {"stream": stream}
        )
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json()["error"]["code"] == "simulated_fault"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (FaultKind.CUT, httpx.RemoteProtocolError),
        (FaultKind.RESET, httpx.ReadError),
        (FaultKind.HANG_STREAM, httpx.ReadTimeout),
    ],
)
async def test_an_answer_that_is_not_streamed_breaks_in_its_middle(
    backend: SimulatedBackend, kind: FaultKind, expected: type[Exception]
) -> None:
    backend.script = failing(kind)
    async with httpx.AsyncClient(timeout=0.2) as http:
        with pytest.raises(expected):
            await http.post(f"{backend.url}/v1/chat/completions", json=BODY)


@pytest.mark.parametrize("kind", [FaultKind.TRUNCATE, FaultKind.MALFORMED])
async def test_an_answer_that_is_not_streamed_can_be_no_json(
    backend: SimulatedBackend, kind: FaultKind
) -> None:
    backend.script = failing(kind)
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{backend.url}/v1/chat/completions", json=BODY)
    with pytest.raises(ValueError, match=r"Expecting|delimiter|Unterminated"):
        answer.json()


async def test_a_slow_fault_delays_a_good_answer(
    backend: SimulatedBackend, client: AsyncOpenAI
) -> None:
    backend.script = failing(FaultKind.SLOW, delay_seconds=0.1)
    began = time.monotonic()
    assert "".join(await streamed(client)) == "This answer is simulated:"
    assert time.monotonic() - began >= 0.1


async def test_the_preamble_comes_at_once_and_the_first_token_when_scripted(
    backend: SimulatedBackend, client: AsyncOpenAI
) -> None:
    backend.script = Script(first_token_seconds=0.1, token_seconds=0.02, tokens=4)
    began = time.monotonic()
    stream = await client.chat.completions.create(model="m1", messages=ASK, stream=True)
    times = [time.monotonic() - began async for _ in stream]
    assert times[0] < 0.1 <= times[1]
    assert times[-1] >= 0.16


async def test_a_fault_can_be_for_one_model_and_for_so_many_requests(
    backend: SimulatedBackend, client: AsyncOpenAI
) -> None:
    backend.script = failing(FaultKind.STATUS, model="m2", times=2)
    await client.chat.completions.create(model="m1", messages=ASK)
    for _ in range(2):
        with pytest.raises(InternalServerError):
            await client.chat.completions.create(model="m2", messages=ASK)
    await client.chat.completions.create(model="m2", messages=ASK)


async def test_faults_leave_probes_alone_and_health_has_its_own_status(
    backend: SimulatedBackend,
) -> None:
    backend.script = failing(FaultKind.STATUS)
    async with httpx.AsyncClient(base_url=backend.url) as http:
        assert (await http.get("/health")).status_code == 200
        assert (await http.get("/v1/models")).status_code == 200
        backend.script = Script(health_status=503)
        assert (await http.get("/health")).status_code == 503


async def test_stopping_does_not_wait_for_hanging_requests() -> None:
    async with httpx.AsyncClient(timeout=5) as http:
        async with SimulatedBackend(models=["m1"], script=failing(FaultKind.HANG_HEADERS)) as b:
            asking = asyncio.ensure_future(http.post(f"{b.url}/v1/chat/completions", json=BODY))
            await b.until(lambda seen: seen.requests == 1)
            began = time.monotonic()
        assert time.monotonic() - began < 3
        with pytest.raises(httpx.HTTPError):
            await asking
