"""kopf's login: the same credentials as our own client, and only once the API server takes them.

kopf gives up when a login handler returns credentials that failed before. A starting API server
refuses good tokens for a moment, so each login carries a new priority, which makes it new to kopf.
And kopf asks for another login only after a 401: for credentials that were replaced the session is
closed, which it takes as a reason as well.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any
from weakref import WeakSet

import aiohttp
import kopf

from nexus_operator.credentials import Credentials

_attempts = itertools.count(1)


class Logins:
    """The sessions that kopf was given; it closes those that it has done with."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._answers: WeakSet[aiohttp.ClientResponse] = WeakSet()
        self._closing: set[asyncio.Task[None]] = set()

    def login(self, credentials: Credentials) -> kopf.AiohttpSession:
        """A session with these credentials, in kopf's terms."""
        self._answers = WeakSet()
        self._session = session(credentials, self._answers)
        return kopf.AiohttpSession(
            server=credentials.server,
            aiohttp_session=self._session,
            default_namespace=credentials.namespace,
            priority=next(_attempts),
        )

    def replaced(self) -> None:
        """The credentials of the latest login are not those in force any more."""
        if self._session is None:
            return
        # Who reads from a watch would not notice that its session is closed.
        for answer in list(self._answers):
            answer.close()
        task = asyncio.get_running_loop().create_task(self._session.close(), name="nexus logout")
        self._session = None
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def session(
    credentials: Credentials, answers: WeakSet[aiohttp.ClientResponse]
) -> aiohttp.ClientSession:
    """A session that needs nothing but addresses; its answers are put into `answers`."""
    headers = credentials.headers()
    if credentials.username and credentials.password:
        basic = aiohttp.encode_basic_auth(credentials.username, credentials.password)
        headers = {"Authorization": basic}
    traced = aiohttp.TraceConfig()

    async def answered(*told: Any) -> None:
        end: aiohttp.TraceRequestEndParams = told[2]
        answers.add(end.response)

    traced.on_request_end.append(answered)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=credentials.ssl_context()),
        headers=headers,
        proxy=credentials.proxy_url,
        trust_env=False,
        trace_configs=[traced],
    )
