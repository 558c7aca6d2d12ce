"""A page over real parts, with a client that speaks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from nexus_devtools.page_stand import Stand


@pytest.fixture
def stand() -> Iterator[Stand]:
    """Three backends with an hour of figures."""
    stand = Stand()
    stand.fleet(3)
    yield stand


@pytest_asyncio.fixture
async def client(stand: Stand) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to the page of `stand`."""
    await stand.start()
    url = f"http://127.0.0.1:{stand.port}"
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as client:
        yield client
    await stand.stop()
