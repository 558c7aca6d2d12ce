"""A listening socket that can be closed and opened again on the same port.

Promises: while closed, connecting is refused and nobody else is given the port. It is NOT a server:
connections already accepted are the caller's business.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable


class Listener:
    """One address; ``close`` and ``open`` take effect at once."""

    def __init__(
        self, factory: Callable[[], asyncio.Protocol], *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._factory = factory
        # Bound but never listening: keeps the port ours while the listening socket is closed.
        self._placeholder = _bound(host, port)
        self.host = host
        self.port: int = self._placeholder.getsockname()[1]
        self._listening: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._opening: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Accept connections from now on: the backlog takes them until the loop serves them."""
        if self._listening is not None:
            return
        self._listening = _bound(self.host, self.port)
        self._listening.listen(1024)
        self._opening = asyncio.get_running_loop().create_task(self._serve(self._listening))

    async def _serve(self, listening: socket.socket) -> None:
        self._server = await asyncio.get_running_loop().create_server(self._factory, sock=listening)

    async def opened(self) -> None:
        """Wait until a call of ``open`` is done."""
        if self._opening is not None:
            await self._opening

    def close(self) -> None:
        """Refuse connections from now on."""
        if self._opening is not None:
            self._opening.cancel()
        if self._server is not None:
            self._server.close()
        if self._listening is not None:
            self._listening.close()
        self._opening = self._server = self._listening = None

    def release(self) -> None:
        """Close, and give the port back."""
        self.close()
        self._placeholder.close()


def _bound(host: str, port: int) -> socket.socket:
    raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        raw.bind((host, port))
        raw.setblocking(False)
    except OSError as error:
        raw.close()
        raise OSError(
            error.errno, f"cannot listen on {host}:{port} ({error.strerror}): choose another port"
        ) from error
    return raw
