"""An application with the real OpenAI client, through its injected sidecar, to the real model."""

from __future__ import annotations

import json
from typing import Any

from nexus_devtools.backends.weights import MODEL_NAME
from nexus_devtools.node import pods

APPLICATION = f"""
import json, openai
client = openai.OpenAI(max_retries=0)
question = [{{"role": "user", "content": "What is the capital of France?"}}]
raw = client.chat.completions.with_raw_response.create(model="{MODEL_NAME}", messages=question)
whole = raw.parse().choices[0].message.content
stream = client.chat.completions.create(model="{MODEL_NAME}", messages=question, stream=True)
parts = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
print(json.dumps({{
    "models": [model.id for model in client.models.list()],
    "backend": raw.headers["x-nexus-backend"],
    "whole": whole,
    "streamed": "".join(parts),
}}))
"""


def asked(shop: Any) -> dict[str, Any]:
    output = shop.run("exec", "app", "-c", "main", "--", pods.PYTHON, "-c", APPLICATION)
    found: dict[str, Any] = json.loads(output)
    return found


def test_the_openai_client_is_answered_by_the_real_model_and_by_another_when_it_is_gone(
    shop: Any,
) -> None:
    often = {"periodSeconds": 1}
    gemma = pods.backend("gemma", namespace=shop.namespace, healthCheck=often)
    shop.apply(pods.policy(), *pods.model("gemma"), gemma)
    shop.ready("gemma")
    shop.until("its model is known", lambda: shop.models("gemma") == [MODEL_NAME])
    shop.app()
    answer = asked(shop)
    assert answer["models"] == [MODEL_NAME]
    assert answer["backend"] == "gemma"
    assert "Paris" in answer["whole"] and "Paris" in answer["streamed"]

    names = [{"name": MODEL_NAME}]
    shop.apply(*pods.simulated("sim-b", models=[MODEL_NAME]), shop.backend("sim-b", models=names))
    shop.ready("sim-b")
    shop.run("delete", "pod", "gemma", "--grace-period=0", "--force")

    def by_the_other() -> bool:
        found = asked(shop)
        assert found["streamed"], "every stream came to its end"
        return bool(found["backend"] == "sim-b")

    shop.until("the other one answers", by_the_other)
    shop.whole(["gemma", "sim-b"])
