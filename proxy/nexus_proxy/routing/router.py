"""The one question the byte path asks: where does this request go?

`Router.choose` answers for a first attempt, `Router.again` after a failed one, each with a `Choice`
or with the `Rejection` to send to the client. Neither does I/O nor waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from nexus_proxy.routing.candidate import Candidate
from nexus_proxy.routing.request import Call


class Choice:
    """One attempt to make.

    `probe` and `last_resort` are for `candidate.subject.begin`; `reason` is the value of
    X-Nexus-Route-Reason; `fallback_model` that of X-Nexus-Fallback-Model (None: no fallback);
    `rewrite` the value to put in place of the request's `model` (None: send the body as it came).
    Use `rewrite`, not `candidate.upstream_model`: it also covers aliases and fallbacks.
    """

    __slots__ = ("candidate", "fallback_model", "last_resort", "probe", "reason", "rewrite")

    def __init__(
        self,
        candidate: Candidate,
        *,
        probe: bool = False,
        last_resort: bool = False,
        reason: str = "capability-match",
        fallback_model: str | None = None,
        rewrite: str | None = None,
    ) -> None:
        self.candidate = candidate
        self.probe = probe
        self.last_resort = last_resort
        self.reason = reason
        self.fallback_model = fallback_model
        self.rewrite = rewrite


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one candidate is left out: who says so, and what a person can do."""

    backend: str
    reconciler: str
    reason: str
    suggested_action: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """No attempt can be made: the HTTP status and OpenAI error to answer with.

    `retry_after` is in whole seconds, None when no end is known; `param` names the request field at
    fault.
    """

    status: int
    code: str
    message: str
    reasons: tuple[Reason, ...] = ()
    retry_after: int | None = None
    param: str | None = None


class Routing(Protocol):
    """What the byte path needs of a router (`Router` below is the one there is)."""

    ready: bool

    def choose(self, call: Call, now: float) -> Choice | Rejection: ...

    def again(self, call: Call, now: float, *, first_retry_free: bool) -> Choice | Rejection: ...

    def models(self) -> bytes: ...
