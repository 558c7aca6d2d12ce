"""Event streams: the first token, a good end, and every way a backend can break one."""

from __future__ import annotations

import asyncio
import json

import pytest

from nexus_devtools.rawhttp.messages import (
    DONE,
    END,
    SSE_HEAD,
    STREAM_BODY,
    Message,
    chunk,
    event,
    post,
    stream,
)
from nexus_devtools.rawhttp.peers import Incomplete, Peer, Script, says, says_and_closes, until
from nexus_devtools.rawhttp.stage import Stage
from nexus_proxy.http.delivery import size_line
from nexus_proxy.routing.candidate import Timeouts
from nexus_quality.outcome import Outcome

ERROR_EVENT = b'data: {"error":{"message":"engine died","code":500}}\n\n'


def split(body: bytes) -> tuple[bytes, dict[str, object] | None]:
    """A body's events up to the error event this proxy appended, and that event's error."""
    head, mark, tail = body.rpartition(b'data: {"error":')
    if not mark or b"stream_interrupted" not in tail:
        return body, None
    assert tail.endswith(b"\n\n")
    error = json.loads(b'{"error":' + tail)["error"]
    assert isinstance(error, dict)
    return head, error


async def test_the_first_token_is_the_first_content_not_the_preamble(stage: Stage) -> None:
    seen: list[int] = []

    async def script(peer: Peer, _request: Message) -> None:
        await peer.send(SSE_HEAD + chunk(event()))
        await until(lambda: stage.counters.active_streams)
        seen.append(len(stage.attempts()[0].content_at))
        await peer.send(chunk(event("a")))
        await until(lambda: stage.attempts()[0].content_at)
        await peer.send(chunk(event("b")) + chunk(DONE) + END)

    await stage.backend(script)
    await stage.ask(post(STREAM_BODY))
    assert seen == [0]
    attempt = stage.attempts()[0]
    assert len(attempt.content_at) == len(attempt.sent_at) == 1
    assert attempt.content_at[0] >= attempt.sent_at[0]


CONTENT = {
    "text": b'{"choices":[{"delta":{"content":"a"}}]}',
    "reasoning": b'{"choices":[{"delta":{"reasoning_content":"a"}}]}',
    "reasoning, as vLLM names it": b'{"choices":[{"delta":{"reasoning":"a"}}]}',
    "a tool call": b'{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}',
    "a refusal": b'{"choices":[{"delta":{"refusal":"no"}}]}',
    "a completion": b'{"choices":[{"text":"a"}]}',
    "an answer's delta": b'{"type":"response.output_text.delta","delta":"a"}',
    "an answer's arguments": b'{"type":"response.function_call_arguments.delta","delta":"{"}',
}
NO_CONTENT = {
    "a role": b'{"choices":[{"delta":{"role":"assistant","content":""}}]}',
    "a null": b'{"choices":[{"delta":{"content":null}}]}',
    "usage": b'{"choices":[],"usage":{"total_tokens":1}}',
    "an empty completion": b'{"choices":[{"text":""}]}',
    "a created answer": b'{"type":"response.created","response":{"error":null}}',
    "something else": b'[1,"content"]',
    "no JSON": b"content",
}


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("name", CONTENT)
async def test_this_is_a_token(stage: Stage, name: str, size: int) -> None:
    await stage.backend(says(stream(b"data: " + CONTENT[name] + b"\n\n", DONE), size=size))
    await stage.ask(post(STREAM_BODY))
    assert len(stage.attempts()[0].content_at) == 1
    assert stage.outcomes() == [Outcome.SUCCESS]


@pytest.mark.parametrize("name", NO_CONTENT)
async def test_this_is_no_token(stage: Stage, name: str) -> None:
    await stage.backend(says(stream(b"data: " + NO_CONTENT[name] + b"\n\n", DONE)))
    await stage.ask(post(STREAM_BODY))
    assert stage.attempts()[0].content_at == []
    assert stage.outcomes() == [Outcome.SUCCESS]


GOOD_ENDS = {
    "[DONE]": (event("a"), DONE),
    "a finish reason": (event("a"), event(finish="length")),
    "a finish reason before the usage": (
        event("a"),
        event(finish="stop"),
        b'data: {"choices":[],"usage":{}}\n\n',
    ),
    "[DONE] without an empty line": (event("a"), b"data: [DONE]"),
    "[DONE] in CRLF": (event("a").replace(b"\n", b"\r\n"), b"data: [DONE]\r\n\r\n"),
    "a completed answer": (
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
        b'"delta":"a"}\n\n',
        b'event: response.completed\ndata: {"type":"response.completed",'
        b'"response":{"error":null}}\n\n',
    ),
    "an incomplete answer": (event("a"), b'data: {"type":"response.incomplete"}\n\n'),
}


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize("name", GOOD_ENDS)
async def test_this_is_a_good_end(stage: Stage, name: str, size: int) -> None:
    await stage.backend(says(stream(*GOOD_ENDS[name]), size=size))
    message = await stage.ask(post(STREAM_BODY))
    assert message.body == b"".join(GOOD_ENDS[name])
    assert stage.outcomes() == [Outcome.SUCCESS]


HELLO = event() + event("he")
BROKEN: dict[str, tuple[Script, Outcome]] = {
    "cut between chunks": (says_and_closes(SSE_HEAD + chunk(HELLO)), Outcome.CUT),
    "cut in a chunk": (says_and_closes(SSE_HEAD + chunk(HELLO) + b"40\r\nda"), Outcome.CUT),
    "cut in an event": (
        says_and_closes(SSE_HEAD + chunk(HELLO) + chunk(event("llo")[:30])),
        Outcome.CUT,
    ),
    "cut in the chunk's size": (says_and_closes(SSE_HEAD + chunk(HELLO) + b"4"), Outcome.CUT),
    "ended without a sign of the end": (says(stream(HELLO, event("llo"))), Outcome.CUT),
    "ended in an event": (says(stream(HELLO, b"data: {")), Outcome.CUT),
    "closed without a sign of the end": (
        says_and_closes(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + HELLO + event("llo")
        ),
        Outcome.CUT,
    ),
    "malformed": (says(SSE_HEAD + chunk(HELLO) + b"xyz\r\n"), Outcome.MALFORMED),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_stream_tells_its_client_so(stage: Stage, name: str) -> None:
    script, outcome = BROKEN[name]
    await stage.backend(script)
    await stage.backend(says(stream(DONE)))
    client = await stage.client()
    await client.send(post(STREAM_BODY))
    message = await client.receive()
    events, error = split(message.body)
    assert events.startswith(HELLO), "what had come before is not lost"
    assert error is not None
    assert error["type"] == "server_error"
    assert "b0" in str(error["message"])
    assert b"[DONE]" not in message.body
    assert await client.ended() == b""
    assert stage.outcomes(0) == [outcome]
    assert stage.upstreams[1].requests == [], "nothing is tried after the commit"


@pytest.mark.parametrize("cut", range(0, len(event("llo")), 7))
async def test_the_error_stands_at_an_event_boundary_wherever_the_cut_is(
    stage: Stage, cut: int
) -> None:
    await stage.backend(
        says_and_closes(SSE_HEAD + chunk(HELLO) + chunk(event("llo")[:cut] or b":"))
    )
    message = await stage.ask(post(STREAM_BODY))
    events, error = split(message.body)
    assert events == HELLO
    assert error is not None


async def test_a_stream_that_falls_silent_is_a_timeout(stage: Stage) -> None:
    upstream = await stage.backend(
        says(SSE_HEAD + chunk(HELLO)), timeouts=Timeouts(first_token=100, idle=10)
    )
    client = await stage.client()
    await client.send(post(STREAM_BODY))
    await until(lambda: stage.attempts() and stage.attempts()[0].content_at)
    stage.tick(9)
    assert stage.outcomes() == []
    stage.tick(20)
    events, error = split((await client.receive()).body)
    assert (events, error is not None) == (HELLO, True)
    assert stage.outcomes() == [Outcome.TIMEOUT]
    await until(upstream.peers[0].lost.is_set)


async def test_an_error_event_of_the_backends_own_passes_and_counts(stage: Stage) -> None:
    events = (event("he"), ERROR_EVENT, DONE)
    await stage.backend(says(stream(*events)))
    message = await stage.ask(post(STREAM_BODY))
    assert message.body == b"".join(events)
    assert stage.outcomes() == [Outcome.STREAM_ERROR]


@pytest.mark.parametrize("size", [1, 5])
async def test_a_late_error_event_is_seen_however_it_is_split(stage: Stage, size: int) -> None:
    await stage.backend(says(stream(event("he"), event("llo"), ERROR_EVENT, DONE), size=size))
    await stage.ask(post(STREAM_BODY))
    assert stage.outcomes() == [Outcome.STREAM_ERROR]


async def test_the_word_error_in_a_text_is_no_error(stage: Stage) -> None:
    text = event('an error: \\"error\\": {}')
    await stage.backend(says(stream(event("a"), text, DONE)))
    await stage.ask(post(STREAM_BODY))
    assert stage.outcomes() == [Outcome.SUCCESS]


async def test_an_error_event_and_then_a_cut_is_told_once(stage: Stage) -> None:
    await stage.backend(says_and_closes(SSE_HEAD + chunk(event("a")) + chunk(ERROR_EVENT)))
    message = await stage.ask(post(STREAM_BODY))
    assert message.body == event("a") + ERROR_EVENT
    assert stage.outcomes() == [Outcome.STREAM_ERROR]


async def test_a_cut_after_done_is_a_failure_the_client_need_not_know_of(stage: Stage) -> None:
    await stage.backend(says_and_closes(SSE_HEAD + chunk(event("a")) + chunk(DONE)))
    message = await stage.ask(post(STREAM_BODY))
    assert message.body == event("a") + DONE
    assert stage.outcomes() == [Outcome.CUT]


async def test_a_broken_stream_to_an_http_1_0_client_ends_with_the_error(stage: Stage) -> None:
    await stage.backend(says_and_closes(SSE_HEAD + chunk(HELLO)))
    message = await stage.ask(post(STREAM_BODY, version="1.0"))
    events, error = split(message.body)
    assert (events, error is not None) == (HELLO, True)


async def test_a_broken_encoded_stream_ends_in_a_way_that_shows(stage: Stage) -> None:
    head = SSE_HEAD[:-2] + b"Content-Encoding: br\r\n\r\n"
    await stage.backend(says_and_closes(head + chunk(b"\x1b\x03")))
    client = await stage.client()
    await client.send(post(STREAM_BODY))
    with pytest.raises(Incomplete):
        await client.receive()
    await until(lambda: stage.outcomes() == [Outcome.CUT])


async def test_each_event_is_passed_on_as_it_comes(stage: Stage) -> None:
    arrived = asyncio.Event()

    async def script(peer: Peer, _request: Message) -> None:
        await peer.send(SSE_HEAD)
        for text in "abc":
            await peer.send(chunk(event(text)))
            await asyncio.wait_for(arrived.wait(), 5)
            arrived.clear()
        await peer.send(chunk(DONE) + END)

    await stage.backend(script)
    client = await stage.client()
    await client.send(post(STREAM_BODY))
    await client.reader.readuntil(b"\r\n\r\n")
    for text in "abc":
        assert await client.reader.readuntil(b"\n\n\r\n") == chunk(event(text))
        arrived.set()
    assert await client.reader.readuntil(b"0\r\n\r\n") == chunk(DONE) + END


async def test_comments_alone_are_held_only_for_a_while(stage: Stage) -> None:
    ping = b": ping\n\n"
    release = asyncio.Event()

    async def script(peer: Peer, _request: Message) -> None:
        await peer.send(SSE_HEAD + chunk(ping))
        await release.wait()
        await peer.send(chunk(event("a")) + chunk(DONE) + END)

    await stage.backend(script)
    client = await stage.client()
    await client.send(post(STREAM_BODY))
    await until(lambda: stage.upstreams[0].requests)
    await asyncio.sleep(0.05)
    stage.tick(3)
    assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert await client.reader.readuntil(b"\n\n\r\n") == chunk(ping)
    release.set()
    await client.reader.readuntil(b"0\r\n\r\n")
    assert stage.outcomes() == [Outcome.SUCCESS]


@pytest.mark.parametrize("size", [1, 7, 60, 10_000])
async def test_a_long_stream_arrives_as_sent_however_it_is_cut(stage: Stage, size: int) -> None:
    events = [event(f"word {n}" * (n % 40 + 1)) for n in range(60)]
    sent = b"".join(map(chunk, [*events, DONE])) + END

    async def script(peer: Peer, _request: Message) -> None:
        await peer.send(SSE_HEAD + chunk(event("first")))
        await asyncio.sleep(0)
        for start in range(0, len(sent), size):
            await peer.send(sent[start : start + size])
            await asyncio.sleep(0)

    await stage.backend(script)
    answer = await stage.ask(post(STREAM_BODY))
    assert answer.body == event("first") + b"".join(events) + DONE
    assert stage.outcomes() == [Outcome.SUCCESS]


async def test_chunks_that_come_one_a_read_are_passed_on_as_they_are(stage: Stage) -> None:
    events = [event(f"word {n}" * (n % 40 + 1)) for n in range(40)]

    async def script(peer: Peer, _request: Message) -> None:
        await peer.send(SSE_HEAD + chunk(event("first")))
        for each in events:
            sent = stage.counters.bytes_sent
            await peer.send(chunk(each))
            await until(lambda sent=sent: stage.counters.bytes_sent > sent)
        await peer.send(chunk(DONE) + END)

    await stage.backend(script)
    answer = await stage.ask(post(STREAM_BODY))
    assert answer.body == event("first") + b"".join(events) + DONE
    assert stage.outcomes() == [Outcome.SUCCESS]


async def test_what_only_looks_like_a_chunk_is_carried_as_content(stage: Stage) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    likeness = chunk(event("b"))

    async def script(peer: Peer, _request: Message) -> None:
        await peer.send(head + event("a"))
        await until(lambda: stage.attempts()[-1].content_at)
        await peer.send(likeness)
        await asyncio.sleep(0.05)
        await peer.send(DONE)
        await peer.close()

    whole = says(SSE_HEAD + chunk(event("x")) + chunk(DONE) + END)
    await stage.backend(whole, script)
    client = await stage.client()
    for body in (event("x") + DONE, event("a") + likeness + DONE):
        await client.send(post(STREAM_BODY))
        assert (await client.receive()).body == body


@pytest.mark.parametrize("total", [*range(1, 40), 260, 261, 262, 263, 4102, 4103, 65_545])
def test_the_size_line_of_a_chunk_follows_from_its_length(total: int) -> None:
    head = size_line(total)
    if head != b"\0":
        assert len(head) + int(head, 16) + 2 == total
    else:
        assert all(len(chunk(b"x" * n)) != total for n in range(max(1, total - 12), total))
