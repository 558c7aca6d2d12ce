"""Why a candidate is left out, in the words a client reads in the 503 and a person in
`/v1/explain`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one backend is left out: which reconciler says so, why, and what a person can do."""

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
