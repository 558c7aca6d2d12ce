"""The one question the byte path asks: where does this request go?

`Router.choose` answers for a first attempt, `Router.again` after a failed one, `Router.resume` for
one that waited: each with a `Choice`, with a `Wait` for what must happen first, or with the
`Rejection` to send to the client. None of them does I/O or waits. The pipeline runs once
per change of the table or of a standing (`plan`), not once per request.
"""

from __future__ import annotations

import random as chance
from collections.abc import Callable
from typing import Protocol

from nexus_proxy.counters import Counters
from nexus_proxy.routing.candidate import Candidate
from nexus_proxy.routing.choice import FAILOVER, RECOVERY_PROBE, Choice
from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.routing.journal import Journal
from nexus_proxy.routing.leg import Surroundings
from nexus_proxy.routing.plan import Plan, Route
from nexus_proxy.routing.reason import Reason, Rejection
from nexus_proxy.routing.refusal import (
    incapable,
    model_not_found,
    no_backend,
    not_ready,
    not_served,
    retries_spent,
)
from nexus_proxy.routing.request import Call
from nexus_proxy.routing.retry import RetryBudget
from nexus_proxy.routing.table import Table
from nexus_proxy.routing.tiers import LAST_RESORT as LAST_RESORT_TIERS
from nexus_proxy.routing.tiers import ORDINARY, Asking, probe
from nexus_proxy.routing.wait import Wait, WaitKey, key_of, wait_of

__all__ = ["Choice", "Reason", "Rejection", "Router", "Routing", "Wait"]


class Routing(Protocol):
    """What the byte path needs of a router (`Router` below is the one there is)."""

    @property
    def ready(self) -> bool: ...

    def choose(self, call: Call, now: float) -> Choice | Wait | Rejection: ...

    def again(
        self, call: Call, now: float, *, first_retry_free: bool
    ) -> Choice | Wait | Rejection: ...

    def models(self) -> bytes: ...


class Router:
    """Routes the calls of one proxy by the table installed last."""

    def __init__(
        self,
        *,
        random: Callable[[], float] = chance.random,
        counters: Counters | None = None,
        journal: Journal | None = None,
        retries: RetryBudget | None = None,
    ) -> None:
        self.journal = journal or Journal()
        self.counters = counters or Counters()
        self.table = Table()
        self.ready = False
        self.version = 0
        self.woken: Callable[[], None] = _nobody
        self._random = random
        self._turns: dict[str, int] = {}
        self._retries = retries or RetryBudget()
        self._routes: dict[str, Route] = {}
        self._plans: dict[tuple[str, int, bool, Endpoint], Plan] = {}  # where no length matters
        self._surroundings = self._surround()

    def install(self, table: Table) -> None:
        """Route by this table from now on."""
        self.table = table
        self.ready = True
        self.version += 1
        self._surroundings = self._surround()
        self.invalidate()

    def invalidate(self) -> None:
        """Forget every plan: a standing changed."""
        self._routes.clear()
        self._plans.clear()
        self.woken()

    def _surround(self) -> Surroundings:
        return Surroundings(self.table.rules, self.journal, self._random, self._turns)

    def plan(self, call: Call) -> Plan | Rejection:
        """The plan of a call's kind, or why no candidate could ever serve it."""
        route = self._routes.get(call.model)
        if route is None:
            if not self.ready:
                return not_ready()
            route = Route(call.model, self.table)
            if not route.models:
                return model_not_found(call.model, self.table.names(), self.table.undiscovered())
            self._routes[call.model] = route
        plan = route.plan(call, self.table, self._surroundings)
        return incapable(call.model, plan) if plan.missing and plan.incapable else plan

    def choose(self, call: Call, now: float) -> Choice | Wait | Rejection:
        """Where the first attempt goes."""
        kind = call.model, call.needs, call.flexible, call.endpoint
        plan = self._plans.get(kind)
        if plan is None:
            found = self.plan(call)
            if isinstance(found, Rejection):
                return self._rejected(found)
            plan = found
            if not self._routes[call.model].lengths:
                self._plans[kind] = plan
        self._retries.attempt(now)
        leg = plan.legs[0]
        leg.settle(now)
        if leg.plain:
            choice = leg.pick(now)
            if choice is not None:
                return choice
        return self._search(call, plan, now, first=True)

    def again(self, call: Call, now: float, *, first_retry_free: bool) -> Choice | Wait | Rejection:
        """Where the next attempt goes, after those in `call.tried` failed.

        `first_retry_free`: the failure was a connect error or came within a second, so that the
        first retry does not draw on the retry budget.
        """
        plan = self.plan(call)
        if isinstance(plan, Rejection):
            return self._rejected(plan)
        if len(call.tried) > self.table.rules.max_retries:
            return self._rejected(retries_spent(call, "maxRetries of the RoutingPolicy is reached"))
        free = first_retry_free and len(call.tried) == 1
        if not free and not self._retries.allows(now):
            self.counters.retries_refused += 1
            return self._rejected(retries_spent(call, "this proxy's retry budget is spent"))
        for leg in plan.legs:
            leg.settle(now)
        choice = self._search(call, plan, now, first=False)
        if isinstance(choice, Choice):
            self._retries.attempt(now)
        return choice

    def resume(self, call: Call, now: float) -> Choice | Wait | Rejection:
        """Where a call goes that has waited, if there is a place for it now."""
        plan = self.plan(call)
        if isinstance(plan, Rejection):
            return self._rejected(plan)
        for leg in plan.legs:
            leg.settle(now)
        # It was counted for all that the verdict keeps out when it came, and draws no probe.
        choice = self._search(call, plan, now, first=False)
        if call.tried and isinstance(choice, Choice):
            self._retries.attempt(now)
        return choice

    def _search(
        self, call: Call, plan: Plan, now: float, *, first: bool
    ) -> Choice | Wait | Rejection:
        tried = _tried(call)
        asking = Asking(now, self._random, call.model, tried)
        choice = self._ordinary(plan, asking, first=first)
        if choice is None or choice.last_resort:
            # A wait for a backend that is well comes before one on probation, not drawn.
            wait = self.wait(call, plan, now, probation=choice is None)
            if wait is not None:
                return wait
            choice = choice or self._last_resort(plan, asking)
        if choice is None:
            return self._rejected(no_backend(call, plan, now))
        self.counters.fallbacks += choice.fallback_model is not None
        if call.tried and not choice.last_resort:
            return choice.marked(FAILOVER)
        return choice

    def _ordinary(self, plan: Plan, asking: Asking, *, first: bool) -> Choice | None:
        for leg in plan.legs:
            if first:
                leg.settle(asking.now)
                drawn = probe(leg, asking)
                if drawn is not None:
                    self.counters.probes += 1
                    return leg.choice(drawn, asking.requested).marked(RECOVERY_PROBE, probe=True)
            for tier in ORDINARY:
                choice = tier(leg, asking)
                if choice is not None:
                    return choice
        return None

    def _last_resort(self, plan: Plan, asking: Asking) -> Choice | None:
        # On another backend where there is one; only then once more on the same.
        for repeat in (False, True) if asking.tried else (False,):
            asking.repeat = repeat
            for leg in plan.legs:
                for tier in LAST_RESORT_TIERS:
                    choice = tier(leg, asking)
                    if choice is not None:
                        self.counters.last_resorts += 1
                        return choice
        return None

    def wait(self, call: Call, plan: Plan, now: float, *, probation: bool = True) -> Wait | None:
        """What a call that no candidate takes now should wait for, if it should; `probation`: also
        for a backend on probation.
        """
        queue = self.table.rules.queue
        if not queue.enabled:
            return None
        return wait_of(
            call,
            plan,
            now,
            _tried(call),
            probation=probation,
            max_size=queue.max_size,
            max_wait_seconds=float(queue.max_wait_seconds),
        )

    def behind(self, call: Call, choice: Choice) -> Wait:
        """To wait for a place that is there, because others came first."""
        queue = self.table.rules.queue
        return Wait(
            self.key(call),
            frozenset((choice.candidate.backend,)),
            free=True,
            max_size=queue.max_size,
            max_wait_seconds=float(queue.max_wait_seconds),
        )

    def key(self, call: Call) -> WaitKey:
        """What the call has in common with others that may go to the same places."""
        plan = self.plan(call)
        if isinstance(plan, Rejection):
            return call.model, -1, ()
        return key_of(call, plan, _tried(call))

    def refuse(self, call: Call, now: float, why: str, retry_after: float) -> Rejection:
        """The rejection of a call that cannot wait, or not any longer."""
        plan = self.plan(call)
        if isinstance(plan, Rejection):
            return self._rejected(plan)
        return self._rejected(not_served(call, plan, now, why=why, retry_after=retry_after))

    def _rejected(self, rejection: Rejection) -> Rejection:
        exclusions = self.counters.exclusions
        for reason in rejection.reasons:
            exclusions[reason.reconciler] = exclusions.get(reason.reconciler, 0) + 1
        return rejection

    def models(self) -> bytes:
        """The body of GET /v1/models."""
        return self.table.models_body()


def _tried(call: Call) -> list[Candidate]:
    """The candidates that are not to be tried again."""
    if not call.tried:
        return []
    waiter = call.waiter
    forgiven = waiter.forgiven if waiter is not None and waiter.ticket else ()
    return [choice.candidate for choice, _ in call.tried if choice.candidate not in forgiven]


def _nobody() -> None:
    """Nobody waits to be woken."""
