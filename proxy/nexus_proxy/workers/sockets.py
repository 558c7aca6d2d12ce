"""Listening sockets of one address that several processes accept from, each from its own.

The kernel spreads new connections over sockets that share an address by SO_REUSEPORT. Promises that
a port which somebody else listens on is refused as for one process, though sharing would be
possible, and that all sockets have one port where 0 was asked for.
"""

from __future__ import annotations

import socket
from typing import Any

from nexus_proxy.http.gateway import BACKLOG


class Listeners:
    """The addresses behind a host and a port; a set of sockets for each worker. Raises OSError."""

    def __init__(self, host: str, port: int) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = list(dict.fromkeys((family, place) for family, _, _, _, place in found))
        # Who holds the port is only told to a socket that would not share it.
        for family, place in addresses:
            with _socket(family, (place[0], port, *place[2:]), share=False) as alone:
                port = port or alone.getsockname()[1]
        self.port = port
        self._addresses = [(family, (place[0], port, *place[2:])) for family, place in addresses]

    def open(self) -> list[socket.socket]:
        """Sockets that listen on every address. Raises OSError."""
        opened: list[socket.socket] = []
        try:
            for family, place in self._addresses:
                each = _socket(family, place, share=True)
                opened.append(each)
                each.listen(BACKLOG)
        except OSError:
            for each in opened:
                each.close()
            raise
        return opened


def _socket(family: int, place: tuple[Any, ...], *, share: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(place)
    except OSError:
        made.close()
        raise
    return made
