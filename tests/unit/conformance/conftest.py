"""The cases run on the product's event loop; nginx is their oracle where it is installed.

Without nginx its runs are deselected and the summary says so: nothing is counted as passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from nexus_devtools.conformance.oracle import find_nginx

ORACLE_TEST = "test_nginx_does_as_recorded"
NOT_ASKED = pytest.StashKey[int]()


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of the product."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if find_nginx() is not None:
        return
    away = [item for item in items if item.name.startswith(ORACLE_TEST)]
    items[:] = [item for item in items if item not in away]
    config.hook.pytest_deselected(items=away)
    config.stash[NOT_ASKED] = len(away)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    away = terminalreporter.config.stash.get(NOT_ASKED, 0)
    if away:
        terminalreporter.write_line(
            f"conformance: nginx was NOT asked in {away} cases, it is not installed "
            "(apt install nginx-light); they ran against this proxy alone"
        )
