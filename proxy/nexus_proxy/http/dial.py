"""A new connection to a backend that may have several addresses.

Promises that the addresses are tried in turn, the next one as soon as one has failed or has been
silent for a quarter of a second; that the first to stand wins and nothing stays open of the others;
and that what is to be TLS is never tried without. It knows no exchange and no pool.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nexus_proxy.http.upstream import UpstreamConnection
    from nexus_proxy.routing.candidate import Origin

HEAD_START_SECONDS = 0.25
# A peer that went without a word (a node, what a firewall knew) is noticed while nothing is asked.
_PROBES = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, int(getattr(socket, name)), value)
        for name, value in _PROBES.items()
        if hasattr(socket, name)
    ),
)

Make = Callable[[], "UpstreamConnection"]


async def dial(
    origin: Origin,
    addresses: Sequence[str],
    make: Make,
    *,
    failed: Callable[[str], None],
) -> UpstreamConnection:
    """The first connection that stands; `failed` hears of addresses that took none. Raises
    OSError or UnicodeError with what the last one failed of.
    """
    if origin.tls is None and origin.scheme == "https":
        raise OSError("its TLS cannot be set up: see the Secret of its CA certificate")
    if len(addresses) == 1:
        try:
            return await _open(origin, addresses[0], make)
        except OSError:
            failed(addresses[0])
            raise
    return await _race(origin, list(addresses), make, failed)


async def _race(
    origin: Origin, left: list[str], make: Make, failed: Callable[[str], None]
) -> UpstreamConnection:
    running: dict[asyncio.Task[UpstreamConnection], str] = {}
    number = len(left)
    why: BaseException = OSError("there is no address")
    try:
        while left or running:
            if left:
                address = left.pop(0)
                running[asyncio.create_task(_open(origin, address, make))] = address
            wait = HEAD_START_SECONDS if left else None
            done, _ = await asyncio.wait(running, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                address = running.pop(task)
                if error is None:
                    return task.result()
                failed(address)
                why = error
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_abandon)
    if isinstance(why, OSError):
        raise OSError(f"{why} (the last of {number} addresses of {origin.host})") from why
    raise why


async def _open(origin: Origin, address: str, make: Make) -> UpstreamConnection:
    connection = make()
    connection.address = address
    tls = origin.tls
    try:
        await asyncio.get_running_loop().create_connection(
            lambda: connection,
            address,
            origin.port,
            ssl=tls,
            server_hostname=None if tls is None else origin.server_name or origin.host,
        )
    except asyncio.CancelledError:
        # Cancelled between the handshake and this line: the connection exists, unowned.
        if hasattr(connection, "transport"):
            connection.transport.abort()
        raise
    if not connection.transport.is_closing():
        opened = connection.transport.get_extra_info("socket")
        for option in _KEEP_ALIVE:
            opened.setsockopt(*option)
    return connection


def _abandon(task: asyncio.Task[UpstreamConnection]) -> None:
    """Another address won while this one was on its way."""
    if not task.cancelled() and task.exception() is None:
        task.result().transport.abort()
