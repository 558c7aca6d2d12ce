"""What one attempt came to: the classes of outcome, as one table.

Promises that every way an attempt can end has exactly one row here, and that nothing else decides
what counts as a request, an error or a failure in a row. It does not detect anything: the byte
path names the outcome, this file says what it means.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


class OutcomeClass(enum.Enum):
    """How an outcome enters windows and state machines."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"
    CREDENTIALS = "credentials"


class Outcome(enum.Enum):
    """Every way an attempt can end; `effect` is its row of OUTCOMES."""

    effect: Effect

    SUCCESS = "success"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECT_ERROR = "connect_error"
    CUT = "cut"
    MALFORMED = "malformed"
    STREAM_ERROR = "stream_error"
    ERROR_BODY = "error_body"
    THROTTLED = "throttled"
    CLIENT_ERROR = "client_error"
    MODEL_MISSING = "model_missing"
    CLIENT_GONE = "client_gone"
    CREDENTIALS_REFUSED = "credentials_refused"


@dataclass(frozen=True, slots=True)
class Effect:
    """What an outcome means; `connect`: no connection came about, `throttled`: asked to rest."""

    outcome_class: OutcomeClass
    connect: bool = False
    throttled: bool = False


_SUCCESS = Effect(OutcomeClass.SUCCESS)
_FAILURE = Effect(OutcomeClass.FAILURE)
_NEUTRAL = Effect(OutcomeClass.NEUTRAL)

OUTCOMES: Mapping[Outcome, Effect] = MappingProxyType(
    {
        Outcome.SUCCESS: _SUCCESS,
        Outcome.SERVER_ERROR: _FAILURE,
        Outcome.TIMEOUT: _FAILURE,
        Outcome.CONNECT_ERROR: Effect(OutcomeClass.FAILURE, connect=True),
        Outcome.CUT: _FAILURE,
        Outcome.MALFORMED: _FAILURE,
        Outcome.STREAM_ERROR: _FAILURE,
        Outcome.ERROR_BODY: _FAILURE,
        Outcome.THROTTLED: Effect(OutcomeClass.NEUTRAL, throttled=True),
        Outcome.CLIENT_ERROR: _NEUTRAL,
        Outcome.MODEL_MISSING: _NEUTRAL,
        Outcome.CLIENT_GONE: _NEUTRAL,
        Outcome.CREDENTIALS_REFUSED: Effect(OutcomeClass.CREDENTIALS),
    }
)

for _outcome, _effect in OUTCOMES.items():
    _outcome.effect = _effect


def of_status(status: int, *, retry_after: bool, own_key: bool) -> Outcome:
    """The outcome an HTTP status alone decides.

    `retry_after`: the answer carries a Retry-After header. `own_key`: the request carried a key
    from the backend's `auth`, so that a refusal speaks of our credentials, not of the client's.
    A 2xx is a success until its body says otherwise.
    """
    if status < 400:
        return Outcome.SUCCESS
    if status == 429 or (status == 503 and retry_after):
        return Outcome.THROTTLED
    if status >= 500:
        return Outcome.SERVER_ERROR
    if status in (401, 403) and own_key:
        return Outcome.CREDENTIALS_REFUSED
    if status == 404:
        return Outcome.MODEL_MISSING
    return Outcome.CLIENT_ERROR
