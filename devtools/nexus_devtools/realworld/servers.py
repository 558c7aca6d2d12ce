"""Public servers that speak the OpenAI API, as processes on free ports of loopback.

Promises: `start` returns once the server accepts requests, on the port it chose. Their code comes
from the registries as it is. What each can do is for the tests to know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nexus_devtools.backends import Child
from nexus_devtools.realworld.lab import Lab

START_SECONDS = 60.0
_UVICORN = r"running on (http://127\.0\.0\.1:\d+)"
_FAKELLM_RULES = {
    "version": 1,
    "defaults": {"fallback": "deterministic_echo"},
    "rules": [
        {
            "name": "weather",
            "when": {"tools_include": "get_weather", "turn": 1},
            "respond": {"tool_calls": [{"name": "get_weather", "arguments": {"city": "Paris"}}]},
        },
        {
            "name": "tea",
            "when": {"messages_contain": "coffee"},
            "respond": {"status": 418, "error": "I am a teapot"},
        },
    ],
}
_AIMOCK_FIXTURES: dict[str, Any] = {
    "fixtures": [
        {
            "match": {"userMessage": "weather", "hasToolResult": False},
            "response": {
                "toolCalls": [{"name": "get_weather", "arguments": '{"city":"Paris"}'}],
            },
        },
        {
            "match": {"userMessage": "sorry"},
            "response": {
                "error": {"message": "that was rejected", "type": "invalid_request_error"},
                "status": 422,
            },
        },
        {"match": {"userMessage": ""}, "response": {"content": "Grüße aus Node.js: 🌍 ok."}},
    ]
}


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    name: str
    url: str
    child: Child


def start(name: str, lab: Lab, folder: Path) -> Server:
    """Start one of `SERVERS`; its files and its log lie in `folder`."""
    command, settings, ready = SERVERS[name](lab, folder)
    environment = lab.environment() | dict(settings)
    child = Child(command, log=folder / f"{name}.log", name=name, environment=environment)
    try:
        url = child.wait_for_line(ready, seconds=START_SECONDS)[1]
    except BaseException:
        child.stop()
        raise
    return Server(name, url, child)


Launch = tuple[list[str], Mapping[str, str], str]


def _fakellm(lab: Lab, folder: Path) -> Launch:
    rules = folder / "fakellm.json"  # JSON is YAML
    rules.write_text(json.dumps(_FAKELLM_RULES))
    command = [str(lab.python), "-m", "uvicorn", "fakellm.server:app", "--port", "0"]
    return command, {"FAKELLM_CONFIG": str(rules)}, _UVICORN


def _llmock(lab: Lab, folder: Path) -> Launch:
    command = [str(lab.python), "-m", "uvicorn", "--factory", "llmock.main:create_app"]
    return [*command, "--port", "0"], {}, _UVICORN


def _aimock(lab: Lab, folder: Path) -> Launch:
    fixtures = folder / "aimock.json"
    fixtures.write_text(json.dumps(_AIMOCK_FIXTURES))
    script = lab.package("@copilotkit/aimock") / "dist" / "cli.js"
    command = [str(lab.node), str(script), "--port", "0", "--fixtures", str(fixtures)]
    return command, {}, r"(http://127\.0\.0\.1:\d+)"


SERVERS: dict[str, Callable[[Lab, Path], Launch]] = {
    "aimock": _aimock,
    "fakellm": _fakellm,
    "llmock": _llmock,
}
"""By name: aimock (Node.js, npm), fakellm and llmock (uvicorn, PyPI)."""
