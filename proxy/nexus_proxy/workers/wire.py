"""What a parent and its workers say to each other, and how it is framed on a socket pair.

Promises that every number a worker sends is its total so far, so that hearing one twice or missing
one in between changes nothing, and that frames come out whole whatever the reads. Both ends are one
version started by one command: nothing here is for the network.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from nexus_api import BudgetState, LLMBackend, QualityPolicy, RoutingPolicy
from nexus_proxy.routing.endpoint import Endpoint
from nexus_quality.peers import Sight
from nexus_quality.report import Cell
from nexus_quality.shared import SharedVerdict
from nexus_quality.spend import Spend

HEADER_BYTES = 4


class Tally(msgspec.Struct, array_like=True, frozen=True):
    """The counters of one worker since its start, `numbers` and `labelled` as `tally` orders them;
    `depths`: how many wait now with high and with normal priority.
    """

    numbers: tuple[int, ...]
    labelled: tuple[dict[str, int], ...]
    requests: tuple[tuple[str, int, int], ...]
    depths: tuple[int, int]
    waits: dict[str, int]
    wait_buckets: tuple[int, ...]
    wait_seconds: float


class Load(msgspec.Struct, array_like=True, frozen=True):
    """One backend as one worker uses it: requests in flight and begun, the EWMA of latency, and how
    many of its requests wait for a place there.
    """

    uid: str
    in_flight: int
    requests: int
    latency_ms: float
    waiting: int = 0


class Use(msgspec.Struct, array_like=True, frozen=True):
    """One (backend, model) as one worker uses it. Times are the boot clock's; `missing` is by the
    endpoint where the backend does not have the model.
    """

    uid: str
    model: str
    in_flight: int
    latest_success: float
    resting_until: float
    missing: dict[str, float]


class Key(msgspec.Struct, array_like=True, frozen=True):
    """How a backend takes its key: refusals in a row, and whether it was not used yet."""

    uid: str
    refused: int
    untried: bool


class Batch(msgspec.Struct, tag="batch", omit_defaults=True):
    """What a worker has to tell; `urgent`: a report should leave within so many seconds."""

    tally: Tally
    cells: list[Cell] = []
    loads: list[Load] = []
    uses: list[Use] = []
    keys: list[Key] = []
    spend: list[Spend] = []
    urgent: float | None = None


class Serving(msgspec.Struct, tag="serving", frozen=True):
    """The worker has a routing table and takes connections."""


class Drained(msgspec.Struct, tag="drained", frozen=True):
    """The worker has told everything and ends; `whole`: every request could finish."""

    whole: bool


class World(msgspec.Struct, tag="world", omit_defaults=True):
    """What there is to route by: the first is everything, later ones what changed since.

    `backends` and `verdicts` are those that changed, `gone` the UIDs of what is no more, the
    policies and Secrets all there are, None if none of them changed.
    """

    backends: list[LLMBackend] = []
    verdicts: dict[str, SharedVerdict] = {}
    gone: list[str] = []
    quality_policies: tuple[QualityPolicy, ...] | None = None
    routing_policies: tuple[RoutingPolicy, ...] | None = None
    secrets: dict[str, dict[str, str]] | None = None
    budget: BudgetState = BudgetState.NORMAL


class Peers(msgspec.Struct, tag="peers", omit_defaults=True):
    """What the other workers do. `loads`: requests to be counted at a backend beside one's own.
    `uses`: rests and missing models, as their worker told them. `answered`: when the operator last
    answered a report.
    """

    loads: dict[str, int] = {}
    uses: list[Use] = []
    answered: float | None = None


class Stop(msgspec.Struct, tag="stop", frozen=True):
    """Take no more connections and end when all is done, or after so many seconds."""

    seconds: float


class Abort(msgspec.Struct, tag="abort", frozen=True):
    """End now what is under way, and say so to the clients."""


Up = Batch | Serving | Drained | Sight
Down = World | Peers | Sight | Stop | Abort

_encoder = msgspec.msgpack.Encoder()
decode_up = msgspec.msgpack.Decoder(Up).decode
decode_down = msgspec.msgpack.Decoder(Down).decode

ENDPOINTS = {endpoint.name: endpoint for endpoint in Endpoint}


def frame(message: Up | Down) -> bytes:
    """A message, ready to write."""
    body = _encoder.encode(message)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


class Frames:
    """Cuts a stream of bytes into the bodies of frames."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that are whole with these bytes."""
        held = self._data
        held += data
        start = 0
        try:
            while len(held) - start >= HEADER_BYTES:
                begin = start + HEADER_BYTES
                end = begin + int.from_bytes(held[start:begin], "big")
                if len(held) < end:
                    return
                start = end
                yield bytes(held[begin:end])
        finally:
            del held[:start]
