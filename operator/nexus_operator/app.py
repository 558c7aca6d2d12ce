"""The process: kopf embedded, our parts inside it, signals, exit code.

Promises exit code 0 when stopped as asked and 1 otherwise, with one line that says why. kopf ends
when a watch meets an error it does not know; what was learned is kept and it is started again.
A process that is deposed forgets what it learned, and stands by.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Any

import kopf

from nexus_api.meta import GROUP
from nexus_operator.context import Context
from nexus_operator.credentials import Credentials, load
from nexus_operator.handlers import operator_registry
from nexus_operator.kube import FIELD_MANAGER
from nexus_operator.problems import Problem
from nexus_operator.settings import Settings

log = logging.getLogger(__name__)

COLLECTOR = (5_000, 200, 100)
RESTART_SECONDS = (1.0, 2.0, 5.0, 15.0)
# Peering is off and nobody asks. Without one kopf asks for the user's name, which a pod's may lack.
NO_PEER: Any = "nexus-operator"


class Endless:
    """Pauses between retries of a request, without an end: an API server comes back."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.2, 0.5, 1.0, 2.0), itertools.repeat(3.0))


def kopf_settings() -> kopf.OperatorSettings:
    """Every setting that matters here, said explicitly."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.posting.reporting_component = FIELD_MANAGER
    settings.watching.chunk_size = 200
    settings.watching.server_timeout = 300
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = Endless()
    # Never used by low-level handlers; should kopf ever write, then not under its own names.
    settings.persistence.finalizer = f"{GROUP}/finalizer"
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    # It would SIGKILL the process some time after a watch failed, though we started another.
    settings.process.ultimate_exiting_timeout = None
    return settings


async def operate(
    settings: Settings,
    *,
    find_credentials: Callable[[], Credentials] = load,
    started: Callable[[Context], None] = lambda context: None,
) -> int:
    """Runs until stopped; returns the exit code. `started` gets the context once it exists."""
    # Counters make no cycles: a look at all of them for some would stall the loop for nothing.
    gc.set_threshold(*COLLECTOR)
    own_slot = True
    while True:
        try:
            context = Context(settings, load=find_credentials, own_slot=own_slot)
        except Problem as problem:
            log.critical("%s", problem)
            return 1
        started(context)
        await one_term(context)
        if context.failure is not None:
            log.critical("%s", context.failure)
            return 1
        if context.stopped or not context.deposed:
            log.info("stopped")
            return 0
        own_slot = False  # whoever leads now is not a process that this one replaced


async def one_term(context: Context) -> None:
    """Stands by and then leads, through as many lives of kopf as it takes."""
    catch_signals(context)
    context.elect()
    try:
        for pause in itertools.chain(RESTART_SECONDS, itertools.repeat(RESTART_SECONDS[-1])):
            await one_life(context)
            if context.stop_flag.is_set():
                return
            log.warning("watching again in %.0f s", pause)
            await asyncio.sleep(pause)
    finally:
        await context.close()


async def one_life(context: Context) -> None:
    """kopf from start to end; returns however it ended."""
    existing = asyncio.all_tasks()
    if not context.stop_flag.is_set():
        context.life_flag.clear()
    try:
        tasks = await kopf.spawn_tasks(
            registry=operator_registry(),
            settings=kopf_settings(),
            memo=context,
            standalone=True,
            identity=NO_PEER,
            clusterwide=context.settings.all_namespaces,
            namespaces=[name for name in context.namespaces if name is not None],
            stop_flag=context.life_flag,
        )
        catch_signals(context)
        await kopf.run_tasks(tasks, ignored=existing)
    except Exception as error:
        if context.failure is None and not context.stop_flag.is_set():
            log.error("the watch ended: %s", " ".join(str(error).split()) or repr(error))
            log.debug("in full", exc_info=error)
        await context.stop()


def catch_signals(context: Context) -> None:
    """SIGTERM and SIGINT stop the operator; in the place of kopf's handlers, which end one life."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, context.ask_to_stop)
