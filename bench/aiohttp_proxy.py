"""`python -m bench.aiohttp_proxy PORT BACKEND_PORT [...]`: what thirty lines of aiohttp make of it.

Takes turns between its backends and passes bodies on as they come. No model is looked at.
"""

from __future__ import annotations

import itertools
import sys

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

HOP_BY_HOP = frozenset(("connection", "transfer-encoding", "keep-alive", "host", "content-length"))


async def serve(port: int, backends: list[int]) -> web.Application:
    """The application; its client lives as long as it does."""
    turn = itertools.cycle(backends).__next__
    client = ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(total=600))

    async def proxy(request: web.Request) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        url = f"http://127.0.0.1:{turn()}{request.path_qs}"
        async with client.post(url, data=await request.read(), headers=headers) as answer:
            passed = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
            if "Content-Length" in answer.headers:
                return web.Response(status=answer.status, headers=passed, body=await answer.read())
            response = web.StreamResponse(status=answer.status, headers=passed)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            return response

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/{path:.*}", proxy)
    return app


if __name__ == "__main__":
    own, *others = map(int, sys.argv[1:])
    web.run_app(serve(own, others), host="127.0.0.1", port=own, access_log=None, print=None)
