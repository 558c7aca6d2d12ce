"""What `analyze` reads from a body, and what it refuses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nexus_proxy.routing.request import (
    EMBEDDINGS,
    JSON,
    TOOLS,
    VISION,
    BadRequest,
    Endpoint,
    analyze,
    prompt_tokens,
    text_bytes,
)

LONG = "word " * 5000
IMAGE = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:,"}}]


def body(**fields: Any) -> bytes:
    return msgspec.json.encode({"model": "m", **fields})


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


CHAT_NEEDS: list[tuple[dict[str, Any], int]] = [
    ({"messages": user("hi")}, 0),
    ({"messages": user(IMAGE)}, VISION),
    ({"messages": user('a text that says "image_url"')}, 0),
    ({"messages": user(LONG)}, 0),
    ({"messages": [*user(LONG), *user(IMAGE)]}, VISION),
    ({"messages": user([{"type": "text", "text": "no image"}])}, 0),
    ({"tools": [{"type": "function"}]}, TOOLS),
    ({"tools": []}, 0),
    ({"tools": None}, 0),
    ({"response_format": {"type": "json_object"}}, JSON),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, JSON),
    ({"response_format": {"type": "text"}}, 0),
    ({"messages": user(IMAGE), "tools": [1], "response_format": {"type": "json_object"}}, 7),
    ({"messages": {"not": "a list", "image_url": 1}}, 0),
    ({"messages": [1, 2, "image_url"]}, 0),
]


@pytest.mark.parametrize(("fields", "needs"), CHAT_NEEDS)
def test_a_chat_request_needs_what_its_fields_say(fields: dict[str, Any], needs: int) -> None:
    assert analyze(Endpoint.CHAT, body(**fields)).needs == needs


def test_an_empty_tools_list_with_white_space_needs_no_tools() -> None:
    assert analyze(Endpoint.CHAT, b'{"model": "m", "tools": [ \n ]}').needs == 0


def test_embeddings_need_the_embeddings_capability() -> None:
    assert analyze(Endpoint.EMBEDDINGS, body(input="text")).needs == EMBEDDINGS


def test_a_response_with_an_image_and_a_schema_needs_vision_and_json() -> None:
    parts = [{"type": "input_image", "image_url": "data:,"}]
    fields = {"input": user(parts), "text": {"format": {"type": "json_schema"}}}
    assert analyze(Endpoint.RESPONSES, body(**fields)).needs == VISION | JSON


@pytest.mark.parametrize(("value", "stream"), [(True, True), (False, False), (None, False)])
def test_only_true_asks_for_a_stream(value: bool | None, stream: bool) -> None:
    assert analyze(Endpoint.CHAT, body(stream=value)).stream is stream


def test_the_body_is_kept_byte_for_byte() -> None:
    raw = b'{ "stream":true ,"model":"m" }'
    assert analyze(Endpoint.CHAT, raw).body is raw


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b'"text"', b'{"model":"m"', b"\xff"])
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest, match="must be a JSON object") as refused:
        analyze(Endpoint.CHAT, raw)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("model", [None, "", 3, ["m"]])
def test_a_request_without_a_model_name_is_refused_and_names_the_field(model: Any) -> None:
    with pytest.raises(BadRequest) as refused:
        analyze(Endpoint.CHAT, msgspec.json.encode({"model": model}))
    assert refused.value.param == "model"


TOKENS: list[tuple[dict[str, Any], int]] = [
    ({"messages": user("a" * 400)}, 100),
    ({"messages": user([{"type": "text", "text": "a" * 400}])}, 100),
    ({"messages": user("ä" * 200)}, 100),
    ({"messages": user("a" * 400), "max_tokens": 50}, 150),
    ({"messages": user("a" * 400), "max_completion_tokens": 70, "max_tokens": 50}, 170),
    ({"prompt": ["a" * 40, "a" * 40]}, 20),
    ({"input": "a" * 40, "max_output_tokens": 5}, 15),
    ({"max_tokens": "many"}, 0),
]


@pytest.mark.parametrize(("fields", "tokens"), TOKENS)
def test_tokens_are_a_quarter_of_the_text_plus_the_output_asked_for(
    fields: dict[str, Any], tokens: int
) -> None:
    assert analyze(Endpoint.CHAT, body(**fields)).estimated_tokens() == tokens


def test_text_of_unknown_shape_counts_nothing() -> None:
    assert text_bytes({"content": 5, "other": "text"}) == 0


NOT_LOOKED_AT = (
    b'{"model":"m","x":"\xff"}',
    b'{"model":"m","messages":[{"content":"\xff\xfe"}]}',
)


@pytest.mark.parametrize("body", NOT_LOOKED_AT)
def test_what_nobody_looked_at_cannot_break_an_estimate(body: bytes) -> None:
    call = analyze(Endpoint.COMPLETIONS, body)
    assert call.estimated_tokens() == prompt_tokens(body)
    assert 0 < prompt_tokens(body) < len(body)


@pytest.mark.parametrize("field", [b"messages", b"x", b"tools", b"response_format"])
def test_a_body_nested_too_deeply_is_a_bad_request(field: bytes) -> None:
    body = b'{"model":"m","' + field + b'":' + b"[" * 5000 + b"]" * 5000 + b"}"
    with pytest.raises(BadRequest, match="JSON object"):
        analyze(Endpoint.CHAT, body)
