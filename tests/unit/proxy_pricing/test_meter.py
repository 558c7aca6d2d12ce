"""What attempts cost: by usage where it is stated, else estimated; on the real byte path."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from nexus_api.quantities import format_usd
from nexus_devtools.rawhttp.messages import (
    DONE,
    END,
    SSE_HEAD,
    STREAM_BODY,
    Message,
    answer,
    chunk,
    event,
    post,
    stream,
)
from nexus_devtools.rawhttp.peers import Peer, Script, says, says_and_closes, until
from nexus_devtools.rawhttp.stage import Stage
from nexus_proxy.pricing.usage import Usage, usage_in, usage_of_body
from nexus_quality.spend import Spending

PRICE = (2_000_000_000, 10_000_000_000)  # nano-USD per million tokens: 2000 in, 10000 out per token
USAGE = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
COST = 100 * 2000 + 7 * 10_000
TEXT = "x" * 400
ASK = json.dumps({"model": "m", "messages": [{"role": "user", "content": TEXT}]}).encode()
ASK_STREAM = ASK[:-1] + b',"stream":true}'
COMPACT = json.dumps({"choices": [], "usage": USAGE}, separators=(",", ":")).encode()
USAGE_EVENT = b"data: " + COMPACT + b"\n\n"
SPACED_EVENT = b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode() + b"\n\n"
NULLS = event("b").replace(b'{"object"', b'{"usage":null,"object"')


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of the product."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A started gateway; the invariant of attempts is checked at the end."""
    made = Stage()
    await made.start()
    yield made
    await made.stop()
    made.check_attempts()


@pytest.fixture
def spending(stage: Stage) -> Spending:
    """Where the gateway counts costs."""
    made = Spending(lambda now: now)
    stage.gateway._spending = made
    return made


async def priced(stage: Stage, *scripts: Script, price: tuple[int, int] | None = PRICE) -> None:
    await stage.backend(*scripts)
    candidate = stage.router.choices[-1].candidate
    candidate.traits = replace(candidate.traits, price=price)


def body(usage: object = USAGE, **more: Any) -> bytes:
    return json.dumps(
        {"choices": [{"message": {"content": "hi"}}], "usage": usage, **more}
    ).encode()


async def test_a_whole_answer_costs_what_its_usage_says_and_the_client_is_told(
    stage: Stage, spending: Spending
) -> None:
    await priced(stage, says(answer(body())))
    message = await stage.ask(post(ASK))
    assert message.header("x-nexus-cost-estimated") == b"0.00027"
    assert message.body == body()
    assert spending.total == COST
    assert stage.counters.costs == {"usage": COST}


async def test_without_a_price_nothing_is_counted_or_said(stage: Stage, spending: Spending) -> None:
    await priced(stage, says(answer(body())), price=None)
    message = await stage.ask(post(ASK))
    assert message.header("x-nexus-cost-estimated") is None
    assert (spending.total, stage.counters.costs) == (0, {})


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_how_an_answer_is_split_changes_nothing(
    stage: Stage, spending: Spending, size: int
) -> None:
    await priced(stage, says(answer(body()), size=size))
    await stage.ask(post(ASK))
    assert spending.total == COST


async def test_a_compressed_answer_is_looked_into(stage: Stage, spending: Spending) -> None:
    packed = gzip.compress(body())
    await priced(stage, says(answer(packed, more=b"Content-Encoding: gzip\r\n")))
    message = await stage.ask(post(ASK))
    assert message.body == packed
    assert spending.total == COST


async def test_the_usage_at_the_end_of_a_long_answer_is_found(
    stage: Stage, spending: Spending
) -> None:
    long = json.dumps({"choices": [{"text": "y" * 300_000}], "usage": USAGE}).encode()
    await priced(stage, says(answer(long), size=40_000))
    await stage.ask(post(ASK))
    assert spending.total == COST


async def test_without_usage_the_cost_is_estimated_from_the_bytes(
    stage: Stage, spending: Spending
) -> None:
    plain = b'{"choices":[{"message":{"content":"' + b"z" * 400 + b'"}}]}'
    await priced(stage, says(answer(plain)))
    message = await stage.ask(post(ASK))
    expected = 100 * 2000 + len(plain) // 4 * 10_000
    assert spending.total == expected
    assert stage.counters.costs == {"estimate": expected}
    assert message.header("x-nexus-cost-estimated") == format_usd(expected).encode()


@pytest.mark.parametrize(
    ("last", "tokens"),
    [(USAGE_EVENT, (100, 7)), (SPACED_EVENT, (100, 7)), (event("c"), (100, 13))],
    ids=["usage", "usage with spaces", "none: [DONE] counts as an event"],
)
async def test_events_that_pass_unparsed_are_counted_and_their_usage_is_read(
    stage: Stage, spending: Spending, last: bytes, tokens: tuple[int, int]
) -> None:
    relayed: list[bytes] = []

    async def script(peer: Peer, _request: Message) -> None:
        await peer.send(SSE_HEAD + chunk(event("a")))
        for each in (*(event(str(n)) for n in range(10)), last):
            await until(lambda: stage.counters.active_streams)
            (exchange,) = stage.gateway.exchanges
            upstream = exchange._upstream
            assert upstream is not None
            if upstream.relay is not None and upstream._between_chunks:
                relayed.append(each)
            sent = stage.counters.bytes_sent
            await peer.send(chunk(each))
            await until(lambda sent=sent: stage.counters.bytes_sent > sent)
        await peer.send(chunk(DONE) + END)

    await priced(stage, script)
    await stage.ask(post(ASK_STREAM))
    assert last in relayed
    assert len(relayed) >= 10
    assert spending.total == tokens[0] * 2000 + tokens[1] * 10_000


async def test_an_embedding_without_usage_has_no_output(stage: Stage, spending: Spending) -> None:
    await priced(stage, says(answer(b'{"data":[{"embedding":[0.1,0.2]}]}')))
    await stage.ask(post(json.dumps({"model": "m", "input": TEXT}).encode(), path="/v1/embeddings"))
    assert spending.total == 100 * 2000


STREAMS = {
    "usage in an event of its own": stream(event("a"), NULLS, USAGE_EVENT, DONE),
    "written with spaces": stream(event("a"), SPACED_EVENT, DONE),
    "usage and end in one chunk": SSE_HEAD + chunk(event("a") + USAGE_EVENT + DONE) + END,
    "usage in every event, the last counts": stream(
        event("a").replace(b'{"object"', b'{"usage":{"prompt_tokens":100},"object"'),
        USAGE_EVENT,
        DONE,
    ),
    "the responses API": stream(
        b'data: {"type":"response.output_text.delta","delta":"hi"}\n\n',
        b'data: {"type":"response.completed","response":{"usage":'
        b'{"input_tokens":100,"output_tokens":7}}}\n\n',
    ),
}


@pytest.mark.parametrize("size", [0, 1, 50])
@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_costs_what_its_last_usage_says(
    stage: Stage, spending: Spending, name: str, size: int
) -> None:
    await priced(stage, says(STREAMS[name], size=size))
    message = await stage.ask(post(ASK_STREAM))
    assert spending.total == COST
    # The head leaves before anything is known: half as much out as in is expected.
    assert message.header("x-nexus-cost-estimated") == b"0.0007"


async def test_a_request_is_sent_as_it_came_also_where_usage_would_be_nice(
    stage: Stage, spending: Spending
) -> None:
    upstream_says = says(stream(event("a"), event("b"), event(finish="stop"), DONE))
    await priced(stage, upstream_says)
    await stage.ask(post(ASK_STREAM))
    assert stage.upstreams[0].requests[0].body == ASK_STREAM
    assert spending.total == 100 * 2000 + 4 * 10_000  # one token an event
    assert set(stage.counters.costs) == {"estimate"}


async def test_a_stream_that_breaks_costs_what_had_come(stage: Stage, spending: Spending) -> None:
    await priced(stage, says_and_closes(SSE_HEAD + chunk(event("a")) + chunk(event("b"))))
    await stage.ask(post(ASK_STREAM))
    assert spending.total == 100 * 2000 + 2 * 10_000


async def test_a_client_that_leaves_a_stream_has_cost_what_had_come(
    stage: Stage, spending: Spending
) -> None:
    await priced(stage, says(SSE_HEAD + chunk(event("a")) + chunk(event("b"))))
    client = await stage.client()
    await client.send(post(ASK_STREAM))
    await until(lambda: stage.counters.active_streams)
    client.abort()
    await until(lambda: spending.total)
    assert spending.total == 100 * 2000 + 2 * 10_000


FAILURES = {
    "5xx": answer(body(), status="500 X"),
    "429": answer(body(), status="429 X"),
    "4xx": answer(b'{"error":{"message":"no"}}' + b" " * 100_000, status="400 X"),
    "an error object": answer(b'{"error":{"message":"no"}}'),
    "an error event": stream(b'data: {"error":{"message":"no"}}\n\n'),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failure_without_content_costs_nothing(
    stage: Stage, spending: Spending, name: str
) -> None:
    await priced(stage, says(FAILURES[name]))
    message = await stage.ask(post(STREAM_BODY if "event" in name else ASK))
    assert message.header("x-nexus-cost-estimated") is None
    assert spending.total == 0


async def test_every_attempt_is_priced_as_it_began_and_by_its_own_backend(
    stage: Stage, spending: Spending
) -> None:
    await priced(stage, says_and_closes(SSE_HEAD + b"2\r\n"))
    await priced(stage, says(answer(body())), price=(1_000_000, 1_000_000))
    await stage.ask(post(ASK))
    assert spending.total == 107


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b'{"usage": {"prompt_tokens": 3, "completion_tokens": 4}}', Usage(3, 4)),
        (b'{"usage":{"input_tokens":3,"output_tokens":4}}', Usage(3, 4)),
        (b'{"usage":{"prompt_tokens":3,"total_tokens":3}}', Usage(3, 0)),
        (b'{"usage":null}', None),
        (b'{"usage":{}}', None),
        (b'{"usage":{"prompt_tokens":-3}}', None),
        (b'{"usage":{"prompt_tokens":true}}', None),
        (b'{"usage":{"prompt_tokens":1e3}}', None),
        (b'{"usage":{"prompt_tokens":99999999999}}', None),
        (b'{"usage":{"prompt_tokens":' + b"9" * 5000 + b"}}", None),
        (b'{"usage":' + b'{"a":' * 5000 + b"1" + b"}" * 5001, None),
        (b'{"choices":[{"text":"\\"usage\\":{\\"prompt_tokens\\":9}"}]}', None),
        (b"not json", None),
    ],
)
def test_usage_is_read_where_it_is_one(text: bytes, found: Usage | None) -> None:
    assert usage_of_body(text) == found
    assert usage_in(b"some text before " + text) == found
