"""The stage of these tests: a gateway on the product's event loop, between scripted raw peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from nexus_devtools.rawhttp.stage import Stage


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of the product."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A started gateway without backends; the invariant of attempts is checked at the end."""
    stage = Stage()
    await stage.start()
    yield stage
    await stage.stop()
    stage.check_attempts()
