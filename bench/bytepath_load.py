"""The load of the byte-path benchmark: one request as the OpenAI SDK sends it, over and over.

`closed_loop` keeps connections busy (with wrk where it is installed, else with this module as a
process of its own); `python -m bench.bytepath_load streams PORT COUNT SECONDS` holds event streams
open, `paced PORT RATE SECONDS` asks at a steady rate. All print one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import cast

import uvloop
from bench.bytepath_backend import CHUNK, MODEL
from bench.table import percentile

CONNECTIONS = 32

# What openai 2.x for Python puts on the wire, in its order.
_HEADERS = (
    ("Accept", "application/json"),
    ("Content-Type", "application/json"),
    ("User-Agent", "OpenAI/Python 2.2.0"),
    ("X-Stainless-Lang", "python"),
    ("X-Stainless-Package-Version", "2.2.0"),
    ("X-Stainless-OS", "Linux"),
    ("X-Stainless-Arch", "x64"),
    ("X-Stainless-Runtime", "CPython"),
    ("X-Stainless-Runtime-Version", "3.12.3"),
    ("Authorization", "Bearer sk-0123456789abcdef0123456789abcdef"),
    ("X-Stainless-Async", "false"),
    ("x-stainless-retry-count", "0"),
    ("x-stainless-read-timeout", "600"),
    ("Accept-Encoding", "gzip, deflate"),
    ("Connection", "keep-alive"),
)


def body(*, size: int = 2048, stream: bool = False) -> bytes:
    """A chat request of about `size` bytes; `messages` before `model`, as the SDK writes it."""
    text = "You are a careful assistant who answers in one sentence, and says what is not known. "
    fields: dict[str, object] = {
        "messages": [
            {"role": "system", "content": (text * (size // len(text) + 1))[: max(0, size - 160)]},
            {"role": "user", "content": "What is the capital of France?"},
        ],
        "model": MODEL,
        "temperature": 0.2,
    }
    if stream:
        fields["stream"] = True
    return json.dumps(fields, separators=(",", ":")).encode()


def request(content: bytes) -> bytes:
    """The request as bytes."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in _HEADERS)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n{lines}"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(content) + content


def closed_loop(port: int, seconds: float, *, size: int, core: int | str) -> dict[str, float]:
    """Load `port`; `requests`, `errors`, `p50_ms` and `p99_ms`."""
    wrk = shutil.which("wrk")
    if wrk is not None:
        return _wrk(wrk, port, seconds, size=size, core=core)
    return run("requests", port, size, seconds, core=core)


def run(kind: str, port: int, count: int, seconds: float, *, core: int | str) -> dict[str, float]:
    """Run this module as a process on `core`; what it measured."""
    command = ["taskset", "-c", str(core), sys.executable, "-m", "bench.bytepath_load", kind]
    done = subprocess.run(
        [*command, str(port), str(count), str(seconds)], capture_output=True, text=True, check=True
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


_WRK_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def _wrk(wrk: str, port: int, seconds: float, *, size: int, core: int | str) -> dict[str, float]:
    headers = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in _HEADERS)
    script = f'wrk.method = "POST"\nwrk.body = [==[{body(size=size).decode()}]==]\n{headers}'
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        lua.write(script)
        lua.flush()
        command = ["taskset", "-c", str(core), wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s"]
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        text = subprocess.run(
            [*command, "--latency", "-s", lua.name, url], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"(\d+) requests in", text)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+)", text)
    figures = {"requests": float(found[1]) if found else 0.0}
    figures["errors"] = float(failed[1]) if failed else 0.0
    figures["errors"] += sum(map(float, broken.groups())) if broken else 0.0
    for share in ("50", "99"):
        measured = re.search(rf"{share}%\s+([\d.]+)(us|ms|s)", text)
        figures[f"p{share}_ms"] = float(measured[1]) * _WRK_UNITS[measured[2]] if measured else 0.0
    return figures


class _Loader(asyncio.Protocol):
    """One connection that asks again as soon as it is answered; counts by the answer's size."""

    def __init__(self, content: bytes, answers: list[float], errors: list[bytes]) -> None:
        self._request = request(content)
        self._answers = answers
        self._errors = errors
        self._size = 0
        self._read = 0
        self._asked = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._ask()

    def _ask(self) -> None:
        self._read = 0
        self._asked = time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._read:
            end = data.index(b"\r\n\r\n") + 4
            head = data[:end].lower()
            if not head.startswith(b"http/1.1 200"):
                self._errors.append(head)
            length = head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
            self._size = end + int(length)
        self._read += len(data)
        if self._read >= self._size:
            self._answers.append(time.perf_counter() - self._asked)
            self._ask()


async def _requests(port: int, size: int, seconds: float) -> dict[str, float]:
    answers: list[float] = []
    errors: list[bytes] = []
    loop = asyncio.get_running_loop()
    content = body(size=size)
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: _Loader(content, answers, errors), "127.0.0.1", port)
    await asyncio.sleep(seconds)
    return {
        "requests": len(answers),
        "errors": len(errors),
        "p50_ms": percentile(answers, 0.5) * 1000,
        "p99_ms": percentile(answers, 0.99) * 1000,
    }


class _Asked(asyncio.Protocol):
    """One connection that asks when it is told to, and is put back when it is answered."""

    def __init__(self, content: bytes, answers: list[float], idle: list[_Asked]) -> None:
        self._request = request(content)
        self._answers = answers
        self._idle = idle
        self._asked = 0.0
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self) -> None:
        self._got = b""
        self._asked = time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, _, content = self._got.partition(b"\r\n\r\n")
        length = head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
        if len(content) >= int(length):
            self._answers.append(time.perf_counter() - self._asked)
            self._idle.append(self)


async def _paced(port: int, rate: int, seconds: float) -> dict[str, float]:
    """`rate` requests a second, whether or not those before are answered; the first 10 % do not
    count.
    """
    loop = asyncio.get_running_loop()
    answers: list[float] = []
    idle: list[_Asked] = []
    content = body()
    for _ in range(CONNECTIONS):
        made = await loop.create_connection(
            lambda: _Asked(content, answers, idle), "127.0.0.1", port
        )
        idle.append(made[1])
    due = loop.time()
    total = int(rate * seconds)
    for _ in range(total):
        due += 1.0 / rate
        await asyncio.sleep(max(0.0, due - loop.time()))
        if idle:  # else all wait for answers: this one is not asked, and counts as an error
            idle.pop(0).ask()
    await asyncio.sleep(0.2)
    counted = answers[total // 10 :]
    return {
        "requests": len(answers),
        "errors": total - len(answers),
        "p50_ms": percentile(counted, 0.5) * 1000,
        "p99_ms": percentile(counted, 0.99) * 1000,
    }


class _Reader(asyncio.Protocol):
    """One stream: counts its events."""

    def __init__(self) -> None:
        self.events = 0
        self.first = 0.0
        self._asked = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._asked = time.perf_counter()
        cast(asyncio.Transport, transport).write(request(body(stream=True)))

    def data_received(self, data: bytes) -> None:
        count = data.count(b"data: ")
        if count and not self.events:
            self.first = time.perf_counter() - self._asked
        self.events += count


async def _streams(port: int, count: int, seconds: float) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    readers: list[_Reader] = []
    for _ in range(count):
        _, reader = await loop.create_connection(_Reader, "127.0.0.1", port)
        readers.append(reader)
    end = time.monotonic() + 45
    while not all(reader.events for reader in readers):
        if time.monotonic() > end:
            raise RuntimeError("not every stream began")
        await asyncio.sleep(0.05)
    print(json.dumps({"begun": count}), flush=True)
    before = sum(reader.events for reader in readers)
    await asyncio.sleep(seconds)
    return {"chunks": sum(reader.events for reader in readers) - before, "bytes": len(CHUNK)}


def main() -> None:
    """Be the process that `run` starts."""
    kind, port, count, seconds = sys.argv[1:]
    load = {"requests": _requests, "streams": _streams, "paced": _paced}[kind]
    print(json.dumps(uvloop.run(load(int(port), int(count), float(seconds)))))


if __name__ == "__main__":
    main()
