"""An openly simulated OpenAI-compatible backend, in process.

Promises: the routes of the real APIs, the behaviour of the present ``Script``, and a ``Ledger`` of
what was seen; ``POST /_script`` and ``GET /_seen`` do from outside what the object does in process.
They answer on the backend's own port and, also while that refuses, on the control port. It is NOT
for production, and says so in every answer (``server: nexus-simulated``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web

from nexus_devtools.backends import answers, events
from nexus_devtools.backends.answers import Answer, Json
from nexus_devtools.backends.delivery import Plan, deliver, json_response
from nexus_devtools.backends.events import Stream
from nexus_devtools.backends.ledger import Ledger, Seen
from nexus_devtools.backends.listener import Listener
from nexus_devtools.backends.script import Dice, Script, script_from_json, script_to_json

_MAX_BODY = 64 * 1024 * 1024
_WHOLE: dict[str, Callable[[Answer], Json]] = {
    "/v1/chat/completions": answers.chat,
    "/v1/completions": answers.completion,
    "/v1/responses": answers.response,
}
_STREAM: dict[str, Callable[[Answer, Json], Stream]] = {
    "/v1/chat/completions": events.chat,
    "/v1/completions": events.completion,
    "/v1/responses": events.response,
}


class SimulatedBackend:
    """``async with SimulatedBackend(name="sim-a", models=["m"]) as b``: then ``b.url`` serves."""

    def __init__(
        self,
        *,
        name: str = "sim",
        models: Sequence[str] = ("sim-model",),
        script: Script | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        control_port: int = 0,
    ) -> None:
        self.name = name
        self.models = tuple(models)
        self._script = script or Script()
        self._dice = Dice(self._script)
        self._ledger = Ledger(name)
        self._created = int(time.time())
        self._number = 0
        self._where = (host, port, control_port)
        self._runner = web.AppRunner(
            self._application(), handler_cancellation=True, access_log=None, shutdown_timeout=0.2
        )

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        host, port, control_port = self._where
        self._main = Listener(self._counting(server), host=host, port=port)
        self._control = Listener(server, host=host, port=control_port)
        self._control.open()
        self.apply(self._script)
        await self._control.opened()
        await self._main.opened()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._main.release()
        self._control.release()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Base URL without ``/v1``, for example ``http://127.0.0.1:41234``."""
        return f"http://{self._main.host}:{self._main.port}"

    @property
    def control_url(self) -> str:
        """Where ``/_script`` and ``/_seen`` answer even while the backend refuses connections."""
        return f"http://{self._control.host}:{self._control.port}"

    @property
    def script(self) -> Script:
        """The script in force; setting it takes effect at once."""
        return self._script

    @script.setter
    def script(self, script: Script) -> None:
        self.apply(script)

    def seen(self) -> Seen:
        """What was seen so far."""
        return self._ledger.snapshot()

    async def until(self, holds: Callable[[Seen], bool], *, seconds: float = 5.0) -> Seen:
        """Wait until this holds of what was seen, else raise ``TimeoutError``."""
        async with asyncio.timeout(seconds):
            while not holds(seen := self.seen()):
                self._ledger.changed.clear()
                await self._ledger.changed.wait()
        return seen

    def apply(self, script: Script, *, asking: asyncio.BaseTransport | None = None) -> None:
        """Behave like this from now on; answers already begun go on under the old script.

        Under a refusing script all connections are closed, but for the one that is ``asking``.
        """
        self._script = script
        self._dice = Dice(script)
        self._ledger.mark_script()
        if not script.refuses:
            self._main.open()
            return
        self._main.close()
        for connection in self._runner.server.connections if self._runner.server else ():
            transport = connection.transport
            if transport is None or transport is asking:
                continue
            if transport.get_extra_info("sockname")[1] == self._main.port:
                transport.abort()

    def _counting(self, server: web.Server) -> Callable[[], asyncio.Protocol]:
        def accept() -> asyncio.Protocol:
            self._ledger.connection()
            return server()

        return accept

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=_MAX_BODY)
        application.add_routes(
            [
                web.get("/health", self._health),
                web.get("/v1/models", self._list_models),
                web.get("/v1/models/{model:.+}", self._one_model),
                web.post("/v1/embeddings", self._infer),
                web.get("/_script", self._get_script),
                web.post("/_script", self._set_script),
                web.get("/_seen", self._get_seen),
                *(web.post(path, self._infer) for path in _WHOLE),
            ]
        )
        return application

    async def _health(self, request: web.Request) -> web.StreamResponse:
        self._ledger.path(request.method, request.path)
        status = self._script.health_status
        return json_response({"status": "ok" if status < 400 else "error"}, status=status)

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        self._ledger.path(request.method, request.path)
        return json_response(answers.models(self.models, created=self._created))

    async def _one_model(self, request: web.Request) -> web.StreamResponse:
        self._ledger.path(request.method, request.path)
        name = request.match_info["model"]
        if name not in self.models:
            return self._unknown(name)
        return json_response(answers.model(name, created=self._created))

    async def _get_script(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(body=script_to_json(self._script), content_type="application/json")

    async def _set_script(self, request: web.Request) -> web.StreamResponse:
        try:
            script = script_from_json(await request.read())
        except ValueError as error:
            return json_response(
                answers.error(str(error), kind="invalid_request_error"), status=400
            )
        self.apply(script, asking=request.transport)
        return await self._get_script(request)

    async def _get_seen(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(body=msgspec.json.encode(self.seen()), content_type="application/json")

    async def _infer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self._ledger.path(request.method, request.path)
        self._ledger.began(request.path, request.headers.items(), raw)
        aborted = True
        try:
            response = await self._answer(request, raw)
            aborted = False
            return response
        finally:
            # Left by cancellation or a failed write: the client has gone.
            self._ledger.ended(aborted=aborted)

    async def _answer(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        asked = _decoded(raw)
        if asked is None:
            text = "the body must be a JSON object with a string member model"
            return json_response(answers.error(text, kind="invalid_request_error"), status=400)
        model = asked["model"]
        self._ledger.addressed(model)
        if model not in self.models:
            return self._unknown(model)
        fault = self._dice.draw(model)
        if fault is not None:
            self._ledger.struck(fault.kind.value)
        plan = Plan(script=self._script, fault=fault, **self._say(request.path, asked))
        return await deliver(request, plan)

    def _say(self, path: str, asked: Json) -> dict[str, Any]:
        if path not in _WHOLE:
            return {"whole": answers.embeddings(asked), "stream": None}
        self._number += 1
        answer = answers.compose(
            asked,
            number=self._number,
            backend=self.name,
            created=int(time.time()),
            tokens=self._script.tokens,
        )
        if asked.get("stream") is True:
            return {"whole": {}, "stream": _STREAM[path](answer, asked)}
        return {"whole": _WHOLE[path](answer), "stream": None}

    def _unknown(self, model: str) -> web.Response:
        text = f"model {model!r} does not exist here: this backend has {', '.join(self.models)}"
        error = answers.error(text, kind="invalid_request_error", code="model_not_found")
        return json_response(error, status=404)


def _decoded(raw: bytes) -> Json | None:
    try:
        asked = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return None
    return asked if isinstance(asked, dict) and isinstance(asked.get("model"), str) else None
