"""The official JavaScript client, on Node.js from a wheel, through the real proxy."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from nexus_devtools.e2e import eventually
from nexus_devtools.realworld.lab import Lab
from nexus_devtools.realworld.place import CLIENTS_KEY, Place

SCRIPT = Path(__file__).with_name("openai_javascript.mjs")
CHAT = {
    "llamacpp": "gemma3-270m",
    "llmock": "gpt-4o",
    "fakellm": "fakellm-1",
    "aimock": "aimock-1",
}
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(lab: Lab, place: Place, tmp_path: Path) -> Run:
    """Runs named parts of the script; their results by name."""
    script = shutil.copy(SCRIPT, tmp_path)
    # An ES module finds its packages beside itself or above.
    (tmp_path / "node_modules").symlink_to(lab.folder / "node_modules")

    def run(*names: str) -> dict[str, Any]:
        command = [str(lab.node), str(script), place.url, CLIENTS_KEY, *names]
        done = subprocess.run(
            command, env=lab.environment(), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))

    return run


def test_chats_and_streams_of_every_server(run: Run, place: Place) -> None:
    names = [f"{what}={model}" for what in ("chat", "stream") for model in CHAT.values()]
    with place.watched() as pairs:
        results = run(*names)
    for server, model in CHAT.items():
        assert results[f"chat={model}"]["text"]
        assert results[f"chat={model}"]["servedBy"] == server
        assert results[f"stream={model}"]["text"]
        assert results[f"stream={model}"]["chunks"] > 2
    assert [pair.served_by for pair in pairs] == [*CHAT, *CHAT]


def test_tools_embeddings_and_responses(run: Run, place: Place) -> None:
    names = [
        *("tool=gpt-4o", "tool=aimock-1", "embeddings=text-embedding-3-small"),
        *("embeddings=aimock-embed", "responses=gpt-4o", "responses=aimock-1"),
    ]
    with place.watched():
        results = run(*names)
    for name in names[:2]:
        assert results[name] == {"name": "get_weather", "city": "string"}
    for name in names[2:4]:
        assert len(set(results[name])) == 1 and results[name][0] > 100
    for name in names[4:]:
        assert results[name]["text"]
        ends = results[name]["first"], results[name]["last"]
        assert ends == ("response.created", "response.completed")


def test_models_and_errors_are_the_clients_own(run: Run) -> None:
    results = run("models", "unknown")
    assert {"gemma3-270m", "gpt-4o", "fakellm-1", "aimock-1"} <= set(results["models"])
    error = results["unknown"]
    assert (error["kind"], error["status"]) == ("NotFoundError", 404)
    assert error["code"] == "model_not_found"
    assert "gemma3-270m" in error["message"]


def test_who_leaves_in_the_middle_of_a_stream_leaves_nothing_behind(run: Run, place: Place) -> None:
    assert run("abandoned=gemma3-270m") == {"abandoned=gemma3-270m": {"aborted": True}}

    def open_streams() -> float:
        page = httpx.get(f"{place.proxy.admin_url}/metrics", trust_env=False).text
        (line,) = (x for x in page.splitlines() if x.startswith("nexus_proxy_active_streams "))
        return float(line.split()[1])

    eventually(open_streams, lambda found: found == 0, what="no stream left")
