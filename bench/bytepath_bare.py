"""`python -m bench.bytepath_bare PORT BACKEND_PORT [...]`: the byte path alone, as a process.

A router that takes turns and a subject that counts nothing: what is left is the price of the bytes.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import time
from functools import partial

import uvloop

from nexus_proxy.counters import Counters
from nexus_proxy.http.gateway import Gateway
from nexus_proxy.routing.candidate import Backend, Candidate, Origin
from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.routing.request import Call
from nexus_proxy.routing.router import Choice, Rejection
from nexus_quality.outcome import Outcome


class Uncounted:
    """Subject and attempt at once."""

    def begin(self, now: float, *, probe: bool = False, last_resort: bool = False) -> Uncounted:
        return self

    def sent(self, now: float) -> None: ...

    def content(self, now: float) -> None: ...

    def end(self, outcome: Outcome, now: float, *, cost_nano_usd: int = 0) -> None: ...


class Turns:
    """A router without a thought."""

    ready = True

    def __init__(self, choices: list[Choice]) -> None:
        self._next = itertools.cycle(choices).__next__

    def choose(self, call: Call, now: float) -> Choice | Rejection:
        return self._next()

    def again(self, call: Call, now: float, *, first_retry_free: bool) -> Choice | Rejection:
        return Rejection(503, "no_available_backend", "one attempt is all there is here")

    def models(self) -> bytes:
        return b"{}"


def _choice(port: int) -> Choice:
    origin = Origin(
        scheme="http",
        host="127.0.0.1",
        port=port,
        authority=b"127.0.0.1:%d" % port,
        base_path=b"",
        paths={endpoint: endpoint.path.encode() for endpoint in Endpoint},
    )
    headers = b"X-Nexus-Backend: b\r\nX-Nexus-Backend-Type: local\r\n"
    backend = Backend(f"u{port}", "bench", "b", origin=origin, answer_headers=headers)
    return Choice(Candidate(backend, "m", subject=Uncounted()))  # type: ignore[arg-type]


async def serve(port: int, backends: list[int]) -> None:
    """Serve for ever."""
    clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    router = Turns([_choice(backend) for backend in backends])
    gateway = Gateway(router=router, clock=clock, counters=Counters())
    await gateway.start("127.0.0.1", port)
    gc.collect()
    gc.freeze()
    while True:
        await asyncio.sleep(1)
        gateway.tick(clock())


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
