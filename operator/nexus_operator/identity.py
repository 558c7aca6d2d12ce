"""Who sends a report, and on whose backends they may report.

The API server is asked (TokenReview for the audience `nexus-operator`, SubjectAccessReview for the
verb `report`); its answers are remembered for a minute in bounded tables, so a fleet's reports cost
it one question per proxy and minute. Nothing here reads a report.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from nexus_api.meta import BACKEND_PLURAL, GROUP
from nexus_api.pace import paced
from nexus_operator.kube import Kube

AUDIENCE = "nexus-operator"
SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"
POD_UID = "authentication.kubernetes.io/pod-uid"
POD_NAME = "authentication.kubernetes.io/pod-name"
BELIEVED_SECONDS = paced(60.0)
REFUSED_SECONDS = paced(10.0)
CACHE_SIZE = 4096
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Who a token speaks for. `key`: the identity, one per pod, fit to be shown to a person."""

    key: str
    namespace: str | None
    user: Mapping[str, Any]


class Memory(Generic[_V]):
    """A bounded table whose entries end; the oldest make room."""

    def __init__(self, clock: Callable[[], float], size: int = CACHE_SIZE) -> None:
        self._clock = clock
        self._size = size
        self._entries: OrderedDict[Hashable, tuple[float, _V]] = OrderedDict()

    def get(self, key: Hashable) -> tuple[_V] | None:
        """The value in a tuple, None when there is none (any more)."""
        entry = self._entries.get(key)
        if entry is None or entry[0] <= self._clock():
            return None
        return (entry[1],)

    def put(self, key: Hashable, value: _V, seconds: float) -> None:
        """Remembers a value for a time."""
        self._entries[key] = (self._clock() + seconds, value)
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)


class Identities:
    """Asks the API server and remembers; raises what the client raises when it does not answer."""

    def __init__(self, kube: Kube, clock: Callable[[], float]) -> None:
        self._kube = kube
        self._tokens: Memory[Reporter | None] = Memory(clock)
        self._rights: Memory[bool] = Memory(clock)

    async def reporter(self, token: str) -> Reporter | None:
        """Who the token speaks for, None if it is not valid for our audience."""
        key = hashlib.sha256(token.encode()).digest()
        known = self._tokens.get(key)
        if known is not None:
            return known[0]
        reporter = reporter_of(await self._kube.review_token(token, AUDIENCE))
        seconds = BELIEVED_SECONDS if reporter else REFUSED_SECONDS
        self._tokens.put(key, reporter, seconds)
        return reporter

    async def may_report(self, reporter: Reporter, namespace: str) -> bool:
        """Whether it may report on the backends of a namespace."""
        if reporter.namespace == namespace:
            return True
        key = (reporter.key, namespace)
        known = self._rights.get(key)
        if known is not None:
            return known[0]
        allowed = bool((await self._kube.review_access(access(reporter, namespace))).get("allowed"))
        self._rights.put(key, allowed, BELIEVED_SECONDS if allowed else REFUSED_SECONDS)
        return allowed


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
