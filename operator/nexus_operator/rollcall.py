"""Finds objects whose deletion no watch reported.

kopf lists anew when a watch was torn for too long, and then reports what is there, never what is
missing. So after such a listing, shortly after the start, and every few minutes, the UIDs are
listed and whatever was known before the question but is not in the answer is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

import httpx

from nexus_operator.kube import ApiError, Kube
from nexus_operator.plan import Key
from nexus_operator.preflight import list_uids
from nexus_operator.registry import PLURALS, Registry

log = logging.getLogger(__name__)

FIRST_SECONDS = 5.0
PERIOD_SECONDS = 300.0
SETTLE_SECONDS = 1.0


class RollCall:
    """`gone` is told of each object that is not there any more, `heard` of each kind listed."""

    def __init__(
        self,
        *,
        kube: Kube,
        registry: Registry,
        namespaces: Sequence[str | None],
        gone: Callable[[Key], None],
        heard: Callable[[str], None] = lambda plural: None,
    ) -> None:
        self._kube = kube
        self._registry = registry
        self._namespaces = namespaces
        self._gone = gone
        self._heard = heard
        self._relisted = asyncio.Event()

    def relisted(self) -> None:
        """kopf listed: something may be missing from its list."""
        self._relisted.set()

    async def run(self) -> None:
        """Calls the roll until cancelled."""
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            self._relisted.clear()
            try:
                await self.call()
            except (ApiError, httpx.HTTPError) as error:
                log.warning("could not look for deleted objects: %s", str(error) or "no answer")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_SECONDS):
                    await self._relisted.wait()
            # A listing comes object by object: wait for its end.
            await asyncio.sleep(SETTLE_SECONDS)

    async def call(self) -> None:
        """Asks once, for all kinds."""
        for plural in PLURALS:
            known = self._registry.shelf(plural).uids()
            there = await list_uids(self._kube, plural, self._namespaces)
            self._heard(plural)
            for uid in known - there:
                self._gone(Key(plural, uid))
