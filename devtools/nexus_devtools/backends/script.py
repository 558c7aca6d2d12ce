"""What a simulated backend is told to do: latency, length of answers and faults, as data.

Promises: a script is immutable, complete and serialisable; the same script and seed give the same
sequence of faults. It is NOT the behaviour itself (see ``delivery``) and knows nothing of HTTP.
"""

from __future__ import annotations

import random
from enum import StrEnum

import msgspec


class FaultKind(StrEnum):
    """Ways in which a backend can let its caller down; the values are those in JSON."""

    STATUS = "status"
    """Answers with ``status``, and ``Retry-After: retry_after`` where given."""
    REFUSE = "refuse"
    """The listening socket is closed: connecting is refused until the script changes."""
    HANG_HEADERS = "hang-headers"
    """Reads the request and answers nothing at all."""
    HANG_STREAM = "hang-stream"
    """Answers with headers and ``after_chunks`` content events, then nothing more."""
    CUT = "cut"
    """Closes the connection (FIN) in the middle of the body, after ``after_chunks`` events."""
    RESET = "reset"
    """As ``cut``, with a TCP reset."""
    TRUNCATE = "truncate"
    """Ends the HTTP body in good order after ``after_chunks`` events: no finish, no ``[DONE]``."""
    MALFORMED = "malformed"
    """After ``after_chunks`` events comes a ``data:`` line that is not JSON; the body ends."""
    STREAM_ERROR = "stream-error"
    """After ``after_chunks`` events comes an OpenAI error object as an event; the body ends."""
    ERROR_BODY = "error-body"
    """Status 200 with a JSON error object as the whole body, streaming asked for or not."""
    SLOW = "slow"
    """A good answer, ``delay_seconds`` later than scripted."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """One way to fail, how often, and for which requests."""

    kind: FaultKind
    probability: float = 1.0
    status: int = 500
    retry_after: str | None = None
    after_chunks: int = 0
    delay_seconds: float = 0.0
    model: str | None = None
    """Only requests for this model; absent means all."""
    times: int | None = None
    """How many requests it strikes before it is spent; absent means no end."""

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability is {self.probability}: give a number from 0 to 1")
        if not 400 <= self.status <= 599:
            raise ValueError(f"status is {self.status}: give a number from 400 to 599")
        if self.after_chunks < 0 or self.delay_seconds < 0 or (self.times or 0) < 0:
            raise ValueError("afterChunks, delaySeconds and times cannot be negative")


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """How a backend behaves from now on; the default is a prompt and faultless one."""

    headers_seconds: float = 0.0
    """Time to the response's first byte (streams: headers and role preamble)."""
    first_token_seconds: float = 0.0
    """Time from there to the first content event; a whole answer takes both plus its tokens."""
    token_seconds: float = 0.0
    """Time between two content events."""
    tokens: int = 8
    """Content events per answer, unless the request asks for fewer."""
    faults: tuple[Fault, ...] = ()
    """Drawn in order; the first that strikes decides."""
    health_status: int = 200
    """What ``GET /health`` answers; faults leave probes and ``/v1/models`` alone."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.headers_seconds, self.first_token_seconds, self.token_seconds) < 0:
            raise ValueError("headersSeconds, firstTokenSeconds, tokenSeconds cannot be negative")
        if self.tokens < 1:
            raise ValueError(f"tokens is {self.tokens}: give at least 1")

    @property
    def refuses(self) -> bool:
        """Whether the listening socket is to be closed under this script."""
        return any(fault.kind is FaultKind.REFUSE for fault in self.faults)


class Dice:
    """Draws the fault of each request in turn, the same way for the same script."""

    def __init__(self, script: Script) -> None:
        self._random = random.Random(script.seed)
        self._faults = script.faults
        self._left = [fault.times for fault in script.faults]

    def draw(self, model: str) -> Fault | None:
        """The fault that strikes a request for this model, or None for a good answer."""
        for index, fault in enumerate(self._faults):
            left = self._left[index]
            if left == 0 or fault.kind is FaultKind.REFUSE:
                continue
            if fault.model is not None and fault.model != model:
                continue
            if fault.probability < 1 and self._random.random() >= fault.probability:
                continue
            if left is not None:
                self._left[index] = left - 1
            return fault
        return None


def script_from_json(raw: bytes) -> Script:
    """Decode a script; raises ``ValueError`` with one line that says what is wrong and where."""
    try:
        return msgspec.json.decode(raw, type=Script)
    except (msgspec.DecodeError, ValueError) as error:
        raise ValueError(f"not a script: {error}") from error


def script_to_json(script: Script) -> bytes:
    """Encode a script for ``POST /_script``."""
    return msgspec.json.encode(script)
