"""Leadership of one operator: takes the Lease, renews it, stands by, steps down, releases.

Promises that `time_left` is positive only while nobody else can have the lease, so what asks it
before it writes is fenced; that a leader which could not renew goes on under the same tenure if the
lease is still its own, and tells `resumed` how many seconds it could not write for; and that it
calls `deposed`, once, if the lease is another's. Each change is one log line.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import httpx

from nexus_operator.candidate import stamp
from nexus_operator.kube import ApiError, Kube
from nexus_operator.lease import (
    LEASE_NAME,
    RENEW_DEADLINE_SECONDS,
    Move,
    Sighting,
    decide,
    held,
    next_look,
    read,
    released,
    sight,
)
from nexus_operator.preflight import explained
from nexus_operator.problems import Problem, namespace_missing

log = logging.getLogger(__name__)

ATTEMPT_SECONDS = 4.0
OUTSIDE_NAMESPACE = "nexus-system"
NOT_FOUND = 404
CONFLICT = 409


class Leader:
    """One candidate. `identity` is asked when the election begins; `monotonic` is its clock."""

    def __init__(
        self,
        *,
        kube: Kube,
        identity: Callable[[], str],
        deposed: Callable[[], None],
        resumed: Callable[[float], None] = lambda seconds: None,
        own_slot: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._identity = identity
        self._deposed, self._resumed = deposed, resumed
        self._own_slot = own_slot
        self._now = monotonic
        self._me = ""
        self._begun = asyncio.Event()
        self._elected = asyncio.Event()
        self._tenure: int | None = None
        self._renewed = 0.0
        self._fenced = False
        self._trouble = ""
        self._said = ""
        self._seen: Sighting | None = None
        inside = kube.credentials.in_cluster
        self._namespace = kube.credentials.namespace if inside else OUTSIDE_NAMESPACE

    @property
    def time_left(self) -> float:
        """Seconds for which this process may write; 0 if it may not."""
        if self._tenure is None:
            return 0.0
        return max(0.0, self._renewed + RENEW_DEADLINE_SECONDS - self._now())

    @property
    def leading(self) -> bool:
        """Whether this process leads."""
        return self.time_left > 0

    @property
    def problem(self) -> str | None:
        """Why it does not lead, in one line; None if it does."""
        if self.leading:
            return None
        if self._tenure is not None:
            return (
                f"the lease {self._lease} was not renewed in time: nothing is written until it is"
            )
        if self._trouble:
            return self._trouble
        holder = self._seen.record.holder if self._seen else ""
        if not holder:
            return f"starting: it is not known yet who holds the lease {self._lease}"
        return f"standing by: {holder} leads"

    async def elected(self) -> None:
        """Enters the election, and returns once this process leads (or led, and may again)."""
        self._begun.set()
        await self._elected.wait()

    async def run(self) -> None:
        """Takes part until cancelled, or until another leads in the place of this process."""
        await self._begun.wait()
        self._me = self._identity()
        while True:
            healthy = await self._attempt()
            if self._elected.is_set() and self._tenure is None:
                return
            self._fence()
            leading = self._tenure is not None
            pause = next_look(self._seen, leading=leading, healthy=healthy, now=self._now())
            await asyncio.sleep(min(pause, self.time_left) if self.leading else pause)

    async def release(self) -> None:
        """Gives the lease up at once, if it is held: only after the last write."""
        tenure, self._tenure = self._tenure, None
        if tenure is None:
            return
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                stored = await self._kube.get_lease(self._namespace, LEASE_NAME)
                record = read(stored)
                if (record.holder, record.transitions) == (self._me, tenure):
                    stored["spec"] = released(stored["spec"], stamp=stamp())
                    await self._kube.put_lease(self._namespace, LEASE_NAME, stored)
        except (ApiError, httpx.HTTPError, TimeoutError) as error:
            log.warning("the lease %s was not released: %s", self._lease, str(error) or "no answer")
        else:
            log.info("the lease %s is released", self._lease)

    @property
    def _lease(self) -> str:
        return f"{self._namespace}/{LEASE_NAME}"

    async def _attempt(self) -> bool:
        """One look and what follows from it; False if the API server could not be asked."""
        limit = min(ATTEMPT_SECONDS, self.time_left) if self.leading else ATTEMPT_SECONDS
        try:
            async with asyncio.timeout(limit):
                await self._look()
        except ApiError as error:
            if error.status != CONFLICT:  # somebody was faster: the next look tells who
                self._cannot(error)
            return False
        except (httpx.HTTPError, TimeoutError) as error:
            self._cannot(error)
            return False
        self._trouble = ""
        return True

    async def _look(self) -> None:
        stored = await self._stored()
        self._seen = sight(self._seen, read(stored), self._now())
        move = decide(
            self._seen,
            me=self._me,
            tenure=self._tenure,
            own_slot=self._own_slot,
            now=self._now(),
        )
        if move is Move.LOST:
            self._step_down()
        elif move is Move.WAIT:
            self._stand_by(self._seen.record.holder)
        else:
            await self._hold(stored, self._seen, move)

    async def _stored(self) -> dict[str, Any]:
        """The Lease; created empty where there is none, which any number of candidates may do."""
        try:
            return await self._kube.get_lease(self._namespace, LEASE_NAME)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
        return await self._kube.create_lease(self._namespace, LEASE_NAME)

    async def _hold(self, stored: dict[str, Any], seen: Sighting, move: Move) -> None:
        """Writes the Lease as it was read, or not at all: resourceVersion sees to that."""
        transitions = seen.record.transitions + (move is Move.TAKE)
        spec = stored.get("spec") or {}
        stored["spec"] = held(spec, me=self._me, transitions=transitions, stamp=stamp())
        sent = self._now()  # before the write: others count from after it
        await self._kube.put_lease(self._namespace, LEASE_NAME, stored)
        away = self._now() - (self._renewed + RENEW_DEADLINE_SECONDS)
        self._renewed, self._tenure = sent, transitions
        if move is Move.RENEW and away > 0:
            self._resumed(away)
        if move is Move.TAKE:
            before = seen.record.holder
            place = f" in the place of {before}" if before else ""
            log.info("leading: %s holds the lease %s%s", self._me, self._lease, place)
        elif self._fenced:
            log.info("leading again: the lease %s is renewed, and statuses written", self._lease)
        self._fenced = False
        self._elected.set()

    def _step_down(self) -> None:
        assert self._seen is not None
        self._tenure = None
        other = self._seen.record.holder or "nobody"
        log.warning("stepping down: %s holds the lease %s now", other, self._lease)
        self._deposed()

    def _fence(self) -> None:
        """Says, once, that the deadline is over; `time_left` has stopped all writing before."""
        if self._tenure is None or self.leading or self._fenced:
            return
        self._fenced = True
        log.warning(
            "not leading: the lease %s could not be renewed for %.0f s (%s); "
            "nothing is written until it is",
            self._lease,
            RENEW_DEADLINE_SECONDS,
            self._trouble or "no answer",
        )

    def _cannot(self, error: Exception) -> None:
        if isinstance(error, ApiError) and error.status == NOT_FOUND:
            problem: Problem = namespace_missing(self._namespace)
        else:
            resource = "leases.coordination.k8s.io"
            verb = "get, create and update"
            problem = explained(
                self._kube, error, verb=verb, resource=resource, namespace=self._namespace
            )
        self._trouble = str(problem)
        if self._tenure is None and self._said != self._trouble:
            self._said = self._trouble
            log.error("%s; trying again", self._trouble)

    def _stand_by(self, holder: str) -> None:
        line = f"standing by: {holder} leads"
        if line != self._said:
            self._said = line
            log.info("%s", line)
