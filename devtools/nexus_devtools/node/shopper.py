"""`python -m nexus_devtools.node.shopper`: an application's requests, from inside its pod.

Asks `$OPENAI_BASE_URL` at a steady rate for so many seconds, each request on its own thread so that
one that hangs delays no other, and prints one JSON object: answers by status, by backend, and what
was no answer. It never retries: what a client would see is what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One request: a status or what went wrong, who served it."""

    what: str
    backend: str


def main(arguments: list[str] | None = None) -> int:
    """Always 0: the summary says how it went."""
    parser = argparse.ArgumentParser(prog="python -m nexus_devtools.node.shopper")
    parser.add_argument("--url", default=os.environ.get("OPENAI_BASE_URL", ""))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second")
    parser.add_argument("--model", default="m")
    options = parser.parse_args(arguments)
    body = {"model": options.model, "messages": [{"role": "user", "content": "Still there?"}]}
    url = f"{options.url}/chat/completions"
    seen = _shop(url, body, total=int(options.seconds * options.rate), pause=1 / options.rate)
    statuses = Counter(each.what for each in seen)
    backends = Counter(each.backend for each in seen if each.backend)
    print(json.dumps({"statuses": statuses, "backends": backends}))
    return 0


def _shop(url: str, body: dict[str, object], *, total: int, pause: float) -> list[Seen]:
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
    with (
        httpx.Client(timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False) as client,
        ThreadPoolExecutor(max_workers=64) as pool,
    ):
        asked = []
        began = time.monotonic()
        for number in range(total):
            time.sleep(max(0.0, began + number * pause - time.monotonic()))
            asked.append(pool.submit(_ask, client, url, body))
        return [each.result() for each in asked]


def _ask(client: httpx.Client, url: str, body: dict[str, object]) -> Seen:
    try:
        response = client.post(url, json=body)
    except httpx.HTTPError as error:
        return Seen(repr(error), "")
    return Seen(str(response.status_code), response.headers.get("x-nexus-backend", ""))


if __name__ == "__main__":
    sys.exit(main())
