"""Watches LLMBackends the way ``kubectl get llmbackends -w`` does: tables made by the API server.

Promises: rows carry the server's own columns and the object; it lists again when a watch ends. It
is NOT part of the product, and has its own credentials that can do nothing but look.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx

_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@dataclass(frozen=True, slots=True)
class Row:
    """One LLMBackend: printed cells, state, and the names of the models it is known to have."""

    name: str
    cells: tuple[str, ...]
    state: str | None
    models: tuple[str, ...]


class BackendWatch:
    """Keeps ``columns`` and ``rows`` up to date while ``run`` runs."""

    def __init__(
        self, client: httpx.AsyncClient, namespace: str, *, on_row: Callable[[Row], None]
    ) -> None:
        self.columns: tuple[str, ...] = ()
        self.rows: dict[str, Row] = {}
        self._client = client
        self._path = f"/apis/nexus.dev/v1alpha1/namespaces/{namespace}/llmbackends"
        self._on_row = on_row

    async def run(self) -> None:
        """List and watch, for ever."""
        while True:
            try:
                version = await self.refresh()
                async for table in self._events(version):
                    self._take(table)
            except httpx.HTTPError:
                await asyncio.sleep(0.5)

    async def refresh(self) -> str:
        """Read everything now (ages are of the time of reading); returns the resource version."""
        answer = await self._client.get(
            self._path, params={"includeObject": "Object"}, headers={"Accept": _TABLE}
        )
        table = answer.raise_for_status().json()
        self._take(table)
        return str(table["metadata"]["resourceVersion"])

    async def _events(self, version: str) -> AsyncIterator[dict[str, Any]]:
        query = {"includeObject": "Object", "watch": "1", "resourceVersion": version}
        async with self._client.stream(
            "GET", self._path, params=query, headers={"Accept": _TABLE}, timeout=None
        ) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                if event["type"] in ("ADDED", "MODIFIED"):
                    yield event["object"]

    def _take(self, table: dict[str, Any]) -> None:
        definitions = table.get("columnDefinitions")
        if definitions:
            self._shown = [i for i, column in enumerate(definitions) if not column["priority"]]
            self.columns = tuple(definitions[i]["name"].upper() for i in self._shown)
        for entry in table.get("rows") or ():
            row = _row(entry, self._shown)
            self.rows[row.name] = row
            self._on_row(row)


def _row(entry: dict[str, Any], shown: list[int]) -> Row:
    status = entry["object"].get("status") or {}
    cells = entry["cells"]
    return Row(
        name=str(entry["object"]["metadata"]["name"]),
        cells=tuple("" if cells[i] is None else str(cells[i]) for i in shown),
        state=status.get("state"),
        models=tuple(str(model.get("name")) for model in status.get("models") or ()),
    )
