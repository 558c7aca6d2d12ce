"""A body's outline has the body's structure, whatever stands in its strings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.routing.outline import LONG, outline
from nexus_proxy.routing.request import TOOLS, VISION, BadRequest, analyze

PADDING = "x" * 200_000
TEXTS = st.one_of(
    st.text(max_size=20),
    st.text(alphabet='\\"{}[],: \n', max_size=40),
    st.builds(
        lambda text, n: text * n, st.text(alphabet='\\"ab{[', min_size=1), st.integers(1, 900)
    ),
)
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(), st.none(), st.booleans()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def emptied(value: Any) -> Any:
    """The value as its outline decodes, if every string that is long as JSON is emptied."""
    if isinstance(value, str):
        return "" if len(json.dumps(value)) - 2 > LONG else value
    if isinstance(value, list):
        return [emptied(each) for each in value]
    if isinstance(value, dict):
        return {emptied(key): emptied(each) for key, each in value.items()}
    return value


@settings(max_examples=60)
@given(value=VALUES)
def test_only_the_insides_of_long_strings_are_missing(value: Any) -> None:
    body = json.dumps({"padding": PADDING * 2, "value": value}).encode()
    found = json.loads(outline(body))
    if found["padding"]:  # given up: too many quotes
        assert outline(body) is body
    else:
        assert found["value"] == emptied(value)


@settings(max_examples=60)
@given(value=VALUES)
def test_a_large_request_is_understood_as_a_small_one(value: Any) -> None:
    fields = {"messages": [{"role": "user", "content": PADDING}], "model": "m", "other": value}
    call = analyze(Endpoint.CHAT, json.dumps(fields).encode())
    assert (call.model, call.stream, call.needs) == ("m", False, 0)


def test_what_a_large_request_needs_is_found_behind_its_text() -> None:
    parts = [
        {"type": "text", "text": PADDING + '\\"image'},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PADDING}},
    ]
    fields = {"messages": [{"content": parts}], "tools": [{}], "stream": True, "model": "m"}
    call = analyze(Endpoint.CHAT, json.dumps(fields).encode())
    assert (call.model, call.stream, call.needs) == ("m", True, VISION | TOOLS)


def test_a_long_model_name_is_kept_whole() -> None:
    name = "m" * (LONG + 1)
    body = json.dumps({"prompt": PADDING, "model": name}).encode()
    assert analyze(Endpoint.COMPLETIONS, body).model == name


@pytest.mark.parametrize("tail", ['"', '\\"', '","model":"m"', '"}}', '"]'])
def test_a_large_body_that_is_no_json_is_refused(tail: str) -> None:
    body = f'{{"prompt":"{PADDING}{tail}'.encode()
    with pytest.raises(BadRequest, match="JSON object"):
        analyze(Endpoint.COMPLETIONS, body)


def test_backslashes_before_a_quote_are_counted() -> None:
    even = b'{"a":"' + b"\\" * 100_000 + b'","model":"m"}'
    odd = b'{"a":"' + b"\\" * 100_001 + b'"","model":"m"}'
    assert outline(even) == outline(odd) == b'{"a":"","model":"m"}'
