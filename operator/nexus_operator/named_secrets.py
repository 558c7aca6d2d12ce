"""Secrets that the operator may read, because somebody bound a Role for their names.

By default it may read none, and probes without keys. Promises that a Secret is asked for by its
name alone, that an answer is good for a while (a refusal for longer, so that a fleet of backends
asks seldom), that trouble with the API server is no answer, and that no value is ever logged.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from typing import NamedTuple

import httpx

from nexus_api.backend import SecretKeyRef
from nexus_operator.kube import ApiError, Kube

FRESH_SECONDS = 60.0
REFUSED_SECONDS = 300.0
ANSWER_SECONDS = 5.0
MOST = 10_000
FORBIDDEN, GONE = 403, 404


class _Known(NamedTuple):
    values: Mapping[str, str]
    until: float


class NamedSecrets:
    """Values by namespace and reference."""

    def __init__(self, kube: Kube, clock: Callable[[], float]) -> None:
        self._kube = kube
        self._clock = clock
        self._known: dict[tuple[str, str], _Known] = {}

    async def get(self, namespace: str, ref: SecretKeyRef) -> str | None:
        """The text of a key without white space around it; None: not there, or not for us."""
        known = self._known.get((namespace, ref.name))
        if known is None or known.until <= self._clock():
            known = await self._read(namespace, ref.name)
        return known.values.get(ref.key) or None

    def forget(self, namespace: str, ref: SecretKeyRef) -> None:
        """Its value was refused where it is for: another one may be there by now."""
        self._known.pop((namespace, ref.name), None)

    async def _read(self, namespace: str, name: str) -> _Known:
        values: dict[str, str] = {}
        seconds = FRESH_SECONDS
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                secret = await self._kube.get_secret(namespace, name)
            values = {key: decoded(text) for key, text in (secret.get("data") or {}).items()}
        except ApiError as error:
            seconds = REFUSED_SECONDS if error.status == FORBIDDEN else FRESH_SECONDS
            if error.status not in (FORBIDDEN, GONE):
                seconds = 0.0
        except (httpx.HTTPError, TimeoutError):
            seconds = 0.0
        known = _Known(values, self._clock() + seconds)
        while len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        self._known[namespace, name] = known
        return known


def decoded(text: str) -> str:
    """A value of `data`; "" for one that is no text."""
    try:
        return base64.b64decode(text).decode().strip()
    except (binascii.Error, UnicodeDecodeError):
        return ""
