"""The watch of LLMBackends on tables as an API server makes them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from nexus_devtools.demo.watch import BackendWatch, Row

COLUMNS = [
    {"name": "Name", "priority": 0},
    {"name": "State", "priority": 0},
    {"name": "URL", "priority": 1},
    {"name": "TTFT(ms)", "priority": 0},
]


def entry(name: str, state: str | None, ttft: int | None) -> dict[str, Any]:
    status = {"state": state, "models": [{"name": "m"}]} if state else {}
    return {
        "cells": [name, state, "http://x", ttft],
        "object": {"metadata": {"name": name}, "status": status},
    }


def listed(*rows: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "Table",
        "metadata": {"resourceVersion": "7"},
        "columnDefinitions": COLUMNS,
        "rows": list(rows),
    }


def event(kind: str, *rows: dict[str, Any]) -> str:
    return json.dumps({"type": kind, "object": {"kind": "Table", "rows": list(rows)}}) + "\n"


async def test_it_lists_watches_and_lists_again_when_the_watch_ends() -> None:
    lists = [
        listed(entry("a", None, None)),
        listed(entry("a", "Probation", 4)),
    ]
    watched: list[str] = []
    seen: list[Row] = []
    done = asyncio.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        assert "as=Table" in request.headers["accept"]
        if "watch" in request.url.params:
            watched.append(request.url.params["resourceVersion"])
            lines = event("MODIFIED", entry("a", "Active", 3)) + event("BOOKMARK")
            gone = '{"type": "ERROR", "object": {"kind": "Status", "code": 410}}\n'
            return httpx.Response(200, text=lines + gone)
        if not lists:
            done.set()
            return httpx.Response(503)
        return httpx.Response(200, json=lists.pop(0))

    async with httpx.AsyncClient(
        transport=httpx.MockTransport(answer), base_url="https://api"
    ) as client:
        watch = BackendWatch(client, "demo", on_row=seen.append)
        running = asyncio.create_task(watch.run())
        async with asyncio.timeout(5):
            await done.wait()
        running.cancel()
        await asyncio.wait([running])
    assert [row.state for row in seen] == [None, "Active", "Probation", "Active"]
    assert watched == ["7", "7"]
    assert watch.columns == ("NAME", "STATE", "TTFT(MS)")
    assert watch.rows["a"] == Row("a", ("a", "Active", "3"), "Active", ("m",))
    assert seen[0].cells == ("a", "", "")
    assert seen[0].models == ()
