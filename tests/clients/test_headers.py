"""The X-Nexus-* headers, with real clients: what they are told, and what backends never hear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest

from nexus_devtools.realworld.place import CLIENTS_KEY, Place, quality, routing

SAY: Any = [{"role": "user", "content": "Hello"}]
OFF = {"enabled": False}


def test_an_answer_says_where_it_came_from(place: Place, client: openai.OpenAI) -> None:
    local = client.chat.completions.with_raw_response.create(
        model="gemma3-270m", messages=SAY, max_tokens=2
    )
    cloud = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=SAY)
    names = [f"x-nexus-{name}" for name in ("backend", "backend-type", "privacy-zone")]
    assert [local.headers[name] for name in names] == ["llamacpp", "local", "restricted"]
    assert [cloud.headers[name] for name in names] == ["llmock", "cloud", "open"]
    for raw in (local, cloud):
        assert raw.headers["x-nexus-route-reason"] == "capability-match"
        assert "x-nexus-retries" not in raw.headers
        assert "x-nexus-fallback-model" not in raw.headers


def test_what_a_client_asks_of_the_proxy_does_not_reach_the_backend(
    place: Place, client: openai.OpenAI
) -> None:
    asked = {"X-Nexus-Priority": "high", "X-Nexus-Flexible": "true", "X-Request-Id": "mine-1"}
    with place.watched() as pairs:
        client.chat.completions.create(model="fakellm-1", messages=SAY, extra_headers=asked)
    seen = dict(pairs[0].backend.headers)
    assert not [name for name in seen if name.startswith("x-nexus-")]
    assert seen["x-request-id"] == "mine-1"
    assert seen["user-agent"].startswith("OpenAI/Python")


def test_an_alias_and_a_fallback_change_the_models_name_and_not_one_byte_more(
    urls: dict[str, str], small_place: Callable[..., Place]
) -> None:
    place = small_place(
        {"a": urls["aimock"], "gone": urls["aimock"]},
        quality(),
        routing(
            aliases=[{"name": "fast", "model": "aimock-1"}],
            fallbacks=[{"model": "lost", "to": ["aimock-1"]}],
        ),
        models=("aimock-1", "fast"),
        specs={
            "a": {"models": [{"name": "aimock-1"}], "healthCheck": OFF},
            "gone": {"models": [{"name": "lost"}], "healthCheck": OFF, "suspend": True},
        },
    )
    mark = place.mark()
    with openai.OpenAI(base_url=place.url, api_key=CLIENTS_KEY, max_retries=0) as client:
        client.chat.completions.create(model="fast", messages=SAY)
        raw = client.chat.completions.with_raw_response.create(model="lost", messages=SAY)
    assert raw.headers["x-nexus-fallback-model"] == "aimock-1"
    said = place.since(mark)
    for asked, sent, name in zip(said[""], said["a"], (b"fast", b"lost"), strict=True):
        assert sent.body == asked.body.replace(b'"model":"%b"' % name, b'"model":"aimock-1"')
        assert sent.body != asked.body
        assert sent.answer == asked.answer


@pytest.mark.parametrize("strict", [True, False])
def test_a_tier_is_held_to_unless_the_client_is_flexible(
    urls: dict[str, str], small_place: Callable[..., Place], strict: bool
) -> None:
    spec = {"models": [{"name": "aimock-1"}], "healthCheck": OFF, "capabilityTier": 1}
    place = small_place(
        {"a": urls["aimock"]},
        quality(),
        routing(trafficPolicies=[{"modelPattern": "*", "minTier": 3}]),
        models=("aimock-1",),
        specs={"a": spec},
    )
    headers = {"X-Nexus-Strict" if strict else "X-Nexus-Flexible": "true"}
    with openai.OpenAI(base_url=place.url, api_key=CLIENTS_KEY, max_retries=0) as client:
        ask: Any = client.chat.completions.create
        if strict:
            with pytest.raises(openai.InternalServerError, match="No backend can serve"):
                ask(model="aimock-1", messages=SAY, extra_headers=headers)
        else:
            assert ask(model="aimock-1", messages=SAY, extra_headers=headers).choices


def test_what_an_answer_cost_is_told_from_the_counts_of_the_backend(
    urls: dict[str, str], small_place: Callable[..., Place]
) -> None:
    price = {"inputUSDPerMillionTokens": "3", "outputUSDPerMillionTokens": "15"}
    spec = {"models": [{"name": "gpt-4o"}], "healthCheck": OFF, "pricing": price}
    place = small_place({"a": urls["llmock"]}, quality(), models=("gpt-4o",), specs={"a": spec})
    with openai.OpenAI(base_url=place.url, api_key=CLIENTS_KEY, max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=SAY)
    usage = raw.parse().usage
    assert usage is not None
    nano_usd = 3_000 * usage.prompt_tokens + 15_000 * usage.completion_tokens
    assert round(float(raw.headers["x-nexus-cost-estimated"]) * 1e9) == nano_usd > 0
