"""`python -m nexus_devtools.conformance`: what both proxies do in every case, one line each.

A line is `statuses end, requests at the backend, what was looked at`; a case that does not do as
recorded is marked, and makes the exit code 1.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import uvloop

from nexus_devtools.conformance.case import Case
from nexus_devtools.conformance.oracle import find_nginx
from nexus_devtools.conformance.sides import against_nginx, against_proxy
from nexus_devtools.conformance.tables import TABLES


async def _both(case: Case, nginx: str | None, *, record: bool) -> tuple[str, str | None]:
    proxy = await against_proxy(case, record=record)
    if nginx is None:
        return proxy, None
    with tempfile.TemporaryDirectory() as folder:
        return proxy, await against_nginx(case, nginx, Path(folder), record=record)


async def _main(words: list[str], *, record: bool) -> int:
    nginx = find_nginx()
    wrong = 0
    for table, cases in TABLES.items():
        for case in cases:
            if words and not any(word in f"{table}: {case.name}" for word in words):
                continue
            proxy, oracle = await _both(case, nginx, record=record)
            right = proxy == case.proxy and oracle in (None, *case.recorded_of_nginx)
            wrong += not right
            print(f"{' ' if right else '!'} {table}: {case.name}\n      proxy {proxy}")
            if oracle != proxy:
                print(f"      nginx {oracle or 'NOT RUN: it is not installed'}  {case.why}")
    print(f"{wrong} not as recorded")
    return 1 if wrong else 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    record = "--as-it-comes" in arguments
    words = [word for word in arguments if word != "--as-it-comes"]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(_main(words, record=record)))
