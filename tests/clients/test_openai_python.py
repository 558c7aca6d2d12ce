"""The official Python client against four real servers through the real proxy."""

from __future__ import annotations

import json
from typing import Any

import openai
import pydantic
import pytest

from nexus_devtools.realworld.place import CLIENTS_KEY, Place

CHAT = {
    "llamacpp": "gemma3-270m",
    "llmock": "gpt-4o",
    "fakellm": "fakellm-1",
    "aimock": "aimock-1",
}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
everywhere = pytest.mark.parametrize("server", CHAT)


def say(text: str) -> Any:
    return [{"role": "user", "content": text}]


class Invoice(pydantic.BaseModel):
    number: int
    payee: str


@everywhere
def test_a_chat_is_answered_with_the_backends_own_bytes(
    place: Place, client: openai.OpenAI, server: str
) -> None:
    with place.watched() as pairs:
        raw = client.chat.completions.with_raw_response.create(
            model=CHAT[server], messages=say("What is the capital of France? Grüße 🌍")
        )
        answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.usage is not None and answer.usage.completion_tokens > 0
    assert [pair.served_by for pair in pairs] == [server]
    assert json.loads(pairs[0].backend.answer)["id"] == answer.id
    assert raw.headers["x-nexus-backend"] == server


@everywhere
def test_a_stream_arrives_event_by_event_with_the_backends_own_bytes(
    place: Place, client: openai.OpenAI, server: str
) -> None:
    with place.watched() as pairs:
        stream = client.chat.completions.create(
            model=CHAT[server], messages=say("What is the capital of France?"), stream=True
        )
        chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text and chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert len(chunks) > 2
    assert pairs[0].client.answer.rstrip().endswith(b"data: [DONE]")
    assert pairs[0].client.answer_header("transfer-encoding") == "chunked"


@everywhere
async def test_the_asynchronous_client_sees_the_same(place: Place, server: str) -> None:
    async with openai.AsyncOpenAI(base_url=place.url, api_key=CLIENTS_KEY, max_retries=0) as client:
        with place.watched() as pairs:
            whole = await client.chat.completions.create(
                model=CHAT[server], messages=say("What is the capital of Italy?")
            )
            stream = await client.chat.completions.create(
                model=CHAT[server], messages=say("What is the capital of Italy?"), stream=True
            )
            chunks = [chunk async for chunk in stream]
    assert whole.choices[0].message.content and len(chunks) > 2
    assert [pair.served_by for pair in pairs] == [server, server]


@pytest.mark.parametrize("server", ["llamacpp", "llmock", "aimock"])
def test_a_stream_with_usage_ends_with_the_counts_of_the_backend(
    place: Place, client: openai.OpenAI, server: str
) -> None:
    with place.watched():
        stream = client.chat.completions.create(
            model=CHAT[server],
            messages=say("What is the capital of France?"),
            stream=True,
            stream_options={"include_usage": True},
        )
        usages = [chunk.usage for chunk in stream if chunk.usage]
    assert usages and usages[-1].completion_tokens > 0


@pytest.mark.parametrize("server", ["llmock", "fakellm", "aimock"])
def test_a_tool_is_called_and_its_result_answered(
    place: Place, client: openai.OpenAI, server: str
) -> None:
    messages = say("How is the weather in Paris?")
    with place.watched() as pairs:
        first = client.chat.completions.create(
            model=CHAT[server], messages=messages, tools=[WEATHER]
        )
        called = first.choices[0].message
        assert called.tool_calls, "the model calls the tool"
        call = called.tool_calls[0]
        assert call.type == "function" and call.function.name == "get_weather"
        assert "city" in json.loads(call.function.arguments)
        messages += [
            called.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": "21 °C"},
        ]
        second = client.chat.completions.create(
            model=CHAT[server], messages=messages, tools=[WEATHER]
        )
    assert second.choices[0].message.content
    assert len(pairs) == 2


@pytest.mark.parametrize("server", ["llmock", "aimock"])
def test_a_streamed_tool_call_is_put_together_by_the_client(
    place: Place, client: openai.OpenAI, server: str
) -> None:
    with (
        place.watched(),
        client.chat.completions.stream(
            model=CHAT[server], messages=say("How is the weather in Paris?"), tools=[WEATHER]
        ) as stream,
    ):
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls and "city" in json.loads(calls[0].function.arguments)


@pytest.mark.parametrize("server", ["llamacpp", "llmock"])
def test_structured_output_is_parsed_into_the_callers_type(
    place: Place, client: openai.OpenAI, server: str
) -> None:
    with place.watched():
        answer = client.chat.completions.parse(
            model=CHAT[server],
            messages=say("Invoice 17 is to be paid to Ada."),
            response_format=Invoice,
            extra_body={"stop": ["###"]} if server == "llamacpp" else None,
        )
    assert isinstance(answer.choices[0].message.parsed, Invoice)


@pytest.mark.parametrize("model", ["text-embedding-3-small", "aimock-embed"])
@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_embeddings_come_as_vectors(
    place: Place, client: openai.OpenAI, model: str, encoding: Any
) -> None:
    with place.watched():
        answer = client.embeddings.create(
            model=model, input=["one", "two"], encoding_format=encoding
        )
    assert [each.index for each in answer.data] == [0, 1]
    assert len(answer.data[0].embedding) > 100
    assert answer.data[0].embedding != answer.data[1].embedding


@pytest.mark.parametrize("server", ["llamacpp", "llmock", "aimock"])
def test_the_responses_api_whole_and_streamed(
    place: Place, client: openai.OpenAI, server: str
) -> None:
    with place.watched():
        whole = client.responses.create(model=CHAT[server], input="What is the capital of France?")
        stream = client.responses.create(
            model=CHAT[server], input="What is the capital of France?", stream=True
        )
        events = [event.type for event in stream]
    assert whole.output_text and whole.status == "completed"
    assert events[0] == "response.created" and events[-1] == "response.completed"
    assert "response.output_text.delta" in events


def test_the_old_completions_too(place: Place, client: openai.OpenAI) -> None:
    with place.watched() as pairs:
        whole = client.completions.create(
            model="gemma3-270m", prompt="The capital of France is", max_tokens=4
        )
        stream = client.completions.create(
            model="gemma3-270m", prompt="The capital of France is", max_tokens=4, stream=True
        )
        text = "".join(chunk.choices[0].text for chunk in stream)
    assert whole.choices[0].text == text != ""
    assert {pair.served_by for pair in pairs} == {"llamacpp"}


def test_a_prompt_of_a_megabyte_arrives_as_it_was_sent(place: Place, client: openai.OpenAI) -> None:
    prompt = "".join(f"Zeile {n}: “quoted” \\ and 🌍\n" for n in range(30_000))
    with place.watched() as pairs:
        answer = client.chat.completions.create(model="fakellm-1", messages=say(prompt))
    assert answer.choices[0].message.content
    assert len(pairs[0].backend.body) > 1_000_000


def test_many_at_once_do_not_get_each_others_answers(place: Place, client: openai.OpenAI) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def ask(number: int) -> tuple[str, str]:
        said = client.chat.completions.create(
            model="fakellm-1", messages=say(f"question {number}"), stream=False
        )
        return said.id, said.choices[0].message.content or ""

    mark = place.mark()
    with ThreadPoolExecutor(16) as pool:
        seen = list(pool.map(ask, range(64)))
    said = place.since(mark)
    by_body = {each.body: each.answer for each in said["fakellm"]}
    assert len(said[""]) == len(by_body) == 64
    for each in said[""]:
        assert each.answer == by_body[each.body]
    assert len({identity for identity, _ in seen}) == 64
