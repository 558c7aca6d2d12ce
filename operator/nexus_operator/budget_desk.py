"""Where reports, accounts and RoutingPolicies meet: opens an account when it is first needed, and
has a policy looked at when its budget's state turns.

Promises that an account begins with what the policy in force had published, once per reign of this
process. Sums are `budget`'s, what is published `budget_status`'s; nothing is written here.
"""

from __future__ import annotations

from collections.abc import Callable

from nexus_api import BudgetStatus, LLMBackendSpec, RoutingPolicy
from nexus_api.meta import ROUTING_POLICY_PLURAL
from nexus_api.quantities import NANO, parse_time, parse_usd
from nexus_api.resolve import is_cloud
from nexus_operator.budget import Account, Budgets
from nexus_operator.budget_status import budget_notes, budget_status, worth_writing
from nexus_operator.metrics import Metrics
from nexus_operator.notes import Note
from nexus_operator.plan import Key
from nexus_operator.policies import in_force
from nexus_operator.registry import Registry
from nexus_quality.budget import state_of
from nexus_quality.report import Report
from nexus_quality.spend import slot_at


class BudgetDesk:
    """`started` says since when this process leads; `mark` is the writer's."""

    def __init__(
        self,
        *,
        registry: Registry,
        started: Callable[[], float],
        clock: Callable[[], float],
        mark: Callable[[Key], None],
    ) -> None:
        self._registry = registry
        self._started = started
        self._clock = clock
        self._mark = mark
        self._reign = started()
        self._budgets = Budgets(self._reign)
        self._written: dict[str, float] = {}

    def heard(self, reporter: str, report: Report) -> None:
        """A report was taken: what it tells of costs is added up."""
        now = self._clock()
        for namespace in {spend.namespace for spend in report.spend}:
            self._opened(namespace, now)
        for namespace in self._budgets.take(reporter, report, now):
            policy = in_force(self._registry.routing.of(namespace))
            if policy is not None and self._turned(policy, now):
                self._mark(Key(ROUTING_POLICY_PLURAL, policy.metadata.uid))

    def _turned(self, policy: RoutingPolicy, now: float) -> bool:
        """Whether another state than the published one holds; amounts can wait for the interval."""
        known = policy.status.budget
        spent = self._budgets.spent(policy.metadata.namespace, now)
        return known is None or known.state is not state_of(policy.spec.budget, spent)

    def wanted(self, policy: RoutingPolicy, *, edited: bool) -> BudgetStatus | None:
        """The budget to publish for a policy in force; what is published, if nothing is worth it.

        `edited`: its status is written anyway.
        """
        now = self._clock()
        account, known = self._account(policy.metadata.namespace, now), policy.status.budget
        wanted = budget_status(policy, account)
        since = now - self._written.get(policy.metadata.uid, 0.0)
        orphaned = known is not None and account.orphaned(slot_at(parse_time(known.as_of)))
        if edited or worth_writing(policy, wanted, since_write=since, orphaned=orphaned):
            return wanted
        return known

    def notes(self, policy: RoutingPolicy, wanted: BudgetStatus | None) -> list[Note]:
        """The Events that come with the write."""
        account = self._account(policy.metadata.namespace, self._clock())
        return budget_notes(policy, wanted, account.spent)

    def written(self, uid: str) -> None:
        """A policy's status was written."""
        self._written[uid] = self._clock()
        self._written = {u: t for u, t in self._written.items() if self._registry.routing.get(u)}

    def show(self, metrics: Metrics) -> None:
        """Sets what is spent, what may be, and what has no price, by namespace."""
        now = self._clock()
        for gauge in (metrics.budget_spending, metrics.budget_limit, metrics.unpriced):
            gauge.clear()
        # A reporter that may speak for every namespace may name what is none.
        real = {*self._registry.routing.namespaces(), *self._registry.backends.namespaces()}
        for namespace in real.intersection(self._budgets.namespaces()):
            spent = self._budgets.spent(namespace, now) / NANO
            metrics.budget_spending.labels(namespace).set(spent)
        for namespace in self._registry.routing.namespaces():
            policy = in_force(self._registry.routing.of(namespace))
            if policy is not None and policy.spec.budget.monthly_limit_usd is not None:
                usd = parse_usd(policy.spec.budget.monthly_limit_usd) / NANO
                metrics.budget_limit.labels(namespace).set(usd)
        for namespace in self._registry.backends.namespaces():
            bare = [b for b in self._registry.backends.of(namespace) if _unpriced(b.spec)]
            metrics.unpriced.labels(namespace).set(len(bare))

    def _account(self, namespace: str, now: float) -> Account:
        self._opened(namespace, now)
        return self._budgets.account(namespace, now)

    def _opened(self, namespace: str, now: float) -> None:
        if self._reign != self._started():
            self._reign = self._started()
            self._budgets.begin(self._reign)
        if not self._budgets.known(namespace):
            policy = in_force(self._registry.routing.of(namespace))
            published = policy.status.budget if policy is not None else None
            if published is None:
                self._budgets.open(namespace, now)
            else:
                self._budgets.open(
                    namespace,
                    now,
                    month=published.month,
                    spent=parse_usd(published.spent_usd),
                    as_of=parse_time(published.as_of),
                )


def _unpriced(spec: LLMBackendSpec) -> bool:
    """Whether it costs money, and nobody says how much."""
    bare = not spec.models or any(model.pricing is None for model in spec.models)
    return is_cloud(spec) and spec.pricing is None and bare
