"""`python -m nexus_devtools.node.guarded`: a backend in a pod that wants a key.

The keys it takes are the words of a file, read anew for each request. Each key that a request
brought is printed once, and each refusal. Probes of `/health` need none. It is NOT a model: its
answer is fixed.
"""

from __future__ import annotations

import argparse
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KEYS = Path("/tmp/keys")
ANSWER = {
    "id": "guarded",
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Open sesame."},
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4},
}


class Handler(BaseHTTPRequestHandler):
    """One request; `seen` are all keys that ever came."""

    protocol_version = "HTTP/1.1"
    seen: set[str]

    def do_GET(self) -> None:
        self._answer(200, {"object": "list", "data": [{"id": "m", "object": "model"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        key = str(self.headers.get("authorization", "")).removeprefix("Bearer ")
        if key not in self.seen:
            self.seen.add(key)
            print(f"key {key}", flush=True)
        if key in KEYS.read_text().split():
            self._answer(200, ANSWER)
        else:
            print(f"refused {key}", flush=True)
            self._answer(401, {"error": {"message": "this key is not mine"}})

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing of single requests."""


def main(arguments: list[str] | None = None) -> int:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(prog="python -m nexus_devtools.node.guarded")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--key", required=True, help="the one it takes at first")
    options = parser.parse_args(arguments)
    KEYS.write_text(options.key)
    Handler.seen = set()
    ThreadingHTTPServer(("0.0.0.0", options.port), Handler).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
