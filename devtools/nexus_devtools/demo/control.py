"""Asks the simulated backends and the proxies about themselves, without stopping the event loop.

Promises: one request each, over loopback. It is NOT how the product works: a backend's control port
and ``/v1/explain`` are for people who watch.
"""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import msgspec

from nexus_devtools.backends import Script, Seen, SimulatedProcess
from nexus_devtools.backends.script import script_to_json


class BackendControl:
    """The control ports of the simulated backends."""

    def __init__(self, http: httpx.AsyncClient, backends: Mapping[str, SimulatedProcess]) -> None:
        self._http = http
        self._urls = {name: backend.control_url for name, backend in backends.items()}

    async def set(self, name: str, script: Script) -> None:
        """Have the backend behave like this from now on."""
        answer = await self._http.post(
            f"{self._urls[name]}/_script", content=script_to_json(script)
        )
        answer.raise_for_status()

    async def seen(self, name: str) -> Seen:
        """What the backend counted."""
        answer = await self._http.get(f"{self._urls[name]}/_seen")
        return msgspec.json.decode(answer.raise_for_status().content, type=Seen)


async def scores(http: httpx.AsyncClient, admin_url: str, model: str) -> dict[str, int]:
    """The score of each candidate that a proxy would consider for the model now."""
    body = {"model": model, "messages": [{"role": "user", "content": "?"}]}
    answer = await http.post(f"{admin_url}/v1/explain", json=body)
    if answer.status_code != httpx.codes.OK:
        return {}
    legs = answer.json().get("legs") or [{}]
    candidates = legs[0].get("candidates") or ()
    return {entry["backend"]: entry["score"] for entry in candidates if "score" in entry}
