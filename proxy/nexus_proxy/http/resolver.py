"""The names of backends as addresses, looked up beside the requests and remembered.

Promises that a name which ever had an address is answered from memory, whatever the resolver does
now; that names in use are looked up again every half minute; and that no more than `LOOKUPS` are
under way at once, one for each name. It opens no connection, and needs no task and no timer: ticks
tell it the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import random as chance
import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial

REFRESH_SECONDS = 30.0
JITTER = 0.2
RETRY_SECONDS = 5.0
IN_USE_SECONDS = 300.0  # a name that nobody asked for so long is left alone until somebody does
BELIEVED_SECONDS = 1.0  # how long a name is believed to have no address
SHUNNED_SECONDS = 10.0  # an address that took no connection is tried last for so long
LOOKUPS = 3

Lookup = Callable[[str], "asyncio.Future[tuple[str, ...]]"]

_log = logging.getLogger("nexus.proxy")


class Unresolved(OSError):
    """A name has no address that anybody knows of; the message says why."""


class Name:
    """One name. `known` are its addresses in the resolver's order, `recent` those of the lookup
    before, too; `why` is what the last lookup failed of, "" if it did not.
    """

    __slots__ = (
        "__weakref__",
        "_shunned",
        "_turn",
        "due",
        "fixed",
        "host",
        "known",
        "pending",
        "recent",
        "used",
        "why",
    )

    def __init__(self, host: str) -> None:
        self.host = host
        self.fixed = _is_address(host)
        self.known: tuple[str, ...] = (host,) if self.fixed else ()
        self.recent = frozenset(self.known)
        self.why = ""
        self.due = 0.0
        self.used = 0.0
        self.pending: asyncio.Future[None] | None = None
        self._turn = -1
        self._shunned: dict[str, float] = {}

    def order(self, now: float) -> tuple[str, ...]:
        """The addresses as they are to be tried: those of the resolver's first choice of family in
        turn, then the others, then those that failed just now.
        """
        known = self.known
        if len(known) < 2:
            return known
        self._turn += 1
        family = ":" in known[0]
        first = [address for address in known if (":" in address) is family]
        turn = self._turn % len(first)
        rest = [address for address in known if (":" in address) is not family]
        return tuple(
            sorted(
                (*first[turn:], *first[:turn], *rest),
                key=lambda address: self._shunned.get(address, 0.0) > now,
            )
        )

    def shun(self, address: str, now: float) -> None:
        """No connection to this address came about: others first, for a while."""
        if address in self.known and not self.fixed:
            self._shunned[address] = now + SHUNNED_SECONDS
            self.due = min(self.due, now + RETRY_SECONDS)

    def take(self, addresses: tuple[str, ...]) -> None:
        """The resolver answered."""
        self.recent = frozenset((*addresses, *self.known))
        self.known = addresses
        self._shunned = {a: until for a, until in self._shunned.items() if a in addresses}


class Resolver:
    """Looks names up for the pools that hold them; what no pool holds any more is forgotten.

    `lookup` begins a lookup of a name: a future of its addresses, best first, or of an exception.
    `told(result)` hears of each that ended, `ok` or `failed`.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        lookup: Lookup | None = None,
        random: Callable[[], float] = chance.random,
        told: Callable[[str], None] = lambda _result: None,
    ) -> None:
        self._clock = clock
        self._lookup = lookup or look_up
        self._random = random
        self._told = told
        self._names: weakref.WeakValueDictionary[str, Name] = weakref.WeakValueDictionary()
        self._queue: deque[Name] = deque()
        self._running: set[asyncio.Future[tuple[str, ...]]] = set()

    def name(self, host: str) -> Name:
        """The name of a host; an address is a name that needs no lookup."""
        found = self._names.get(host)
        if found is None:
            found = self._names[host] = Name(host)
        return found

    async def addresses(self, name: Name) -> tuple[str, ...]:
        """The addresses of a name in the order to try them: at once if there are any, else as soon
        as the resolver answers. Raises Unresolved.
        """
        now = self._clock()
        name.used = now
        if not name.known:
            await self._first(name, now)
        elif now >= name.due and not name.fixed:
            self._begin(name, urgent=False)
        return name.order(now)

    async def _first(self, name: Name, now: float) -> None:
        if name.pending is None and not (name.why and now < name.due):
            self._begin(name, urgent=True)
        if name.pending is not None:
            await asyncio.shield(name.pending)
        if not name.known:
            raise Unresolved(f"no address of {name.host}: {name.why}")

    def tick(self, now: float) -> None:
        """Look up again what is in use and due."""
        for name in list(self._names.values()):
            in_use = name.known and not name.fixed and now - name.used < IN_USE_SECONDS
            if in_use and now >= name.due:
                self._begin(name, urgent=False)

    def close(self) -> None:
        """Wait for no lookup any more: whoever waits for one hears that there is no address."""
        for lookup in tuple(self._running):
            lookup.cancel()
        while self._queue:
            self._end(self._queue.popleft(), "the proxy is stopping")

    def _begin(self, name: Name, *, urgent: bool) -> None:
        if name.pending is None:
            name.pending = asyncio.get_running_loop().create_future()
            (self._queue.appendleft if urgent else self._queue.append)(name)
            self._pump()

    def _pump(self) -> None:
        while self._queue and len(self._running) < LOOKUPS:
            name = self._queue.popleft()
            lookup = self._lookup(name.host)
            self._running.add(lookup)
            lookup.add_done_callback(partial(self._done, name))

    def _done(self, name: Name, lookup: asyncio.Future[tuple[str, ...]]) -> None:
        self._running.discard(lookup)
        if lookup.cancelled():
            self._end(name, "the proxy is stopping")
            return
        error = lookup.exception()
        if error is not None:
            self._end(name, _said(error))
        elif addresses := lookup.result():
            name.take(addresses)
            self._end(name, "")
        else:
            self._end(name, "the resolver knows the name, but no address")
        self._pump()

    def _end(self, name: Name, why: str) -> None:
        now = self._clock()
        if why and not name.why and name.known:
            _log.warning("%s: %s; its last known addresses stay in use", name.host, why)
        elif not why and name.why and name.known:
            _log.info("%s: the resolver answers again", name.host)
        name.why = why
        spread = 1 + JITTER * (2 * self._random() - 1)
        retry = RETRY_SECONDS if name.known else BELIEVED_SECONDS
        name.due = now + (retry if why else REFRESH_SECONDS) * spread
        pending, name.pending = name.pending, None
        if pending is not None and not pending.done():
            pending.set_result(None)
        self._told("failed" if why else "ok")


def look_up(host: str) -> asyncio.Future[tuple[str, ...]]:
    """Ask the system's resolver, in a thread of its own that no end of the process waits for: a
    resolver that hangs must hang nobody.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[str, ...]] = loop.create_future()

    def end(error: Exception | None, addresses: tuple[str, ...]) -> None:
        if not future.done():
            future.set_exception(error) if error else future.set_result(addresses)

    def ask() -> None:
        error: Exception | None = None
        found: tuple[str, ...] = ()
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found = tuple(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except (OSError, UnicodeError) as failed:
            error = failed
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(end, error, found)

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    return future


def _said(error: BaseException) -> str:
    detail = error.strerror if isinstance(error, OSError) else None
    return (detail or str(error) or type(error).__name__).rstrip(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
