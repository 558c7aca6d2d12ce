"""Errors as the official client sees them: its classes, our words, and its patience."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from nexus_devtools.product import free_address
from nexus_devtools.realworld import servers
from nexus_devtools.realworld.lab import Lab
from nexus_devtools.realworld.place import CLIENTS_KEY, Place, quality, routing

SAY: Any = [{"role": "user", "content": "Say something of some length, please."}]
IMAGE: Any = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        ],
    }
]


def patient(place: Place, retries: int = 0) -> openai.OpenAI:
    """The client with some retries of its own."""
    return openai.OpenAI(base_url=place.url, api_key=CLIENTS_KEY, max_retries=retries)


class Chaos:
    """An llmock of a test's own, which can be told to fail."""

    def __init__(self, server: servers.Server) -> None:
        self.url = server.url

    def script(self, **behavior: Any) -> None:
        """Queue a behaviour of llmock's."""
        httpx.post(
            f"{self.url}/_llmock/scenario", json={"behaviors": [behavior]}, trust_env=False
        ).raise_for_status()


@pytest.fixture(scope="module")
def chaos(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    server = servers.start("llmock", lab, tmp_path_factory.mktemp("chaos"))
    yield Chaos(server)
    server.child.stop()


@pytest.fixture
def alone(chaos: Chaos, small_place: Callable[..., Place]) -> Callable[..., Place]:
    """A place with that llmock as its one backend, unprobed."""

    def make(*documents: Any) -> Place:
        spec = {"models": [{"name": "gpt-4o"}], "healthCheck": {"enabled": False}}
        return small_place(
            {"llmock": chaos.url}, *documents, models=("gpt-4o",), specs={"llmock": spec}
        )

    return make


def test_an_unknown_model_is_a_not_found_error_that_names_the_known(
    client: openai.OpenAI,
) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="no-such-model", messages=SAY)
    assert raised.value.code == "model_not_found"
    assert raised.value.param == "model"
    assert "Model 'no-such-model' not found" in raised.value.message
    assert "gemma3-270m" in raised.value.message


def test_a_missing_capability_is_a_bad_request_that_says_which(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="aimock-1", messages=IMAGE)
    assert raised.value.code == "missing_capability"
    assert "vision" in raised.value.message
    with pytest.raises(openai.BadRequestError, match="embeddings"):
        client.embeddings.create(model="aimock-1", input="one")


def test_what_a_backend_says_of_a_bad_request_is_raised_as_it_said_it(
    place: Place, client: openai.OpenAI
) -> None:
    say: Any = [{"role": "user", "content": "sorry"}]
    with place.watched(), pytest.raises(openai.UnprocessableEntityError) as raised:
        client.chat.completions.create(model="aimock-1", messages=say)
    assert "that was rejected" in raised.value.message


def test_a_backend_that_is_not_there_is_a_503_with_every_reason(
    small_place: Callable[..., Place],
) -> None:
    spec = {"models": [{"name": "m"}], "healthCheck": {"enabled": False}}
    place = small_place(
        {"gone": f"http://{free_address()}"}, quality(), models=("m",), specs={"gone": spec}
    )
    with patient(place) as client, pytest.raises(openai.InternalServerError) as raised:
        client.chat.completions.create(model="m", messages=SAY)
    assert raised.value.status_code == 503
    assert raised.value.code == "no_available_backend"
    body: Any = raised.value.body
    (reason,) = {str(each) for each in body["context"]["rejection_reasons"]}
    assert "gone" in reason and "suggested_action" in reason


def test_a_backends_429_and_our_503_both_carry_the_time_to_wait(
    alone: Callable[..., Place], chaos: Chaos
) -> None:
    place = alone(quality(), routing(queue={"enabled": False}))
    chaos.script(type="fail", status=429, retry_after=2)
    with patient(place) as client:
        with pytest.raises(openai.RateLimitError) as throttled:
            client.chat.completions.create(model="gpt-4o", messages=SAY)
        with pytest.raises(openai.InternalServerError) as resting:
            client.chat.completions.create(model="gpt-4o", messages=SAY)
    assert throttled.value.response.headers["x-nexus-backend"] == "llmock"
    assert float(throttled.value.response.headers["retry-after"]) == 2
    assert resting.value.status_code == 503
    assert "Resting" in str(resting.value.body)
    assert 1 <= int(resting.value.response.headers["retry-after"]) <= 3


def test_the_clients_own_retry_waits_as_long_as_it_was_told(
    alone: Callable[..., Place], chaos: Chaos
) -> None:
    place = alone(quality(), routing(queue={"enabled": False}))
    chaos.script(type="fail", status=429, retry_after=1)
    with patient(place, retries=3) as client:
        answer = client.chat.completions.create(model="gpt-4o", messages=SAY)
    assert answer.choices[0].message.content
    said = place.since(dict.fromkeys(("", "llmock"), 0))
    times = [each.began for each in said[""]]
    assert said[""][0].status == 429 and said[""][-1].status == 200
    assert times[1] - times[0] >= 1.0
    # It never went to the backend before the time it had asked for.
    asked, again = (each.began for each in said["llmock"])
    assert again - asked >= 1.0


def test_with_the_queue_a_client_without_patience_waits_and_is_served(
    alone: Callable[..., Place], chaos: Chaos
) -> None:
    place = alone(quality(), routing(queue={"maxWaitSeconds": 10}))
    chaos.script(type="fail", status=429, retry_after=1)
    began = time.monotonic()
    with patient(place) as client:
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=SAY)
    assert raw.parse().choices[0].message.content
    assert raw.headers["x-nexus-retries"] == "1"
    assert time.monotonic() - began >= 1.0


def test_a_failure_is_retried_elsewhere_before_the_client_sees_it(
    urls: dict[str, str], chaos: Chaos, small_place: Callable[..., Place]
) -> None:
    spec = {"models": [{"name": "gpt-4o"}], "healthCheck": {"enabled": False}}
    place = small_place(
        {"bad": chaos.url, "good": urls["llmock"]},
        quality(),
        models=("gpt-4o",),
        specs={"bad": {**spec, "priority": 1}, "good": {**spec, "priority": 90}},
    )
    chaos.script(type="fail", status=500)
    with patient(place) as client:
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=SAY)
    assert raw.headers["x-nexus-backend"] == "good"
    assert raw.headers["x-nexus-retries"] == "1"
    said = place.since(dict.fromkeys(("", "bad", "good"), 0))
    assert said["bad"][0].body == said["good"][0].body == said[""][0].body


@pytest.mark.parametrize("kind", ["disconnect", "truncate"])
def test_a_stream_that_breaks_is_raised_and_not_taken_for_an_answer(
    alone: Callable[..., Place], chaos: Chaos, kind: str
) -> None:
    place = alone(quality())
    chaos.script(type="stream_fault", kind=kind, after_chunks=3)
    received = []
    with patient(place) as client:
        stream = client.chat.completions.create(model="gpt-4o", messages=SAY, stream=True)
        with pytest.raises(openai.APIError) as raised:
            received += list(stream)
    assert "backend llmock broke the stream" in raised.value.message
    assert raised.value.code == "stream_interrupted"
    said = place.since(dict.fromkeys(("", "llmock"), 0))
    assert said[""][0].complete
    assert said[""][0].answer.startswith(said["llmock"][0].answer)
    assert b"[DONE]" not in said[""][0].answer


def test_llmocks_own_judge_finds_nothing_wrong_with_the_proxy(
    alone: Callable[..., Place], chaos: Chaos, tmp_path: Path
) -> None:
    httpx.post(f"{chaos.url}/_llmock/reset", trust_env=False).raise_for_status()
    place = alone(quality(), routing(queue={"maxWaitSeconds": 10}))
    with patient(place, retries=2) as client:
        chaos.script(type="fail", status=429, retry_after=1)
        client.chat.completions.create(model="gpt-4o", messages=SAY)
        chaos.script(type="fail", status=400)
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="gpt-4o", messages=SAY)
    verdict = httpx.get(f"{chaos.url}/_llmock/verdict", trust_env=False).json()
    assert [each for each in verdict["findings"] if each["severity"] == "error"] == []
