"""The live objects of routing: a backend as this proxy uses it, and one (backend, model) that may
serve a request.

`Backend` and `Candidate` are the same objects for as long as their LLMBackend exists: a rebuilt
routing table replaces their settings, never their counters, pools or rests. Nothing here decides
anything.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from nexus_proxy.routing.endpoint import Endpoint

if TYPE_CHECKING:
    import ssl

    from nexus_quality.backend_monitor import BackendMonitor
    from nexus_quality.breaker import Breaker
    from nexus_quality.outcome import Outcome
    from nexus_quality.subject import Standing
    from nexus_quality.words import Words

EWMA_WEIGHT = 0.2
DEFAULT_REST_SECONDS = 5.0
MAX_REST_SECONDS = 60.0
REST_JITTER = 0.1

CREDENTIAL_HEADERS = frozenset((b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a backend listens.

    `authority` is the value of the Host header; `base_path` the prefix of the URL without `/v1`
    (`b""` or `b"/prefix"`); `paths` the complete request target per endpoint, which is what goes on
    the wire (Google's OpenAI-compatible API has no `/v1`), and `starts` the head of a request up to
    its Host header. `tls` is None for plain HTTP; `server_name` is the name sent and checked.
    """

    scheme: str
    host: str
    port: int
    authority: bytes
    base_path: bytes
    paths: Mapping[Endpoint, bytes]
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    starts: Mapping[Endpoint, bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        starts = {
            endpoint: b"POST %b HTTP/1.1\r\nhost: %b\r\n" % (path, self.authority)
            for endpoint, path in self.paths.items()
        }
        object.__setattr__(self, "starts", starts)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The timeouts of a backend, in seconds."""

    connect: float = 5.0
    first_token: float = 120.0
    idle: float = 60.0
    response: float = 600.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """What happens to credentials on the way to a backend.

    `mode` is `None`, `Secret` or `PassThrough`. `header_line` is sent as it is (`b"authorization:
    Bearer …\r\n"`, `b""` for none); `strip` are the lower-case names of client headers that must
    not be forwarded.
    """

    mode: str = "None"
    header_line: bytes = b""
    strip: frozenset[bytes] = CREDENTIAL_HEADERS

    def __repr__(self) -> str:
        return f"Credentials(mode={self.mode!r})"  # never the key


class Backend:
    """One LLMBackend as this proxy uses it, from its first sight to its deletion (one object per
    UID).

    `in_flight` counts requests that this proxy has there now (`pending` is the same number, for
    reading where a property costs too much); `latency_ms` is the EWMA of the time to the first
    response byte of successful streams, 0 until something is known; `requests` the attempts begun.
    `pool` belongs to the byte path. `changed` is told of every change that moves a score; those
    other than of the load are numbered by `revision`.
    """

    __slots__ = (
        "_changed",
        "answer_headers",
        "credentials",
        "latency_ms",
        "max_concurrency",
        "name",
        "namespace",
        "origin",
        "pending",
        "pool",
        "requests",
        "revision",
        "timeouts",
        "uid",
    )

    def __init__(
        self,
        uid: str,
        namespace: str,
        name: str,
        *,
        origin: Origin,
        timeouts: Timeouts | None = None,
        credentials: Credentials | None = None,
        answer_headers: bytes = b"",
        max_concurrency: int | None = None,
        latency_ms: float = 0.0,
        changed: Callable[[Backend], None] = lambda _backend: None,
    ) -> None:
        self.uid = uid
        self.namespace = namespace
        self.name = name
        self.origin = origin
        self.timeouts = timeouts or Timeouts()
        self.credentials = credentials or Credentials()
        self.answer_headers = answer_headers
        self.max_concurrency = max_concurrency
        self.latency_ms = latency_ms
        self.requests = 0
        self.pool: Any = None
        self.pending = 0
        self.revision = 0
        self._changed = changed

    def enter(self) -> None:
        """One more request is there."""
        self.pending += 1
        self.requests += 1
        self._changed(self)

    def leave(self) -> None:
        """One request less is there."""
        self.pending -= 1
        self._changed(self)

    def shift(self, by: int) -> None:
        """So many more are to be counted there that others have sent."""
        self.pending += by
        self._changed(self)

    @property
    def in_flight(self) -> int:
        return self.pending

    @in_flight.setter
    def in_flight(self, value: int) -> None:
        if value > self.pending:
            self.requests += 1
        self.pending = value
        self._changed(self)

    @property
    def id(self) -> str:
        """`namespace/name`, as in metrics and statistics."""
        return f"{self.namespace}/{self.name}"

    def observe_latency(self, ms: float) -> None:
        """Fold in one time to first response byte, in milliseconds."""
        known = self.latency_ms
        self.latency_ms = known + EWMA_WEIGHT * (ms - known) if known else ms
        self.touch()

    def touch(self) -> None:
        """Say that something about this backend changed."""
        self.revision += 1
        self._changed(self)


@dataclass(frozen=True, slots=True)
class Traits:
    """What a (backend, model) is by its configuration and last known status, as the pipeline reads
    it.

    `capabilities` is a bit set as in `request`, None when unknown, which is neutral; so is
    `context_length` None. `obstacle` and `unhealthy` are `(reason, suggested action)`: the first
    keeps the backend out whatever the request (a missing key, say), the second leaves it to the
    last resort. `least_bad` and `ttft_threshold_ms` come from the quality policy in force. `price`
    is nano-USD per million input and output tokens.
    """

    zone: str = "Restricted"
    tier: int = 1
    priority: int = 50
    capabilities: int | None = None
    context_length: int | None = None
    suspended: bool = False
    unhealthy: tuple[str, str] | None = None
    obstacle: tuple[str, str] | None = None
    least_bad: bool = True
    ttft_threshold_ms: int = 0
    price: tuple[int, int] | None = None
    created: int = 0
    discovery_seconds: float = 30.0


DEFAULT_TRAITS = Traits()


class Attempted(Protocol):
    """An attempt under way (`nexus_quality.attempt.Attempt` is the one there is)."""

    def sent(self, now: float) -> None: ...

    def content(self, now: float) -> None: ...

    def end(self, outcome: Outcome, now: float, *, cost_nano_usd: int = 0) -> None: ...


class Judged(Protocol):
    """How a (backend, model) stands (`nexus_quality.subject.Subject` is the one there is)."""

    uid: str
    backend: BackendMonitor
    breaker: Breaker
    standing: Standing
    in_flight: int

    def begin(self, now: float, *, probe: bool = False, last_resort: bool = False) -> Attempted: ...

    def admission(self, now: float) -> float: ...

    def kept_out(self, now: float) -> None: ...

    def rejected(self) -> Words | None: ...

    def returns_at(self) -> float | None: ...

    def ttft_average_ms(self, now: float) -> int | None: ...

    def wants_probe(self, now: float) -> bool: ...

    def weight(self, now: float) -> float: ...

    def why(self) -> tuple[str, str]: ...


class Candidate:
    """One (backend, model) that may serve a request; the same object for as long as both exist.

    `upstream_model` is the name to send where it differs from `model` (None: they are the same).
    """

    __slots__ = (
        "backend",
        "missing_until",
        "model",
        "resting_until",
        "subject",
        "traits",
        "upstream_model",
    )

    def __init__(
        self,
        backend: Backend,
        model: str,
        *,
        subject: Judged,
        upstream_model: str | None = None,
        traits: Traits | None = None,
    ) -> None:
        self.backend = backend
        self.model = model
        self.subject = subject
        self.upstream_model = upstream_model
        self.traits = traits or DEFAULT_TRAITS
        self.resting_until = 0.0
        self.missing_until: dict[Endpoint, float] = {}

    def lacks(self, now: float, endpoint: Endpoint) -> None:
        """The backend answered 404 for this model: send it none at this endpoint until the next
        discovery.
        """
        self.missing_until[endpoint] = now + self.traits.discovery_seconds
        self.backend.touch()

    def rest(
        self,
        now: float,
        retry_after: float | None,
        *,
        random: Callable[[], float] = random.random,
    ) -> None:
        """Send nothing here for a while: the backend answered 429, or 503 with Retry-After
        (`retry_after` seconds).
        """
        asked = DEFAULT_REST_SECONDS if retry_after is None else max(0.0, retry_after)
        seconds = min(asked, MAX_REST_SECONDS) * (1 + REST_JITTER * random())
        self.resting_until = max(self.resting_until, now + seconds)
        self.backend.touch()
