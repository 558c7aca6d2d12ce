"""LangChain's ChatOpenAI and OpenAIEmbeddings through the real proxy."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from nexus_devtools.realworld.lab import Lab
from nexus_devtools.realworld.place import CLIENTS_KEY, Place

SCRIPT = Path(__file__).with_name("langchain_client.py")


def test_an_application_on_langchain_works_as_it_is(lab: Lab, place: Place) -> None:
    command = [str(lab.python), str(SCRIPT), place.url, CLIENTS_KEY]
    with place.watched() as pairs:
        done = subprocess.run(
            command, env=lab.environment(), capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    for model in ("gemma3-270m", "gpt-4o", "fakellm-1", "aimock-1"):
        said = results[model]
        assert said["whole"] and said["async"] and said["streamed"]
        assert said["chunks"] > 2
    assert results["tools"] and results["tools"][0].startswith("21 °C in ")
    assert results["parsed"] == "Invoice"
    assert results["responses"]
    assert len(set(results["embedded"])) == 1 and results["embedded"][0] > 100
    assert {pair.served_by for pair in pairs} == {"llamacpp", "llmock", "fakellm", "aimock"}
