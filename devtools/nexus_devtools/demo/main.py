"""The demo from command line to exit code.

Exit codes: 0 if everything the summary claims was measured, 1 if not or if something failed, 2 for
wrong usage, 130 after an interrupt. Nothing is left behind but, after a failure, the logs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import ExitStack

import httpx

from nexus_devtools.backends import ChildError
from nexus_devtools.controlplane import ControlPlaneError
from nexus_devtools.demo import interrupts, report, summary
from nexus_devtools.demo.director import Director
from nexus_devtools.demo.folder import Folder
from nexus_devtools.demo.processes import DemoError
from nexus_devtools.demo.stage import Stage, set_up, viewer_client
from nexus_devtools.demo.view import view_for

_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m nexus_devtools.demo",
        description="See the product at work on a real API server.",
    )
    parser.add_argument(
        "--keep", action="store_true", help="go on after the summary, until Ctrl-C, to try things"
    )
    options = parser.parse_args(arguments)
    interrupts.install()
    folder = Folder()
    code = [_INTERRUPTED]
    try:
        folder.create()
        _run(folder, keep=options.keep, code=code)
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted", flush=True)
    except Exception as error:
        code[0] = 1
        known = _known(error)
        if known is None:
            raise
        print(f"the demo failed: {known}", file=sys.stderr)
    finally:
        interrupts.ignore()
        if folder.remove(keep_logs=code[0] == 1):
            print(f"the logs are in {folder.path}", file=sys.stderr)
    return code[0]


def _known(error: Exception) -> Exception | None:
    """The failure that has a message for people, out of the group it may have come in."""
    if isinstance(error, ExceptionGroup):
        return next(filter(None, map(_known, error.exceptions)), None)
    return error if isinstance(error, (ControlPlaneError, ChildError, DemoError)) else None


def _run(folder: Folder, *, keep: bool, code: list[int]) -> None:
    stack = ExitStack()
    try:
        stage = set_up(stack, folder, lambda text: print(f"==> {text}", flush=True))
        asyncio.run(_direct(stage, keep=keep, code=code))
    finally:
        interrupts.ignore()
        print("\n==> stopping everything, in reverse order", flush=True)
        stack.close()


async def _direct(stage: Stage, *, keep: bool, code: list[int]) -> None:
    task = asyncio.current_task()
    assert task is not None
    async with (
        httpx.AsyncClient(trust_env=False, timeout=10) as http,
        viewer_client(stage) as api,
    ):
        with interrupts.cancelling(task):
            director = Director(stage, view_for(sys.stdout), http=http, api=api)
            await director.run()
            figures = report.figures(director)
            judged = summary.claims(figures)
            print("\n" + "\n".join(summary.lines(figures, judged)), flush=True)
            code[0] = summary.exit_code(judged)
            if keep:
                print("\n" + "\n".join(report.commands(stage)), flush=True)
                await director.keep_going()
