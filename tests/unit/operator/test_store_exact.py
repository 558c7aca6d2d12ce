"""An operator that is killed and restarted knows what one that lived on would know."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexus_api import BackendState, LLMBackendStatus
from nexus_operator.store import FILE, Store
from nexus_quality.counts import Counts
from nexus_quality.engine import BackendFacts, Engine
from nexus_quality.hearing import Hearing
from nexus_quality.journal import Journal
from nexus_quality.monitor import Monitor
from nexus_quality.outcome import Outcome, OutcomeClass
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.refilling import everything, refilling
from nexus_quality.report import Answer, decode_report, encode
from nexus_quality.saved import Batch
from nexus_quality.shared import SharedVerdict
from nexus_quality.window import Family

NOW = 1_700_000_000.0
UIDS = ("uid-a", "uid-b")
MODELS = ("tiny", "large")
STEPS = (0.5, 3.0, 20.0, 130.0, 700.0, 3_900.0)


@dataclass
class Process:
    """One life of a proxy; `sent`: its reports, which may arrive again."""

    name: str
    monitor: Monitor
    started: float
    sent: list[bytes] = field(default_factory=list)


class Fleet:
    """Three proxies, an operator that lives on, and one that is killed and has a store."""

    def __init__(self, seed: int, path: Path) -> None:
        self.chance, self.now, self.path = random.Random(seed), NOW, path
        self.generation = 0
        self.days: dict[tuple[str, str], Counter[str]] = {}
        self.steady, self.killed = self.engine(), self.engine()
        self.store = Store(path)
        everything(self.killed.ledger)
        self.processes = [self.begin(number) for number in range(3)]
        self.retired: list[Process] = []

    def engine(self) -> Engine:
        epoch = f"{self.chance.getrandbits(64):016x}"
        engine = Engine(epoch=epoch, started=self.now, random=self.chance.random)
        for uid in UIDS:
            facts = BackendFacts(uid=uid, namespace="n", name=uid, fingerprint="", models=MODELS)
            engine.upsert(facts, DEFAULT_POLICY, self.now)
            engine.restore(uid, self.status(), self.now)
        return engine

    def status(self) -> LLMBackendStatus:
        return LLMBackendStatus(state=BackendState.ACTIVE, verdict_generation=self.generation)

    def begin(self, number: int) -> Process:
        monitor = Monitor(
            incarnation=f"{self.chance.getrandbits(128):032x}",
            started=self.now - 0.25,
            random=self.chance.random,
            on_change=lambda: None,
            on_urgent=lambda _: None,
        )
        return Process(f"pod-{number}", monitor, self.now)

    def outcomes(self, process: Process) -> None:
        for _ in range(self.chance.randint(1, 8)):
            self.outcome(process)

    def outcome(self, process: Process) -> None:
        uid, model = self.chance.choice(UIDS), self.chance.choice(MODELS)
        outcome = self.chance.choice(list(Outcome))
        attempt = process.monitor.subject(uid, model).begin(self.now)
        attempt.sent(self.now)
        streamed = self.chance.random() < 0.5
        if streamed:
            attempt.content(self.now + self.chance.random())
        if self.chance.random() < 0.2:
            process.monitor.subject(uid, model).kept_out(self.now)
            self.days.setdefault((uid, model), Counter())["eligible"] += 1
        attempt.end(outcome, self.now, cost_nano_usd=7)
        counted = self.days.setdefault((uid, model), Counter())
        if outcome.effect.outcome_class in (OutcomeClass.SUCCESS, OutcomeClass.FAILURE):
            good = outcome.effect.outcome_class is OutcomeClass.SUCCESS
            counted.update(
                requests=1,
                errors=int(not good),
                connect_errors=int(outcome.effect.connect),
                ttft_count=int(good and streamed),
            )
        counted["cost_nano_usd"] += 7
        counted["throttled"] += outcome.effect.throttled

    def turn(self) -> None:
        """A verdict turned, and one proxy has seen it."""
        self.generation += 1
        process = self.chance.choice(self.processes)
        for uid in UIDS:
            for engine in (self.steady, self.killed):
                engine.restore(uid, self.status(), self.now)
            shared = SharedVerdict(generation=self.generation)
            process.monitor.configure(
                uid, policy=DEFAULT_POLICY, shared=shared, fingerprint="", now=self.now
            )

    def report(self, process: Process, *, full: bool, final: bool = False) -> None:
        """A report of what changed may be lost, any answer too; what matters is sent again."""
        lossy = not full and not final
        made = process.monitor.report(self.now, full=full, final=final)
        if made is None:
            return
        if lossy and self.chance.random() < 0.3:
            process.monitor.unanswered(self.now)  # lost on its way
            return
        process.sent.append(encode(made))
        answer = self.arrive(process, process.sent[-1])
        if self.chance.random() < 0.2:
            process.monitor.unanswered(self.now)  # the answer was lost
            if not lossy:
                self.report(process, full=full, final=final)
        elif process.monitor.acknowledged(made, answer, self.now):
            self.report(process, full=True, final=final)

    def arrive(self, process: Process, body: bytes) -> Answer:
        """The answer is that of the operator which is killed now and then."""
        for engine in (self.steady, self.killed):
            merged = engine.merge(process.name, decode_report(body), self.now)
            assert merged.answer.refused == (), merged.answer.refused
        return merged.answer

    def known(self, process: Process) -> bool:
        """Whether the killed operator has put this clock beside its own by a report in time."""
        reporter = self.killed.ledger.reporters.get(process.name)
        return reporter is not None and process.monitor.incarnation in reporter.incarnations

    def save(self) -> None:
        """A batch, or a part of the file that could not be written and is written again."""
        ledger, batch = self.killed.ledger, Batch()
        assert ledger.journal is not None
        for _ in ledger.journal.collect(ledger, batch, self.now):
            pass
        if self.chance.random() < 0.3:
            ledger.journal.put_back()
            self.save()
            return
        self.store.write(batch)
        ledger.journal.saved()

    def kill(self) -> None:
        """SIGKILL: what was not saved is gone; the living proxies are asked to repeat."""
        self.store.close()
        self.killed = self.engine()
        self.store = Store(self.path)
        ledger = self.store.load(self.now)
        ledger.journal = Journal()
        self.killed.remember(ledger)
        # One of them is away just then, for as long as it likes.
        away = self.chance.choice(self.processes)
        for process in self.processes:
            if process is not away:
                self.report(process, full=True)

    def anew(self) -> None:
        """The file is lost while the operator lives: all of memory goes into another one."""
        self.store.close()
        self.path.unlink()
        self.store = Store(self.path)
        for _ in refilling(self.killed.ledger):
            if self.chance.random() < 0.3:
                self.meanwhile(self.chance.choice(self.processes))
        self.save()

    def meanwhile(self, process: Process) -> None:
        """Something comes in, or cells are sealed."""
        if self.chance.random() < 0.3:
            for engine in (self.steady, self.killed):
                engine.expire(self.now)
        else:
            self.outcomes(process)
            self.report(process, full=self.chance.random() < 0.5)

    def replace(self, number: int) -> None:
        """A proxy says goodbye, or is killed after what it reported; another one takes its name."""
        process = self.processes[number]
        self.report(process, full=True)
        self.outcomes(process)
        self.report(process, full=False, final=True)
        self.save()
        self.retired.append(process)
        self.processes[number] = self.begin(number)

    def step(self, action: str, number: int) -> None:
        process = self.processes[number]
        if action == "outcomes":
            self.outcomes(process)
        elif action in ("change", "full"):
            self.report(process, full=action == "full")
        elif action == "again":
            old = self.chance.choice([*self.processes, *self.retired])
            if old.sent and self.known(old):
                self.arrive(old, self.chance.choice(old.sent))
        elif action == "replace":
            self.replace(number)
        elif action == "expire":
            for engine in (self.steady, self.killed):
                engine.expire(self.now)
        else:
            getattr(self, action)()

    def repair(self) -> None:
        """Every living proxy has said all it has, and old buckets have left the windows."""
        for process in self.processes:
            self.report(process, full=True)
        self.now += 10.0  # what is derived of buckets is kept for as long
        for engine in (self.steady, self.killed):
            engine.expire(self.now)

    def shares(self, engine: Engine, uid: str) -> object:
        hearing = Hearing(
            engine._backends[uid],
            engine.ledger,
            now=self.now,
            started=engine.started,
            listening=engine.listening,
            random=self.chance.random,
        )
        # In no particular order: models are a set.
        shares = [
            replace(share, rows=tuple(sorted(share.rows)), usual=round(share.usual, 9))
            for share in hearing.whole()
        ]
        return sorted(shares, key=lambda share: share.reporter)

    def figures(self, engine: Engine, uid: str) -> object:
        """All but the time of the last failure, which a late replay tells less finely."""
        found = engine.figures(uid, self.now)
        models = {m: (t.hour, t.day) for m, t in found.models.items() if t.known}
        return found.reporters, found.whole.hour, found.whole.day, models

    def assert_same(self) -> None:
        for uid in UIDS:
            assert self.figures(self.killed, uid) == self.figures(self.steady, uid)
            assert self.shares(self.killed, uid) == self.shares(self.steady, uid)
        for name, reporter in self.steady.ledger.reporters.items():
            other = self.killed.ledger.reporters[name]
            for uid in UIDS:
                assert windows(other, uid) == windows(reporter, uid)

    def assert_exact(self) -> None:
        for (uid, model), counted in self.days.items():
            tally = self.killed.figures(uid, self.now).models.get(model)
            day = Counts() if tally is None else tally.day
            assert {name: getattr(day, name) for name in counted} == dict(counted)


def windows(reporter: object, uid: str) -> dict[object, object]:
    """All buckets that count for decisions."""
    return {
        (model, family, bucket, generation): counts
        for model, series in reporter.of(uid).items()  # type: ignore[attr-defined]
        for family in (Family.TEN_SECONDS, Family.MINUTE)
        for bucket, generation, counts in series.windows[family].buckets()
    }


ACTIONS = (
    *("outcomes",) * 6,
    *(
        "change",
        "full",
        "full",
        "again",
        "turn",
        "save",
        "save",
        "kill",
        "anew",
        "replace",
        "expire",
    ),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**16),
    taken=st.lists(
        st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2), st.sampled_from(STEPS)),
        min_size=10,
        max_size=60,
    ),
)
def test_counters_through_the_store_are_those_of_an_operator_that_lived_on_and_of_an_oracle(
    seed: int, taken: list[tuple[str, int, float]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(seed, Path(folder) / FILE)
        longest = 22 * 3600.0 / len(taken)
        for action, number, seconds in taken:
            fleet.now += min(seconds, longest // 0.5 * 0.5)
            fleet.step(action, number)
        fleet.kill()
        fleet.repair()
        fleet.assert_same()
        fleet.assert_exact()
        # And what the last batch holds is all there is.
        fleet.save()
        fleet.kill()
        fleet.repair()
        fleet.assert_same()
        fleet.store.close()
