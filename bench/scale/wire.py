"""The least HTTP/1.1 client that keeps a connection: one request under way, answers by length."""

from __future__ import annotations

import asyncio


class Connection:
    """One connection to the operator; `post` opens it when there is none."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._head = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.retry_after = 0.0

    async def post(self, path: str, body: bytes, packed: bool = False) -> tuple[int, bytes]:
        """Status and body of the answer."""
        line = f"POST {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n"
        return await self._ask(line + "Content-Encoding: gzip\r\n" * packed, body)

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of the answer."""
        return await self._ask(f"GET {path} HTTP/1.1\r\n", b"")

    async def _ask(self, line: str, body: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(f"{line}{self._head}\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        asked = head.partition("retry-after:")[2].split("\r\n")[0].strip()
        self.retry_after = float(asked or 0.0)
        if "connection: close" in head:
            self._streams = None
        return int(head.split(" ", 2)[1]), await reader.readexactly(length)

    def close(self) -> None:
        """Closes it."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
