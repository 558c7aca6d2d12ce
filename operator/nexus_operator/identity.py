"""Who sends a report, and on whose backends they may report.

The API server is asked (TokenReview for the audience `nexus-operator`, SubjectAccessReview for the
verb `report`) and its answers are remembered in bounded tables: a yes for a minute, a no for 10 s.
While it cannot be asked a yes stays good for 10 minutes after it was given, a token's never beyond
its `exp`; nobody new is believed meanwhile. The same question is under way once. Nothing here reads
a report.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from nexus_api.meta import BACKEND_PLURAL, GROUP
from nexus_operator.kube import ApiError, Kube
from nexus_operator.memory import Memory

log = logging.getLogger(__name__)

AUDIENCE = "nexus-operator"
SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"
POD_UID = "authentication.kubernetes.io/pod-uid"
POD_NAME = "authentication.kubernetes.io/pod-name"
BELIEVED_SECONDS = 60.0
REFUSED_SECONDS = 10.0
OUTAGE_SECONDS = 600.0
ASK_SECONDS = 3.0
QUEUE_SECONDS = 5.0
ASK_AGAIN_SECONDS = 5.0
COMPLAIN_SECONDS = 10.0
MAX_ASKING = 512
AT_ONCE = 16
_V = TypeVar("_V")


class Unavailable(Exception):
    """The API server cannot be asked, and what it said before is of no use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Who a token speaks for. `key`: the identity, one per pod, fit to be shown to a person."""

    key: str
    namespace: str | None
    user: Mapping[str, Any]


class Identities:
    """Asks the API server and remembers. `count(review, result)` is told of every look-up."""

    def __init__(
        self,
        kube: Kube,
        clock: Callable[[], float],
        *,
        count: Callable[[str, str], None] = lambda review, result: None,
    ) -> None:
        self._kube, self._clock, self._count = kube, clock, count
        self._tokens: Memory[Reporter | None] = Memory(clock)
        self._rights: Memory[bool] = Memory(clock)
        self._asking: dict[object, asyncio.Task[Any]] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._away_until = self._complain_at = float("-inf")

    async def reporter(self, token: str) -> Reporter | None:
        """Who the token speaks for, None if it is not valid for our audience.

        Raises `Unavailable`.
        """
        key = hashlib.sha256(token.encode()).digest()

        async def ask() -> Reporter | None:
            found = reporter_of(await self._kube.review_token(token, AUDIENCE))
            end = float("inf") if found is None else expiry(token)
            self._remember(self._tokens, key, found, good=found is not None, end=end)
            return found

        return await self._look_up("token", self._tokens, key, ask)

    async def may_report(self, reporter: Reporter, namespace: str) -> bool:
        """Whether it may report on the backends of a namespace. Raises `Unavailable`."""
        if reporter.namespace == namespace:
            return True
        key = (reporter.key, namespace)

        async def ask() -> bool:
            review = await self._kube.review_access(access(reporter, namespace))
            allowed = bool(review.get("allowed"))
            self._remember(self._rights, key, allowed, good=allowed, end=float("inf"))
            return allowed

        return await self._look_up("access", self._rights, key, ask)

    def _remember(
        self, memory: Memory[_V], key: object, value: _V, *, good: bool, end: float
    ) -> None:
        fresh, last = (BELIEVED_SECONDS, OUTAGE_SECONDS) if good else (REFUSED_SECONDS,) * 2
        now = self._clock()
        memory.put(key, value, fresh=min(now + fresh, end), last=min(now + last, end))

    async def _look_up(
        self, review: str, memory: Memory[_V], key: object, ask: Callable[[], Awaitable[_V]]
    ) -> _V:
        known = memory.fresh(key)
        if known is not None:
            self._count(review, "remembered")
            return known[0]
        last = memory.last(key)
        if last is not None and self._clock() < self._away_until:
            self._count(review, "outage")
            return last[0]
        try:
            value = await self._ask_once((review, key), ask)
        except (ApiError, httpx.HTTPError, TimeoutError, Unavailable) as error:
            self._count(review, "unavailable" if last is None else "outage")
            if last is not None:
                return last[0]
            text = " ".join(str(error).split()) or type(error).__name__
            self._complain(text)
            raise Unavailable(text) from None
        self._count(review, "yes" if value else "no")
        return value

    def _complain(self, text: str) -> None:
        """One line for a crowd: each of them will come again."""
        if self._clock() >= self._complain_at:
            self._complain_at = self._clock() + COMPLAIN_SECONDS
            log.warning("the API server could not vouch for a report: %s", text)

    async def _ask_once(self, key: object, ask: Callable[[], Awaitable[_V]]) -> _V:
        """The answer, shared by all who ask the same at the same time."""
        task: asyncio.Task[_V] | None = self._asking.get(key)
        if task is None:
            if len(self._asking) >= MAX_ASKING:
                raise Unavailable("too many tokens are being looked up")
            task = self._asking[key] = asyncio.create_task(self._ask(ask), name="nexus review")
            task.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(task)

    async def _ask(self, ask: Callable[[], Awaitable[_V]]) -> _V:
        """Once it is its turn a question has its whole time, however many were before it."""
        async with asyncio.timeout(QUEUE_SECONDS):
            await self._at_once.acquire()
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await ask()
        finally:
            self._at_once.release()

    def _answered(self, key: object, task: asyncio.Task[Any]) -> None:
        self._asking.pop(key, None)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ApiError):
            # It may be silent rather than away: those who are known do not wait for it again.
            self._away_until = self._clock() + ASK_AGAIN_SECONDS


def expiry(token: str) -> float:
    """The `exp` of a token that was accepted, in epoch seconds; infinite if it shows none."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return float("inf")


def reporter_of(review: Mapping[str, Any]) -> Reporter | None:
    """The reporter of a TokenReview's status, None if the token was not accepted for us."""
    if not review.get("authenticated") or AUDIENCE not in (review.get("audiences") or ()):
        return None
    user = review.get("user") or {}
    extra = user.get("extra") or {}
    account = str(user.get("username") or "")
    namespace = None
    if account.startswith(SERVICE_ACCOUNT_PREFIX):
        namespace, _, account = account.removeprefix(SERVICE_ACCOUNT_PREFIX).partition(":")
    elif "/" in account:
        account = f"user {account}"  # not to be taken for a pod or service account
    where = f"{namespace}/" if namespace else ""
    pod_uid, pod_name = _first(extra, POD_UID), _first(extra, POD_NAME)
    return Reporter(
        key=f"{where}{pod_name or account} ({pod_uid})" if pod_uid else where + account,
        namespace=namespace,
        user=user,
    )


def access(reporter: Reporter, namespace: str) -> dict[str, Any]:
    """The question to the API server."""
    user = reporter.user
    return {
        "user": user.get("username", ""),
        "uid": user.get("uid", ""),
        "groups": list(user.get("groups") or ()),
        "extra": dict(user.get("extra") or {}),
        "resourceAttributes": {
            "group": GROUP,
            "resource": BACKEND_PLURAL,
            "verb": "report",
            "namespace": namespace,
        },
    }


def _first(extra: Mapping[str, Any], name: str) -> str | None:
    values = extra.get(name) or ()
    return str(values[0]) if values else None
