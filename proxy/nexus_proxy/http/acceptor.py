"""Accepts connections whose clients are to speak TLS, and bounds the handshakes under way.

An event loop's own TLS server hands a connection over when its handshake is over; until then
nobody counts it. Promises that those are counted here and never many more than the clients that
still fit, so that strangers who only connect take no descriptor that a backend or a client needs. A
task exists for a handshake only, and only until it is over.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

# So many handshakes may be under way though no client fits: they end with a word about it.
TOLD_ANYWAY = 16
ACCEPTED_AT_ONCE = 64
_NOT_NOW = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

_log = logging.getLogger("nexus.proxy")


class Acceptor:
    """`room()` is how many more clients fit, `make` makes the protocol of one, `turned_away` is
    told of each that was not let in; `options` are those of `connect_accepted_socket`.
    """

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        *,
        room: Callable[[], int],
        turned_away: Callable[[], None],
        options: dict[str, Any],
    ) -> None:
        self._make = make
        self._room = room
        self._turned_away = turned_away
        self._options = options
        self._sockets: list[socket.socket] = []
        self._paused: list[socket.socket] = []
        self._handshakes: set[asyncio.Task[None]] = set()

    @property
    def handshakes(self) -> int:
        """How many are under way."""
        return len(self._handshakes)

    def listen(self, sock: socket.socket) -> None:
        """Accept from a bound socket, which is this acceptor's from now on."""
        sock.setblocking(False)
        self._sockets.append(sock)
        self._watch(sock)

    def _watch(self, sock: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(sock.fileno(), self.ready, sock)

    def ready(self, sock: socket.socket) -> None:
        """Take the connections that have come."""
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _ = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NOT_NOW:
                    raise
                # Asking again at once would only take the processor too.
                asyncio.get_running_loop().remove_reader(sock.fileno())
                self._paused.append(sock)
                return
            if len(self._handshakes) >= max(TOLD_ANYWAY, self._room()):
                connection.close()
                self._turned_away()
                continue
            task = asyncio.get_running_loop().create_task(self._shake_hands(connection))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make, connection, **self._options
            )
        except OSError as error:
            connection.close()
            _log.debug("a TLS handshake failed: %s", error)
        except asyncio.CancelledError:
            connection.close()
            raise

    def tick(self) -> None:
        """Once a second: accept again where that was not possible."""
        paused, self._paused = self._paused, []
        for sock in paused:
            self._watch(sock)

    def close(self) -> None:
        """Accept nothing more; handshakes under way go on."""
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()
        self._sockets, self._paused = [], []

    def cut_short(self) -> None:
        """End the handshakes under way."""
        for task in tuple(self._handshakes):
            task.cancel()


def bind(host: str, port: int, *, backlog: int) -> list[socket.socket]:
    """Sockets that listen at every address of a host; port 0 takes one that is free. Raises
    OSError.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    opened: list[socket.socket] = []
    try:
        for family, place in dict.fromkeys((entry[0], entry[4]) for entry in found):
            where = (place[0], port)
            opened.append(socket.create_server(where, family=family, backlog=backlog))
            port = port or opened[0].getsockname()[1]
    except OSError:
        for each in opened:
            each.close()
        raise
    return opened
