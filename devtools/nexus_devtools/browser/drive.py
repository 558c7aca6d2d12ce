"""A browser as a test drives it: over the Chrome DevTools Protocol, with waits on conditions.

Promises a fresh profile, an end of all its processes with the test, keys as a keyboard sends them,
and every error that the console, an exception or the browser's own log shows. It is NOT a general
driver: what the tests of one page need, and no more.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from nexus_devtools.browser.chromium import BrowserError, Chromium

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--no-zygote",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-port=0",
)
START_SECONDS = 30.0
ANSWER_SECONDS = 20.0
WAIT_SECONDS = 15.0
KEYS = {
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, ""),
    "Tab": ("Tab", 9, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
    "ArrowUp": ("ArrowUp", 38, ""),
    "Home": ("Home", 36, ""),
    "End": ("End", 35, ""),
}


class Tab:
    """One page of the browser; `errors`: those it showed so far, `requests`: what it asked for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._session: str | None = None
        self.errors: list[str] = []
        self.requests: list[str] = []

    async def open(self) -> None:
        """A new page, watched from the start."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.size(1360, 860)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; BrowserError with its message if it fails."""
        number = next(self._numbers)
        told: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            told["sessionId"] = self._session
        answered = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self._socket.send_json(told)
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await answered
        finally:
            del self._waiting[number]
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def listen(self) -> None:
        """Takes answers and events until the browser ends."""
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                waiting = self._waiting.get(told["id"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(told)
            else:
                self._note(told["method"], told.get("params", {}))

    def _note(self, method: str, told: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(each.get("value")) for each in told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])

    async def goto(self, url: str) -> None:
        """Loads an address."""
        found = await self.call("Page.navigate", url=url)
        if "errorText" in found:
            raise BrowserError(f"{url}: {found['errorText']}")
        await self.until("document.readyState === 'complete'")

    async def size(self, width: int, height: int) -> None:
        """The window's."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    async def prefer(self, scheme: str) -> None:
        """What the system says it prefers, `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, as the protocol has it: CSP does not apply."""
        found = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            said = details.get("exception", {}).get("description", details["text"])
            raise BrowserError(f"{expression}: {said}")
        return found["result"].get("value")

    async def until(self, expression: str, *, seconds: float = WAIT_SECONDS) -> Any:
        """Waits until an expression is true; AssertionError with its last value if it is late."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not (found := await self.run(expression)):
            if loop.time() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {expression} (is {found!r})")
            await asyncio.sleep(0.05)
        return found

    async def press(self, key: str) -> None:
        """A key of the keyboard, down and up."""
        name, code, text = KEYS[key] if key in KEYS else (key, ord(key.upper()), key)
        told = {"key": name, "windowsVirtualKeyCode": code}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **told)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    async def type(self, text: str) -> None:
        """One key after the other."""
        for key in text:
            await self.press(key)

    async def picture(self, path: Path) -> None:
        """Writes a PNG of the window."""
        found = await self.call("Page.captureScreenshot", format="png", optimizeForSpeed=False)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(found["data"]))


@asynccontextmanager
async def browsing(chromium: Chromium) -> AsyncIterator[Tab]:
    """A running browser with one page."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            chromium.program,
            *FLAGS,
            f"--user-data-dir={profile}",
            "about:blank",
            env=chromium.environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                address = await _address(process)
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(address, max_msg_size=0) as socket,
            ):
                tab = Tab(socket)
                listening = asyncio.create_task(tab.listen())
                await tab.open()
                yield tab
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.communicate()


async def _address(process: asyncio.subprocess.Process) -> str:
    """Where it can be driven, as it says when it starts."""
    said = []
    assert process.stderr is not None
    async for line in process.stderr:
        said.append(line.decode(errors="replace").strip())
        if found := re.search(r"ws://127\.0\.0\.1\S+", said[-1]):
            return found[0]
    raise BrowserError(f"Chromium did not start: {' '.join(said)[-400:] or 'it said nothing'}")
