"""``python -m nexus_devtools.backends.simulated``: a simulated backend as a process of its own.

Promises: prints ``listening on 127.0.0.1:PORT`` as its first line and ``control on 127.0.0.1:PORT``
as its second, serves until SIGTERM or SIGINT, and exits with 0. It is NOT started by the product.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from nexus_devtools.backends.app import SimulatedBackend
from nexus_devtools.backends.script import Fault, FaultKind, Script, script_from_json
from nexus_devtools.backends.simulated_process import SimulatedProcess

__all__ = ["Fault", "FaultKind", "Script", "SimulatedBackend", "SimulatedProcess", "main"]


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        script = script_from_json(options.script.encode())
    except ValueError as error:
        print(f"--script: {error}", file=sys.stderr)
        return 2
    models = [name for name in options.models.split(",") if name]
    if not models:
        print("--models: name at least one model", file=sys.stderr)
        return 2
    backend = SimulatedBackend(
        name=options.name,
        models=models,
        script=script,
        host=options.host,
        port=options.port,
        control_port=options.control_port,
    )
    try:
        asyncio.run(_serve(backend))
    except OSError as error:
        print(error.strerror, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nexus_devtools.backends.simulated",
        description="An openly simulated OpenAI-compatible backend with scripted faults.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a pod")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--control-port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--name", default="sim", help="appears in the ids of its answers")
    parser.add_argument("--models", default="sim-model", help="comma-separated model names")
    parser.add_argument("--script", default="{}", help="JSON as for POST /_script")
    return parser


async def _serve(backend: SimulatedBackend) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with backend:
        print(f"listening on {backend.url.removeprefix('http://')}")
        print(f"control on {backend.control_url.removeprefix('http://')}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
