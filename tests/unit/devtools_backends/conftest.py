"""A simulated backend in process, and the official client on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI

from nexus_devtools.backends import SimulatedBackend


@pytest.fixture
async def backend() -> AsyncIterator[SimulatedBackend]:
    async with SimulatedBackend(name="sim-a", models=["m1", "m2"]) as running:
        yield running


@pytest.fixture
async def client(backend: SimulatedBackend) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=f"{backend.url}/v1", api_key="unused", max_retries=0, timeout=5
    ) as openai:
        yield openai
