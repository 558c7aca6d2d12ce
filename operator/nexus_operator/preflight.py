"""Before the operator works: is the API server there, does it know our kinds, may we read them?

Promises that what can heal is waited for, with one line that says what to do when the trouble
begins or changes, and once a minute after. It ends with every object listed, policies before
backends, so that nothing is ever judged by a policy not seen yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx

from nexus_api.meta import BACKEND_PLURAL, QUALITY_POLICY_PLURAL, ROUTING_POLICY_PLURAL
from nexus_operator.kube import ApiError, Kube
from nexus_operator.problems import (
    Problem,
    Unready,
    api_away,
    crds_missing,
    right_missing,
    token_rejected,
)

log = logging.getLogger(__name__)

# Policies first: a backend must not be judged by the defaults for a moment.
ORDER = (QUALITY_POLICY_PLURAL, ROUTING_POLICY_PLURAL, BACKEND_PLURAL)
WAIT_SECONDS = (0.5, 1.0, 2.0, 3.0)
REPEAT_SECONDS = 60.0


async def until(
    attempt: Callable[[], Awaitable[None]],
    *,
    trouble: Callable[[Problem | None], None],
    clock: Callable[[], float],
) -> None:
    """Returns once `attempt` raised no `Unready`. `trouble` is told of each, None when over."""
    said, said_at, tries = "", 0.0, 0
    while True:
        try:
            await attempt()
        except Unready as problem:
            trouble(problem)
            if str(problem) != said or clock() - said_at >= REPEAT_SECONDS:
                said, said_at = str(problem), clock()
                log.error("%s; trying again", problem)
            await asyncio.sleep(WAIT_SECONDS[min(tries, len(WAIT_SECONDS) - 1)])
            tries += 1
        else:
            trouble(None)
            if said:
                log.info("that is mended: going on")
            return


async def check(kube: Kube) -> None:
    """Raises `Unready` with the first thing that is missing."""
    try:
        served = await kube.served_plurals()
    except ApiError as error:
        raise explained(kube, error, verb="get", resource="/apis", namespace=None) from None
    except httpx.HTTPError as error:
        raise api_away(kube.credentials.server, error) from None
    missing = [plural for plural in ORDER if plural not in served]
    if missing:
        raise crds_missing(missing)


async def list_all(
    kube: Kube,
    namespaces: Sequence[str | None],
    *,
    see: Callable[[str, Mapping[str, Any]], None],
    gone: Callable[[str, set[str]], None],
) -> None:
    """Shows every object to `see`, then `gone` the UIDs that are there, kind by kind."""
    for plural in ORDER:
        there: set[str] = set()
        for namespace in namespaces:
            async for page in pages(kube, plural, namespace):
                for stored in page:
                    there.add(stored["metadata"]["uid"])
                    see(plural, stored)
        gone(plural, there)


async def list_uids(kube: Kube, plural: str, namespaces: Sequence[str | None]) -> set[str]:
    """The UIDs of all objects of a kind."""
    uids: set[str] = set()
    for namespace in namespaces:
        async for page in kube.pages(plural, namespace, names_only=True):
            uids |= {stored["metadata"]["uid"] for stored in page}
    return uids


async def pages(
    kube: Kube, plural: str, namespace: str | None
) -> AsyncIterator[list[dict[str, Any]]]:
    """The pages of a kind; what goes wrong is raised as `Unready`."""
    try:
        async for page in kube.pages(plural, namespace):
            yield page
    except ApiError as error:
        raise explained(
            kube, error, verb="list", resource=f"{plural}.nexus.dev", namespace=namespace
        ) from None
    except httpx.HTTPError as error:
        raise api_away(kube.credentials.server, error) from None


def explained(
    kube: Kube, error: Exception, *, verb: str, resource: str, namespace: str | None
) -> Unready:
    """What an error of the client means, and what to do about it."""
    server = kube.credentials.server
    status = error.status if isinstance(error, ApiError) else None
    if status == 401:
        return token_rejected(server, kube.credentials.origin)
    if status == 403:
        return right_missing(verb=verb, resource=resource, namespace=namespace)
    return api_away(server, error)
