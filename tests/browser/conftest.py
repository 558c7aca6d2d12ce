"""A real Chromium with one page, and a fleet for it to look at."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from nexus_devtools.browser import Chromium, Tab, browsing, ready_chromium
from nexus_devtools.page_stand import Stand


@pytest.fixture(scope="session")
def chromium() -> Chromium:
    """The pinned browser, fetched when it is first asked for."""
    return ready_chromium()


@pytest_asyncio.fixture
async def tab(chromium: Chromium) -> AsyncIterator[Tab]:
    """An empty page of a browser of its own."""
    async with browsing(chromium) as tab:
        yield tab


@pytest_asyncio.fixture
async def empty() -> AsyncIterator[Stand]:
    """One without a backend, to be started; it is stopped."""
    stand = Stand()
    yield stand
    await stand.stop()


@pytest_asyncio.fixture
async def stand(empty: Stand) -> Stand:
    """Twelve backends and three policies, served."""
    empty.fleet(12)
    empty.policies()
    await empty.start()
    return empty
