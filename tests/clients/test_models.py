"""GET /v1/models as clients read it: who owns a model, what it can do, and only what can serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest

from nexus_devtools.e2e import eventually
from nexus_devtools.product import free_address
from nexus_devtools.realworld.place import CLIENTS_KEY, Place, manifest, quality, routing

OFF = {"enabled": False}


def test_every_model_of_every_server_is_listed_with_its_owner(
    place: Place, client: openai.OpenAI
) -> None:
    listed = {model.id: model for model in client.models.list()}
    owners = {"gemma3-270m": "llamacpp", "gpt-4o": "llmock", "fakellm-1": "fakellm"}
    for model, owner in owners.items():
        assert listed[model].owned_by == owner
        assert listed[model].object == "model"
        assert listed[model].created >= 0
    assert {"gpt-4o-mini", "text-embedding-3-large"} <= set(listed), "found by the probe"


def test_capabilities_are_told_where_they_are_known(place: Place) -> None:
    listed = place.proxy.models()
    assert listed["aimock-1"]["capabilities"] == {
        "vision": False,
        "tools": True,
        "json": True,
        "embeddings": False,
    }
    assert listed["aimock-embed"]["capabilities"]["embeddings"] is True
    assert "capabilities" not in listed["fakellm-1"], "unknown is not the same as no"


def test_only_what_can_serve_is_listed(
    urls: dict[str, str], small_place: Callable[..., Place]
) -> None:
    quick = {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 1}
    both: list[dict[str, Any]] = [{"name": "shared", "contextLength": 4096}, {"name": "own"}]
    specs: dict[str, dict[str, Any]] = {
        "well": {"models": [{"name": "shared", "contextLength": 32768}], "healthCheck": OFF},
        "off": {"models": [*both, {"name": "off-only"}], "healthCheck": OFF, "suspend": True},
        "sick": {"models": [*both, {"name": "sick-only"}], "healthCheck": quick},
    }
    place = small_place(
        {
            "well": urls["aimock"],
            "off": urls["aimock"],
            "sick": f"http://{free_address()}",
        },
        quality(),
        routing(
            aliases=[{"name": "nice", "model": "shared"}, {"name": "dead", "model": "off-only"}]
        ),
        models=("shared", "nice"),
        specs=specs,
    )
    listed = eventually(
        place.proxy.models, lambda found: "sick-only" not in found, what="the sick one is found out"
    )
    assert set(listed) == {"shared", "nice"}
    assert listed["shared"]["owned_by"] == "well"
    assert listed["nice"]["owned_by"] == "well"
    assert listed["shared"]["context_length"] == 32768
    # Switched on again, it serves without a restart.
    backs = {name: tap.url for name, tap in place.backs.items()}
    place.proxy.write(
        *(manifest(n, backs[n], **{**specs[n], "suspend": False}) for n in ("well", "off"))
    )
    listed = eventually(
        place.proxy.models, lambda found: "off-only" in found, what="the suspended one is back"
    )
    assert listed["shared"]["owned_by"] == "off,well"
    with openai.OpenAI(base_url=place.url, api_key=CLIENTS_KEY, max_retries=0) as client:
        assert {model.id for model in client.models.list()} == {"shared", "own", "off-only"}


def test_one_model_is_retrieved_by_its_name(place: Place, client: openai.OpenAI) -> None:
    found = client.models.retrieve("gemma3-270m")
    assert (found.id, found.owned_by, found.object) == ("gemma3-270m", "llamacpp", "model")
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("no-such-model")
    assert raised.value.code == "model_not_found"


def test_a_name_with_slashes_and_colons_is_found_too(
    urls: dict[str, str], small_place: Callable[..., Place]
) -> None:
    name = "meta-llama/Llama-3.1:8b ü"
    spec = {"models": [{"name": name, "upstreamName": "aimock-1"}], "healthCheck": OFF}
    place = small_place({"a": urls["aimock"]}, quality(), models=(name,), specs={"a": spec})
    with openai.OpenAI(base_url=place.url, api_key=CLIENTS_KEY, max_retries=0) as client:
        assert client.models.retrieve(name).id == name
        say: Any = [{"role": "user", "content": "Hi"}]
        assert client.chat.completions.create(model=name, messages=say).choices
