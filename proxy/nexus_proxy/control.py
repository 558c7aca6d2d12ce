"""From objects to decisions: feeds the monitor with verdicts and policies, and the router with
tables.

`Control.apply` is called with all objects after any of them changed; it is the only place that
installs a table. Where the objects come from (the API server, files) and where a verdict comes from
(a status, an engine in process) is handed in. It fetches and sends nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nexus_api import BudgetState, LLMBackend, QualityPolicy, RoutingPolicy
from nexus_api.fingerprint import verdict_fingerprint
from nexus_proxy.clock import boot_clock
from nexus_proxy.pricing.limits import Limits, budget_stats, limits
from nexus_proxy.routing.live import LiveBackends
from nexus_proxy.routing.router import Router
from nexus_proxy.routing.rules import compile_rules, in_force
from nexus_proxy.routing.table import Table
from nexus_quality.attempt import PACE_SECONDS
from nexus_quality.monitor import Monitor
from nexus_quality.policy import DEFAULT_POLICY, Policy, policy_from_spec, resolve
from nexus_quality.shared import SharedVerdict, shared_from_status
from nexus_quality.spend import Spending
from nexus_quality.subject import Subject

if TYPE_CHECKING:
    from nexus_proxy.kube.client import ServerClock

_log = logging.getLogger("nexus.proxy")

Shared = Callable[[LLMBackend, Policy, float], SharedVerdict]
LimitsOf = Callable[[RoutingPolicy | None, Spending, str], Limits]


@dataclass(frozen=True, slots=True)
class Objects:
    """All objects of the proxy's namespace at one moment."""

    backends: tuple[LLMBackend, ...] = ()
    quality_policies: tuple[QualityPolicy, ...] = ()
    routing_policies: tuple[RoutingPolicy, ...] = ()


def shared_by_status(server_clock: ServerClock) -> Shared:
    """Verdicts as the operator published them, their times compared by the API server's clock."""

    def shared(backend: LLMBackend, policy: Policy, now: float) -> SharedVerdict:
        return shared_from_status(
            backend.status,
            server_time=server_clock.at(now),
            now=now,
            max_exclusion_seconds=policy.max_exclusion_seconds,
        )

    return shared


class Control:
    """Keeps monitor and router in step with the objects."""

    def __init__(
        self,
        *,
        monitor: Monitor,
        router: Router,
        live: LiveBackends,
        shared: Shared,
        utc_month: Callable[[], str] = lambda: time.strftime("%Y-%m", time.gmtime()),
        clock: Callable[[], float] = boot_clock,
        limits_of: LimitsOf = limits,
    ) -> None:
        self.objects = Objects()
        self.policies: dict[str, Policy] = {}
        self._monitor = monitor
        self._router = router
        self._live = live
        self._shared = shared
        self._utc_month = utc_month
        self._clock = clock
        self._limits_of = limits_of
        self.budget = BudgetState.NORMAL
        monitor.spending.alarmed = self.overspent
        self._configured: dict[str, tuple[LLMBackend, Policy]] = {}

    def apply(self, objects: Objects, now: float) -> None:
        """Take in all objects as they are now."""
        self.objects = objects
        self.policies = {
            backend.metadata.uid: _policy(backend, objects.quality_policies)
            for backend in objects.backends
        }
        for uid in self._configured.keys() - self.policies.keys():
            del self._configured[uid]
            self._monitor.forget(uid)
        for backend in objects.backends:
            known = self._configured.get(backend.metadata.uid)
            if known is None or (backend, self.policies[backend.metadata.uid]) != known:
                self.configure(backend, now)
        self.reinstall()

    def configure(self, backend: LLMBackend, now: float) -> None:
        """Hand a backend's policy and shared verdict to the monitor."""
        uid = backend.metadata.uid
        policy = self.policies[uid]
        self._configured[uid] = (backend, policy)
        self._monitor.configure(
            uid,
            policy=policy,
            shared=self._shared(backend, policy, now),
            fingerprint=verdict_fingerprint(backend.spec),
            now=now,
        )

    def reinstall(self) -> None:
        """Build the routing table again; called on its own when a Secret or the month may have
        changed.
        """
        policy = in_force(self.objects.routing_policies)
        spending = self._monitor.spending
        found = self._limits_of(policy, spending, self._utc_month())
        spending.alarm_at = spending.total + found.headroom
        self._tell(policy, found.state)
        rules = compile_rules(policy, budget=found.state)
        pairs = [
            (backend, self.policies[backend.metadata.uid]) for backend in self.objects.backends
        ]
        table = self._live.table(pairs, rules)
        if table is not self._router.table or not self._router.ready:
            self._router.install(table)
        else:
            self._router.woken()  # maxConcurrency lives in the backends, not in the table

    def overspent(self) -> None:
        """This proxy's own spend reached a limit: act on it, and let the operator know."""
        self._monitor.hurry(self._clock(), seconds=PACE_SECONDS)
        self.reinstall()

    def budget_stats(self) -> dict[str, Any] | None:
        """The month's budget as far as this proxy knows, None without a policy."""
        policy = in_force(self.objects.routing_policies)
        return budget_stats(policy, self._monitor.spending, self._utc_month())

    def _tell(self, policy: RoutingPolicy | None, state: BudgetState) -> None:
        if state is not self.budget and policy is not None:
            action = policy.spec.budget.hard_limit_action
            _log.warning("budget of %s: %s (at the limit: %s)", policy.metadata.name, state, action)
        self.budget = state

    @property
    def table(self) -> Table:
        """The table installed last."""
        return self._router.table

    def subjects(self, uid: str) -> list[Subject]:
        """The subjects of a backend that are candidates now."""
        return [self._monitor.subject(uid, each.model) for each in self._live.candidates(uid)]


def _policy(backend: LLMBackend, policies: Iterable[QualityPolicy]) -> Policy:
    meta = backend.metadata
    neighbours = [policy for policy in policies if policy.metadata.namespace == meta.namespace]
    found = resolve(meta.labels, neighbours)
    return policy_from_spec(found.spec) if found else DEFAULT_POLICY
