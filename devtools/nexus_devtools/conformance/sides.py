"""The two proxies a case is played against: this one, in this process, and nginx beside it."""

from __future__ import annotations

import ssl
from pathlib import Path

from nexus_devtools.conformance.case import Case, Run
from nexus_devtools.conformance.oracle import Oracle
from nexus_devtools.conformance.play import Player, guarded
from nexus_devtools.rawhttp.messages import Message, Readable, read_message
from nexus_devtools.rawhttp.peers import Peer, Upstream, open_client, until
from nexus_devtools.rawhttp.stage import Stage
from nexus_proxy.http.listener import Listener
from nexus_proxy.routing.candidate import Timeouts

# Far beyond every deadline of the byte path that a silent peer can run into.
PATIENCE_SECONDS = 100.0
MAX_BODY_BYTES = 1024 * 1024
SMALL = 1000  # a body that is read even by a backend that answers early
TIMEOUTS = Timeouts(connect=5.0, first_token=20.0, idle=10.0, response=30.0)


Entrance = tuple[Listener, ssl.SSLContext]
"""How clients come in, and what they trust."""


class _Staged:
    """The gateway of a stage; time passes by its tick."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def open(self) -> Peer:
        stage = self._stage
        known = set(stage.gateway.clients)
        peer = await open_client(stage.gateway.port, stage.trust)
        # A handshake ends at the server later than at the client.
        await until(lambda: stage.trust is None or stage.gateway.clients - known)
        return peer

    async def patience(self, sent: int) -> None:
        await until(lambda: self._stage.counters.bytes_received >= sent)
        self._stage.tick(PATIENCE_SECONDS)


async def against_proxy(
    case: Case, *, record: bool = False, entrance: Entrance | None = None
) -> str:
    """Play a case against this proxy; every attempt must have begun and ended once. With an
    `entrance` its clients come in by TLS.
    """
    run = Run()
    listener, trust = entrance or (Listener(), None)
    stage = Stage(max_body_bytes=MAX_BODY_BYTES, listener=listener, trust=trust)
    await stage.start()
    try:
        upstream = await stage.backend(guarded(case.backend, run), timeouts=TIMEOUTS)
        _prepare(upstream, case)
        expected = None if record else case.proxy
        await Player(case, _Staged(stage), run, expected=expected).play()
    finally:
        await stage.stop()
    stage.check_attempts()
    return run.line(case.look)


async def against_nginx(case: Case, nginx: str, folder: Path, *, record: bool = False) -> str:
    """Play a case against nginx."""
    run = Run()
    upstream = Upstream(guarded(case.backend, run))
    _prepare(upstream, case)
    await upstream.start()
    oracle = Oracle(nginx, folder, upstream.port)
    try:
        await oracle.start()
        expected = None if record else case.recorded_of_nginx[0]
        await Player(case, oracle, run, expected=expected).play()
    finally:
        await oracle.stop()
        await upstream.stop()
    return run.line(case.look)


def _prepare(upstream: Upstream, case: Case) -> None:
    if case.early:
        upstream.read = _read_early


async def _read_early(reader: Readable) -> Message:
    """A large request's head alone."""
    message = await read_message(reader, head_only=True)
    length = int(message.header("content-length") or 0)
    if length < SMALL:
        message.body = await reader.readexactly(length)
    return message
