"""What a worker makes of what its parent tells: objects, verdicts, and what the others do.

Promises that a worker routes by the table that the parent has, within the time a message takes, and
that requests of others count at a backend as its own do. It fetches nothing and tells nothing.
"""

from __future__ import annotations

from nexus_api import BudgetState, LLMBackend, QualityPolicy, RoutingPolicy
from nexus_proxy.control import Objects
from nexus_proxy.core import Core
from nexus_proxy.pricing.limits import Limits
from nexus_proxy.routing.queue import Queue
from nexus_proxy.secrets import FileSecrets, SecretSource
from nexus_proxy.workers.wire import ENDPOINTS, Peers, Use, World
from nexus_quality.policy import Policy
from nexus_quality.shared import SharedVerdict
from nexus_quality.spend import Spending


class Inbox:
    """The world as the parent told it. `beside`: what counts at each backend for other workers."""

    def __init__(self, secrets: SecretSource) -> None:
        self.beside: dict[str, int] = {}
        self.secrets = secrets
        self._backends: dict[str, LLMBackend] = {}
        self._verdicts: dict[str, SharedVerdict] = {}
        self._quality_policies: tuple[QualityPolicy, ...] = ()
        self._routing_policies: tuple[RoutingPolicy, ...] = ()
        self._budget = BudgetState.NORMAL

    def shared(self, backend: LLMBackend, policy: Policy, now: float) -> SharedVerdict:
        """The verdict on a backend, as the parent knows it."""
        return self._verdicts.get(backend.metadata.uid) or SharedVerdict()

    def limits_of(self, policy: RoutingPolicy | None, spending: Spending, month: str) -> Limits:
        """The budget's state as the parent knows it, who adds up what all workers spend."""
        return Limits(state=self._budget)

    def world(self, world: World, core: Core, now: float) -> None:
        """Take in what there is to route by."""
        for uid in world.gone:
            self._backends.pop(uid, None)
            self._verdicts.pop(uid, None)
            self.beside.pop(uid, None)
        self._backends.update((backend.metadata.uid, backend) for backend in world.backends)
        self._verdicts.update(world.verdicts)
        if world.quality_policies is not None:
            self._quality_policies = world.quality_policies
        if world.routing_policies is not None:
            self._routing_policies = world.routing_policies
        if world.secrets is not None and isinstance(self.secrets, FileSecrets):
            self.secrets.replace(world.secrets)
        self._budget = world.budget
        self._apply(world, core, now)

    def _apply(self, world: World, core: Core, now: float) -> None:
        control = core.control
        backends = tuple(self._backends.values())
        known = {backend.metadata.uid for backend in control.objects.backends}
        control.apply(Objects(backends, self._quality_policies, self._routing_policies), now)
        told = {backend.metadata.uid for backend in world.backends}
        for uid in world.verdicts.keys() - told:
            if uid in known and uid in self._backends:
                control.configure(self._backends[uid], now)

    def peers(self, peers: Peers, core: Core, queue: Queue) -> None:
        """Take in what the other workers do."""
        backends = core.control.table.backends
        for uid, others in peers.loads.items():
            backend = backends.get(uid)
            if backend is None:
                continue
            by = others - self.beside.get(uid, 0)
            self.beside[uid] = others
            backend.shift(by)
            for _ in range(-by if queue.depth else 0):
                queue.freed(backend)
        for use in peers.uses:
            rest(core, use)
        if peers.answered is not None:
            core.monitor.heard_from_operator(peers.answered)


def rest(core: Core, use: Use) -> bool:
    """Another worker was asked to rest, or found a model missing; True if that is news here."""
    candidate = core.live.candidate(use.uid, use.model)
    if candidate is None:
        return False
    known = candidate.missing_until
    missing = {ENDPOINTS[name]: until for name, until in use.missing.items()}
    longer = {each: until for each, until in missing.items() if until > known.get(each, 0.0)}
    if use.resting_until <= candidate.resting_until and not longer:
        return False
    candidate.resting_until = max(candidate.resting_until, use.resting_until)
    known.update(longer)
    candidate.backend.touch()
    return True
