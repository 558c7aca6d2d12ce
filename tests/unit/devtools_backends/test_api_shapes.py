"""The official client understands every answer of a simulated backend."""

from __future__ import annotations

import base64
import json
import struct

import httpx
import pytest
from openai import AsyncOpenAI, NotFoundError
from openai.types.chat import ChatCompletionChunk

from nexus_devtools.backends import Script, SimulatedBackend

ASK = [{"role": "user", "content": "two words"}]
TEXT = "This answer is simulated:"


async def test_a_chat_completion_is_whole_and_marked_as_simulated(
    backend: SimulatedBackend, client: AsyncOpenAI
) -> None:
    backend.script = Script(tokens=4)
    raw = await client.chat.completions.with_raw_response.create(model="m1", messages=ASK)
    answer = raw.parse()
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    assert answer.model == "m1"
    assert answer.system_fingerprint == "simulated"
    assert raw.headers["server"] == "nexus-simulated"


async def test_a_request_for_fewer_tokens_is_cut_with_reason_length(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="m1", messages=ASK, max_tokens=2)
    assert answer.choices[0].message.content == "This answer"
    assert answer.choices[0].finish_reason == "length"


async def test_a_chat_stream_has_a_role_preamble_one_delta_per_token_and_a_finish(
    backend: SimulatedBackend, client: AsyncOpenAI
) -> None:
    backend.script = Script(tokens=4)
    stream = await client.chat.completions.create(model="m1", messages=ASK, stream=True)
    chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert deltas[0].content == ""
    assert "".join(delta.content or "" for delta in deltas) == TEXT
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 5 + ["stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_chat_stream_ends_with_usage_where_asked_for(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="m1", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    chunks: list[ChatCompletionChunk] = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
async def test_a_stream_is_server_sent_events_that_end_with_done(
    backend: SimulatedBackend, path: str
) -> None:
    body = {"model": "m1", "messages": ASK, "prompt": "x", "stream": True}
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{backend.url}/v1/{path}", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("\n\ndata: [DONE]\n\n")
    *events, _done, _empty = answer.text.split("\n\n")
    assert all(json.loads(event.removeprefix("data: ")) for event in events)


async def test_completions_answer_whole_and_as_a_stream(client: AsyncOpenAI) -> None:
    whole = await client.completions.create(model="m2", prompt="a b c", max_tokens=3)
    assert whole.choices[0].text == "This answer is"
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == 3
    stream = await client.completions.create(model="m2", prompt="a", max_tokens=3, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "This answer is"
    assert chunks[-1].choices[0].finish_reason == "length"


async def test_responses_answer_whole_and_as_typed_events(
    backend: SimulatedBackend, client: AsyncOpenAI
) -> None:
    backend.script = Script(tokens=4)
    whole = await client.responses.create(model="m1", input="hello")
    assert whole.output_text == TEXT
    assert whole.status == "completed"
    events = [e async for e in await client.responses.create(model="m1", input="x", stream=True)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == TEXT
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == TEXT


async def test_the_clients_stream_helper_accepts_the_responses_events(client: AsyncOpenAI) -> None:
    async with client.responses.stream(model="m1", input="hello") as stream:
        final = await stream.get_final_response()
    assert final.output_text.startswith(TEXT)


async def test_embeddings_depend_on_the_input_alone_and_are_unit_vectors(
    client: AsyncOpenAI,
) -> None:
    answer = await client.embeddings.create(model="m2", input=["a", "b", "a"], dimensions=16)
    vectors = [item.embedding for item in answer.data]
    assert vectors[0] == vectors[2] != vectors[1]
    assert len(vectors[0]) == 16
    assert sum(value * value for value in vectors[0]) == pytest.approx(1)


async def test_embeddings_come_as_base64_or_floats_as_asked(backend: SimulatedBackend) -> None:
    body = {"model": "m2", "input": "a"}
    async with httpx.AsyncClient(base_url=backend.url) as http:
        plain = (await http.post("/v1/embeddings", json=body)).json()
        body["encoding_format"] = "base64"
        coded = (await http.post("/v1/embeddings", json=body)).json()
    raw = base64.b64decode(coded["data"][0]["embedding"])
    assert list(struct.unpack("<8f", raw)) == pytest.approx(plain["data"][0]["embedding"])


async def test_the_models_are_listed_as_simulated(client: AsyncOpenAI) -> None:
    listed = [model async for model in client.models.list()]
    assert [model.id for model in listed] == ["m1", "m2"]
    assert {model.owned_by for model in listed} == {"simulated"}
    assert (await client.models.retrieve("m2")).id == "m2"


async def test_an_unknown_model_is_not_found_and_the_error_names_those_there_are(
    client: AsyncOpenAI,
) -> None:
    with pytest.raises(NotFoundError, match="this backend has m1, m2") as caught:
        await client.chat.completions.create(model="m9", messages=ASK)
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"model": 7}', b""])
async def test_a_body_that_is_no_request_is_refused(backend: SimulatedBackend, body: bytes) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{backend.url}/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert "string member model" in answer.json()["error"]["message"]
