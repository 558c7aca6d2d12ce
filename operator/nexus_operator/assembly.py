"""The operator's parts, put together: which of them knows which.

Promises one of each, wired and at rest: nothing here starts, listens or speaks. When they run, and
what happens when one of them dies, is `context`'s.
"""

from __future__ import annotations

import random
import secrets

from nexus_operator.aside import Aside
from nexus_operator.budget_desk import BudgetDesk
from nexus_operator.candidate import slot
from nexus_operator.clock import Clock
from nexus_operator.engine import FleetEngine
from nexus_operator.evaluator import Evaluator
from nexus_operator.herald import Herald
from nexus_operator.history import History
from nexus_operator.identity import Identities, Reporter
from nexus_operator.intake import Intake
from nexus_operator.kube import Kube
from nexus_operator.leader import Leader
from nexus_operator.metrics import Metrics
from nexus_operator.named_secrets import NamedSecrets
from nexus_operator.observer import Observer
from nexus_operator.pace import Pace
from nexus_operator.page.about import version
from nexus_operator.page.board import Board, Head
from nexus_operator.page.feed import Feed
from nexus_operator.page.handlers import Page
from nexus_operator.planner import Planner
from nexus_operator.policy_plans import PolicyPlans
from nexus_operator.probe import Doorbell
from nexus_operator.prober import Prober
from nexus_operator.registry import KIND_OF, PLURALS, Registry
from nexus_operator.rollcall import RollCall
from nexus_operator.server import Server
from nexus_operator.settings import Settings
from nexus_operator.stats import Stats
from nexus_operator.store_keeper import Keeper
from nexus_operator.vitals import Sightings
from nexus_operator.wires import Wires
from nexus_operator.writer import Writer
from nexus_quality.report import Answer, Report


class Parts:
    """One of each; `own_slot`: whether a lease in our name is one we may take over."""

    def __init__(self, settings: Settings, wires: Wires, *, own_slot: bool) -> None:
        self.settings = settings
        self._wires = wires
        self.clock, self._chance = Clock(), random.Random().random
        self._born, self._version = self.clock(), version()
        self.registry = Registry()
        self.kube = Kube(wires.load(), renew=wires.load)
        self.kube.connection.replaced = wires.replaced
        self.sightings = Sightings(PLURALS)
        self.metrics = Metrics(lambda: self.stats.readings())
        self.engine = FleetEngine(
            epoch=secrets.token_hex(8), started=self.clock(), random=self._chance
        )
        self.keeper = Keeper(
            folder=self.settings.data_dir,
            engine=self.engine,
            clock=self.clock,
            metrics=self.metrics,
        )
        self.leader = Leader(
            kube=self.kube,
            identity=self._identity,
            deposed=self._wires.deposed,
            resumed=self._resume,
            own_slot=own_slot,
        )
        self.metrics.leader.set_function(lambda: float(self.leader.leading))
        self.aside = Aside()
        self._assemble_prober()
        self._assemble_writer()
        self._assemble_judges()
        self._assemble_server()
        self.metrics.before_page.append(self._read_vitals)

    @property
    def namespaces(self) -> tuple[str | None, ...]:
        """The namespaces to list, (None,) for all of them."""
        if self.settings.all_namespaces:
            return (None,)
        return self.settings.namespaces or (self.kube.credentials.namespace,)

    def _identity(self) -> str:
        inside = self.kube.credentials.in_cluster
        return slot(in_cluster=inside, host=self.settings.host, port=self.server.port)

    def _assemble_prober(self) -> None:
        self.doorbell = Doorbell(secrets=NamedSecrets(self.kube, self.clock))
        self.prober = Prober(
            ring=self.doorbell.ring,
            clock=self.clock,
            random=self._chance,
            turned=lambda uid: self.observer.turned(uid),
            metrics=self.metrics,
        )
        self.engine.doubts = lambda uid: self.prober.findings(uid).health.failures > 0

    def _assemble_writer(self) -> None:
        self.herald = Herald(
            kube=self.kube, registry=self.registry, metrics=self.metrics, clock=self.clock
        )
        self.budgets = BudgetDesk(
            registry=self.registry,
            started=lambda: self.engine.started,
            clock=self.clock,
            mark=lambda key: self.writer.mark(key),
        )
        self.metrics.before_page.append(lambda: self.budgets.show(self.metrics))
        self.policies = PolicyPlans(
            registry=self.registry,
            engine=self.engine,
            clock=self.clock,
            mark=lambda key: self.writer.mark(key),
            budgets=self.budgets,
        )
        self.planner = Planner(
            registry=self.registry,
            engine=self.engine,
            prober=self.prober,
            metrics=self.metrics,
            clock=self.clock,
            policies=self.policies,
            history=History(engine=self.engine, keeper=self.keeper),
            specs=self.keeper.specs,
            see=lambda plural, stored: self.observer.see(plural, stored),
            gone=lambda key: self.observer.gone(key),
            fail=self._wires.fail,
            late=self.herald.late,
        )
        self.writer = Writer(
            kube=self.kube,
            planner=self.planner,
            metrics=self.metrics,
            clock=self.clock,
            random=self._chance,
            time_left=lambda: self.leader.time_left,
        )

    def _assemble_judges(self) -> None:
        self.evaluator = Evaluator(
            registry=self.registry,
            engine=self.engine,
            planner=self.planner,
            policies=self.policies,
            metrics=self.metrics,
            clock=self.clock,
            mark=self.writer.mark,
        )
        self.observer = Observer(
            registry=self.registry,
            engine=self.engine,
            prober=self.prober,
            planner=self.planner,
            policies=self.policies,
            specs=self.keeper.specs,
            writer=self.writer,
            metrics=self.metrics,
            clock=self.clock,
            touch=self.evaluator.touch,
            restored=self.herald.found,
        )
        self.rollcall = RollCall(
            kube=self.kube,
            registry=self.registry,
            namespaces=self.namespaces,
            gone=self.observer.gone,
            heard=self.sightings.heard,
        )

    def _read_vitals(self) -> None:
        self.metrics.reporters.set(self.evaluator.reporters())
        pending, oldest = self.writer.pending()
        self.metrics.pending.set(pending)
        self.metrics.oldest_pending.set(oldest)
        for plural, age in self.sightings.ages():
            self.metrics.watch_age.labels(KIND_OF[plural]).set(age)

    def _assemble_server(self) -> None:
        self.stats = Stats(
            registry=self.registry,
            engine=self.engine,
            clock=self.clock,
            latency=lambda uid: self.prober.findings(uid).health.latency_ms,
        )
        self.board = Board(
            registry=self.registry,
            engine=self.engine,
            clock=self.clock,
            head=self._head,
            feed=Feed(),
        )
        self.server = Server(
            settings=self.settings,
            why_not_ready=self._wires.why_not_ready,
            metrics_page=self.metrics.page,
            stats_page=self.stats.page,
            turned_away=self.metrics.connections_refused.inc,
            page=Page(self.board).mount,
            intake=Intake(
                identities=Identities(self.kube, self.clock, count=self.metrics.looked_up),
                namespace_of=self._namespace_of,
                merge=self._merge,
                metrics=self.metrics,
                pace=Pace(self.clock),
            ).handle,
        )

    def _head(self) -> Head:
        return Head(
            places=tuple(name for name in self.namespaces if name is not None),
            version=self._version,
            started=int(self._born),
            leading=self.leader.leading,
            problem=self._wires.why_not_ready(),
            reporters=self.evaluator.reporters(),
        )

    def _merge(self, reporter: Reporter, report: Report) -> Answer:
        self.budgets.heard(reporter.key, report)
        answer = self.evaluator.merge(reporter, report)
        self.aside.grown(len(self.engine.ledger.reporters))
        return answer

    def _resume(self, away: float) -> None:
        """Reports were refused for `away` seconds, and are taken again."""
        now = self.clock()
        self.engine.resume(now - away, now)

    def _namespace_of(self, uid: str) -> str | None:
        backend = self.registry.backends.get(uid)
        return backend.metadata.namespace if backend else None
