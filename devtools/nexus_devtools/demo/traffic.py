"""The applications: requests at a steady rate through their proxies, every result recorded.

Promises: an open loop (a slow answer delays nothing else), streaming and not; a result counts as
good only if a client could use it: status 200 and, of a stream, content and ``[DONE]``. It is NOT a
load test, and retries nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

import aiohttp

from nexus_devtools.demo import scenario
from nexus_devtools.demo.measure import Outcome

_STREAMED_OF_THREE = 2


class Traffic:
    """Requests of each app to its proxy until ``stop``; ``outcomes`` grows as they end."""

    def __init__(
        self,
        proxies: Mapping[str, str],
        *,
        model: str,
        per_second: float,
        question: str = "Hello.",
        patience_seconds: float = scenario.PATIENCE_SECONDS,
        remember: bool = True,
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._remember = remember
        self._proxies = proxies
        self._model = model
        self._question = question
        self._timeout = aiohttp.ClientTimeout(total=patience_seconds)
        self._pause = 1 / per_second
        self._going = True

    async def run(self) -> None:
        """Send until ``stop``, then wait for the answers still under way."""
        async with (
            aiohttp.ClientSession(timeout=self._timeout) as session,
            asyncio.TaskGroup() as apps,
        ):
            for app, url in self._proxies.items():
                apps.create_task(self._app(session, app, url))

    def stop(self) -> None:
        """Send nothing more."""
        self._going = False

    async def _app(self, session: aiohttp.ClientSession, app: str, url: str) -> None:
        async with asyncio.TaskGroup() as requests:
            number, due = 0, time.monotonic()
            while self._going:
                streamed = number % 3 < _STREAMED_OF_THREE
                requests.create_task(self._request(session, app, url, streamed=streamed))
                number += 1
                due += self._pause
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _request(
        self, session: aiohttp.ClientSession, app: str, url: str, *, streamed: bool
    ) -> None:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": self._question}],
            "stream": streamed,
        }
        began = time.monotonic()
        backend, retries = None, "0"
        try:
            async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                backend = answer.headers.get("X-Nexus-Backend")
                retries = answer.headers.get("X-Nexus-Retries", "0")
                detail = judge(answer.status, await answer.read(), streamed=streamed)
        except (aiohttp.ClientError, TimeoutError) as error:
            detail = f"{type(error).__name__}: {error}"
        if not self._remember:
            return
        self.outcomes.append(
            Outcome(
                began=began,
                app=app,
                backend=backend,
                ok=not detail,
                streamed=streamed,
                retries=int(retries) if retries.isdecimal() else 0,
                detail=detail,
            )
        )


def judge(status: int, body: bytes, *, streamed: bool) -> str:
    """What is wrong with an answer as its client sees it; empty if nothing is."""
    if status != 200:
        return f"status {status}: {body[:200].decode(errors='replace')}"
    return _judge_stream(body) if streamed else _judge_whole(body)


def _judge_whole(body: bytes) -> str:
    try:
        answer = json.loads(body)
    except ValueError:
        return "an answer that is not JSON"
    return "" if _text(answer, "message") else "an answer without content"


def _judge_stream(body: bytes) -> str:
    events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    if not events or events[-1] != b"[DONE]":
        return "a stream that did not reach its end"
    try:
        chunks = [json.loads(event) for event in events[:-1]]
    except ValueError:
        return "a stream with an event that is not JSON"
    if any("error" in chunk for chunk in chunks):
        return "a stream with an error event"
    return "" if any(_text(chunk, "delta") for chunk in chunks) else "a stream without content"


def _text(answer: Any, part: str) -> str:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    return "".join(str(choice.get(part, {}).get("content") or "") for choice in choices or ())
