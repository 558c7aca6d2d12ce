"""`python -m bench scale`: what a thousand backends and a thousand reporters cost the operator.

Over connections, against a fake API server, in real time; `--real`: against a real one, with its
own counts of what was written; `--cpu`: in one process on simulated time, for a machine that others
use as well; `--phases`: where a report's time goes between the connection and its answer.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Sequence

from bench.scale import phases
from bench.scale.cost import costs
from bench.scale.plan import Size
from bench.scale.run import Times, measure


def main(arguments: Sequence[str] = ()) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench scale", description=__doc__)
    parser.add_argument("--backends", type=int, default=1000)
    parser.add_argument("--reporters", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second per reporter")
    parser.add_argument("--history", type=float, default=600.0, help="seconds before the start")
    parser.add_argument("--settle", type=float, default=75.0, help="seconds before it is quiet")
    parser.add_argument("--quiet", type=float, default=60.0, help="seconds of the quiet phase")
    parser.add_argument("--storm", type=float, default=30.0, help="seconds of the storm")
    parser.add_argument("--real", action="store_true", help="on a real API server")
    parser.add_argument("--no-store", action="store_true", help="counters in memory alone")
    parser.add_argument("--cpu", action="store_true", help="CPU time alone, in one process")
    parser.add_argument("--phases", action="store_true", help="CPU time of a report by phase")
    given = parser.parse_args(arguments)
    size = Size(
        backends=given.backends, reporters=given.reporters, rate=given.rate, history=given.history
    )
    if given.phases:
        asyncio.run(phases.measure(size))
        return 0
    if given.cpu:
        costs(size, quiet=int(given.quiet) // 3, storm=int(given.storm) // 3)
        return 0
    logging.getLogger("nexus.proxy").setLevel(logging.ERROR)
    times = Times(settle=given.settle, quiet=given.quiet, storm=given.storm)
    asyncio.run(measure(size, times, real=given.real, store=not given.no_store))
    return 0
