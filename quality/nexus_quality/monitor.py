"""What one proxy knows about outcomes: counters to report, breakers to obey.

Promises that every attempt is counted exactly once under the generation it began with, that only
`breaker_table.TRANSITIONS` moves a breaker, and that the hot path (a success on a quiet backend) is
a handful of additions. It sends nothing: it says when a report is due and hands it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nexus_api.pace import paced
from nexus_quality.attempt import PACE_SECONDS
from nexus_quality.backend_monitor import BackendMonitor
from nexus_quality.breaker import Breaker, BreakerState, Event, Facts
from nexus_quality.breaker_table import apply
from nexus_quality.following import FOLLOWING, adopt, ignore, obey, start
from nexus_quality.keys import KeyFacts, KeyWatch
from nexus_quality.peers import Saw, Sight
from nexus_quality.policy import Policy
from nexus_quality.pulses import pulses_of
from nexus_quality.recorder import Recorder, Slot, cells_of
from nexus_quality.report import Answer, Pulse, Report
from nexus_quality.shared import SharedVerdict
from nexus_quality.spend import Spending
from nexus_quality.subject import Subject
from nexus_quality.telling import Telling

ORPHAN_AFTER_SECONDS = paced(60.0)
ORPHAN_JITTER_SECONDS = paced(10.0)
UNANSWERED_SECONDS = paced(90.0)
REPLAY_EVERY_SECONDS = paced(10.0)

_TOLD_TURNS = {Saw.OPENED: Event.PEER_OPENED, Saw.CLOSED: Event.PEER_CLOSED}


class Monitor:
    """All backends of one proxy process (one incarnation, on its boot clock since `started`)."""

    def __init__(
        self,
        *,
        incarnation: str,
        started: float,
        random: Callable[[], float],
        on_change: Callable[[], None],
        on_urgent: Callable[[float], None],
        utc: Callable[[float], float] = lambda now: now,
    ) -> None:
        """`on_change`: some standing changed. `on_urgent(seconds)`: a report is due by then.
        `utc` turns the monitor's clock into epoch seconds, for what is spent in a month.
        """
        self.recorder = Recorder(started)
        self.spending = Spending(utc)
        self.random = random
        self.incarnation = incarnation
        self.tell: Callable[[Sight], None] | None = None
        self._on_change = on_change
        self._on_urgent = on_urgent
        self._backends: dict[str, BackendMonitor] = {}
        self._due = float("inf")
        self._sent = float("-inf")
        self._sending = self.recorder.take_changed()
        self._telling = Telling(incarnation)
        self._answered = started
        self._orphan_jitter = ORPHAN_JITTER_SECONDS * random()
        self._pulsed = False

    def configure(
        self, uid: str, *, policy: Policy, shared: SharedVerdict, fingerprint: str, now: float
    ) -> None:
        """Take in a backend's policy, shared verdict and spec; called on each of their changes."""
        backend = self._backend(uid)
        facts = Facts(now=now, random=self.random)
        first = backend.fingerprint is None
        respecified = not first and backend.fingerprint != fingerprint
        audited = not policy.enforce and (first or backend.breaker.policy.enforce)
        enforced = policy.enforce and not first and not backend.breaker.policy.enforce
        newer = shared.generation > backend.breaker.generation
        # A status is published for its figures, too, which routing does not see.
        same = (policy, shared) == (backend.breaker.policy, backend.breaker.shared)
        seen = first or respecified or not same
        for breaker in backend.breakers():
            breaker.policy = policy
        backend.fingerprint = fingerprint
        if respecified:
            backend.key.renew()
        if first or shared.generation >= backend.breaker.generation:
            adopt(backend, shared, first=first, newer=newer and not first, facts=facts)
        if respecified:
            for breaker in backend.breakers():
                apply(breaker, Event.RESPECIFIED, facts)
        if not policy.enforce:
            ignore(backend, facts, everything=audited)
        if enforced:
            obey(backend, facts)
        self.refresh(backend, now)
        if seen:
            self._on_change()

    def forget(self, uid: str) -> None:
        """Drop a backend that no longer exists."""
        self._backends.pop(uid, None)
        self.recorder.forget(uid)

    def key(self, uid: str, facts: KeyFacts) -> None:
        """Take in what is known of a backend's key; called whenever it was looked up."""
        if self._backend(uid).key.see(facts):
            self._on_change()

    def refused_keys(self) -> dict[str, int]:
        """The keys that this proxy was refused with and that are out now: serial by backend."""
        return {
            uid: backend.key.serial
            for uid, backend in self._backends.items()
            if backend.key.refused
            and (backend.key.rejected or backend.breaker.shared.rejected is not None)
        }

    def key_accepted(self, uid: str, serial: int) -> None:
        """A backend takes its key again that it refused: forget the refusals."""
        backend = self._backends.get(uid)
        if backend is not None and backend.key.serial == serial:
            backend.key.renew()
            self._on_change()
            if self.tell is not None:
                self.tell(Sight(saw=Saw.KEY_ACCEPTED, uid=uid))

    def key_watches(self) -> Iterator[tuple[str, KeyWatch]]:
        """The keys that are in use, by backend."""
        for uid, backend in self._backends.items():
            if backend.key.facts.secret:
                yield uid, backend.key

    def hear(self, seen: Sight, now: float) -> None:
        """Take in what another process of this proxy saw."""
        backend = self._backends.get(seen.uid)
        if backend is None:
            return
        subject = backend.subjects.get(seen.model)
        if seen.saw is Saw.KEY_ACCEPTED:
            backend.key.renew()
            self._on_change()
        elif seen.saw in _TOLD_TURNS:
            breaker = subject.breaker if subject else backend.breaker
            if subject or not seen.model:
                facts = Facts(now=now, until=seen.until, k=seen.k, row=seen.row)
                apply(breaker, _TOLD_TURNS[seen.saw], facts)
            self.refresh(backend, now)
        elif subject is not None:
            subject.peering.hear(seen, now)

    @property
    def answered(self) -> float:
        """When a report was last answered, or the process began."""
        return self._answered

    def heard_from_operator(self, moment: float) -> None:
        """Another process reports for this one, and was last answered at `moment`."""
        self._answered = max(self._answered, moment)

    def hand_over(self) -> list[Slot]:
        """What was counted since the last call, for another process to report."""
        self._due = float("inf")
        return self.recorder.take_changed()

    def pace(self, uid: str, now: float) -> None:
        """Outcomes of a backend were counted for others: report them as soon as its own."""
        backend = self._backends.get(uid)
        if backend is not None and now < backend.hurried_until:
            self.hurry(now, seconds=PACE_SECONDS)

    def subject(self, uid: str, model: str) -> Subject:
        """The subject (backend, model): the same object until the backend is forgotten."""
        backend = self._backend(uid)
        subject = backend.subjects.get(model)
        if subject is None:
            subject = Subject(backend, model)
            subject.breaker.policy = backend.breaker.policy
            subject.breaker.shared = backend.breaker.shared.of(model)
            if backend.breaker.policy.enforce:
                start(subject.breaker, subject.breaker.shared)
            subject.refresh(float("inf"))
            backend.subjects[model] = subject
        return subject

    def _backend(self, uid: str) -> BackendMonitor:
        backend = self._backends.get(uid)
        if backend is None:
            backend = self._backends[uid] = BackendMonitor(self, uid)
        return backend

    def refresh(self, backend: BackendMonitor, now: float) -> None:
        """Recompute the standings of a backend's models; tell if any changed."""
        changed = [subject for subject in backend.subjects.values() if subject.refresh(now)]
        if changed:
            self._on_change()

    def tick(self, now: float) -> None:
        """Once a second: deadlines, orphans, the end of slow starts, expiry of old buckets."""
        facts = Facts(now=now, random=self.random)
        for backend in self._backends.values():
            if backend.still:
                continue
            for breaker in backend.breakers():
                if breaker.state is BreakerState.OPEN and now >= breaker.until:
                    apply(breaker, Event.DEADLINE, facts)
            for breaker in backend.breakers():
                if self._orphaned(backend, breaker, now):
                    apply(breaker, Event.ORPHANED, facts)
            if backend.key.changed:
                backend.key.changed = False
                self.hurry(now, seconds=0.0)
            self.refresh(backend, now)
            for breaker in backend.breakers():
                breaker.settle(now)
        self.recorder.expire(now)

    def _orphaned(self, backend: BackendMonitor, breaker: Breaker, now: float) -> bool:
        if breaker is not backend.breaker and backend.breaker.state in FOLLOWING:
            return False  # a model's verdict stands still while its backend is out
        if breaker.state is BreakerState.FOLLOW_EXCLUDED:
            until = breaker.shared.until
            grace = ORPHAN_AFTER_SECONDS + self._orphan_jitter
            return until is not None and now >= until + grace
        if breaker.state is BreakerState.FOLLOW_PROBATION:
            return now >= self._answered + UNANSWERED_SECONDS + self._orphan_jitter
        return False

    def changed(self) -> None:
        """What routing can see of some backend changed."""
        self._on_change()

    def hurry(self, now: float, *, seconds: float) -> None:
        """A report should leave within `seconds`; 0 is at once, anything else keeps the pace."""
        due = now + seconds
        if seconds > 0.0:
            due = max(due, self._sent + PACE_SECONDS)
        if due < self._due:
            self._due = due
            self._on_urgent(due - now)

    def report(self, now: float, *, full: bool, final: bool = False) -> Report | None:
        """The report to send now, None if a non-full one would say nothing.

        A full one holds all that was not yet told to this operator, and says so; where that is not
        known, all there is. The same goes for the final one.

        It holds live cells: encode it at once. One report is under way at a time, until it is
        `acknowledged` or `unanswered`.
        """
        self._due = float("inf")
        taken, pulses = self.recorder.take_changed(), self._pulses()
        ended, self._pulsed = self._pulsed and not pulses, bool(pulses)
        telling, complete = self._telling, full or final
        whole = (full and telling.due(now)) or (final and not telling.claim)
        spend, spend_slot = self.spending.report(now, everything=whole and telling.unknown)
        if not (taken or pulses or complete or ended or spend):
            return None
        self._sent, self._sending = now, taken
        return Report(
            incarnation=self.incarnation,
            now_ms=int(self.recorder.elapsed(now) * 1000),
            full=whole,
            told=telling.claim if complete else "",
            replay=whole and telling.replaying,
            final=final,
            cells=list(self.recorder.everything(taken) if whole else cells_of(taken)),
            pulses=pulses,
            spend=spend,
            spend_slot=spend_slot,
        )

    def _pulses(self) -> list[Pulse]:
        """How all backends stand now, as far as there is something to tell."""
        backends = self._backends.values()
        return [pulse for one in backends for pulse in pulses_of(one, self.recorder)]

    def acknowledged(self, report: Report, answer: Answer, now: float) -> bool:
        """`report` was answered. True: the operator is new to us, send a full report soon.

        The caller jitters that replay and sends one at most every REPLAY_EVERY_SECONDS.
        """
        self._sending = []
        self.spending.acknowledged()
        self._answered = now
        # A full report speaks of all backends, though there is nothing new of most.
        complete = report.full or report.told
        known = self.recorder.uids() if complete else {cell.uid for cell in report.cells}
        for uid in known:
            if (backend := self._backends.get(uid)) is not None:
                backend.hurry(suspect=uid in answer.suspects)
        self._telling.answered(report, answer, now)
        return self._telling.replaying

    def unanswered(self, now: float) -> None:
        """The report under way could not be delivered: its cells count as changed again."""
        self.recorder.put_back(self._sending)
        self._sending = []
        self.spending.unanswered()
