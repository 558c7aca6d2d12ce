"""Whose key reaches whom, looked for among the raw bytes that arrive at the backends."""

from __future__ import annotations

import base64
from collections.abc import Callable

import httpx
import openai
import pytest

from nexus_devtools.realworld.place import CLIENTS_KEY, Place, routing, secrets_seen

BACKENDS_KEY = "sk-of-the-backend-9876543210"
OTHER_KEY = "other-key-of-the-backend-5555"
FORMS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
"""The headers in which clients of the OpenAI, Anthropic, Azure and Google APIs send their keys."""
MODELS = ("m-none", "m-secret", "m-through", "m-header")


def _secret(name: str, value: str) -> dict[str, object]:
    data = {"key": base64.b64encode(value.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


@pytest.fixture
def keyed(urls: dict[str, str], small_place: Callable[..., Place]) -> Place:
    """One real server four times, once for each way to treat keys."""
    server = urls["aimock"]
    specs = {
        "none": {},
        "secret": {"auth": {"secretRef": {"name": "openai", "key": "key"}}},
        "through": {"auth": {"mode": "PassThrough"}},
        "header": {"type": "anthropic", "auth": {"secretRef": {"name": "claude", "key": "key"}}},
    }
    return small_place(
        dict.fromkeys(specs, server),
        _secret("openai", BACKENDS_KEY),
        _secret("claude", OTHER_KEY),
        routing(fallbacks=[{"model": "m-lost", "to": ["m-none"]}]),
        models=MODELS,
        specs={
            name: {
                **spec,
                "models": [{"name": f"m-{name}", "upstreamName": "aimock-1"}],
                "healthCheck": {"enabled": False},
            }
            for name, spec in specs.items()
        },
    )


def ask(place: Place, model: str) -> dict[str, str]:
    """Ask with the client's key in every form; what the backend saw in these forms."""
    mark = place.mark()
    with openai.OpenAI(
        base_url=place.url,
        api_key=CLIENTS_KEY,
        max_retries=0,
        default_headers=dict.fromkeys(FORMS[1:], CLIENTS_KEY),
    ) as client:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}])
    said = place.since(mark)
    assert {said[""][0].header(form) for form in FORMS} == {CLIENTS_KEY, f"Bearer {CLIENTS_KEY}"}
    (seen,) = said[model.removeprefix("m-")]
    return {form: value for form in FORMS if (value := seen.header(form)) is not None}


def test_the_clients_key_reaches_only_who_asked_for_it(keyed: Place) -> None:
    assert ask(keyed, "m-none") == {}
    assert ask(keyed, "m-secret") == {"authorization": f"Bearer {BACKENDS_KEY}"}
    assert ask(keyed, "m-header") == {"x-api-key": OTHER_KEY}
    assert ask(keyed, "m-through") == {
        "authorization": f"Bearer {CLIENTS_KEY}",
        **dict.fromkeys(FORMS[1:], CLIENTS_KEY),
    }
    everybodys = (CLIENTS_KEY, BACKENDS_KEY, OTHER_KEY)
    assert {name: secrets_seen(tap, *everybodys) for name, tap in keyed.backs.items()} == {
        "none": set(),
        "secret": {BACKENDS_KEY},
        "header": {OTHER_KEY},
        "through": {CLIENTS_KEY},
    }


def test_no_key_shows_in_what_the_proxy_says_of_itself(keyed: Place) -> None:
    for model in MODELS:
        ask(keyed, model)
    admin = keyed.proxy.admin_url
    told = [
        *(httpx.get(f"{admin}{path}", trust_env=False).text for path in ("/metrics", "/v1/stats")),
        *(
            httpx.post(
                f"{admin}/v1/explain",
                json={"model": model, "messages": []},
                headers={"authorization": f"Bearer {CLIENTS_KEY}"},
                trust_env=False,
            ).text
            for model in MODELS
        ),
        keyed.proxy.child.log.read_text(),
    ]
    for text in told:
        assert text
        assert not any(key in text for key in (CLIENTS_KEY, BACKENDS_KEY, OTHER_KEY))


def test_nobody_in_the_big_place_ever_saw_the_clients_key(
    place: Place, client: openai.OpenAI
) -> None:
    for model in ("gemma3-270m", "gpt-4o", "fakellm-1", "aimock-1"):
        client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=4
        )
    assert secrets_seen(place.front, CLIENTS_KEY) == {CLIENTS_KEY}
    for tap in place.backs.values():
        assert tap.wires and secrets_seen(tap, CLIENTS_KEY) == set()
