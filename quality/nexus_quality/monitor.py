"""What one proxy knows about outcomes: counters to report, breakers to obey.

Promises that every attempt is counted exactly once under the generation it began with, that only
`breaker.TRANSITIONS` moves a breaker, and that the hot path (a success on a quiet backend) is a
handful of additions. It sends nothing: it says when a report is due and hands it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nexus_api.backend import BackendState, SubjectState
from nexus_api.pace import paced
from nexus_quality.breaker import ROW_SECONDS, Breaker, BreakerState, Event, Facts, Row, apply
from nexus_quality.keys import KeyFacts, KeyWatch
from nexus_quality.peers import Saw, Sight
from nexus_quality.policy import Policy
from nexus_quality.recorder import Recorder, Slot, cells_of
from nexus_quality.report import Answer, Pulse, Report
from nexus_quality.shared import SharedVerdict
from nexus_quality.spend import Spending
from nexus_quality.subject import PACE_SECONDS, Subject
from nexus_quality.telling import Telling

YOUNG_SECONDS = 60.0
ORPHAN_AFTER_SECONDS = paced(60.0)
ORPHAN_JITTER_SECONDS = paced(10.0)
UNANSWERED_SECONDS = paced(90.0)
REPLAY_EVERY_SECONDS = paced(10.0)

_NEWER = {
    SubjectState.ACTIVE: Event.NEWER_ACTIVE,
    SubjectState.EXCLUDED: Event.NEWER_EXCLUDED,
    SubjectState.PROBATION: Event.NEWER_PROBATION,
}
_FIRST_SIGHT = {
    SubjectState.ACTIVE: BreakerState.CLOSED,
    SubjectState.EXCLUDED: BreakerState.FOLLOW_EXCLUDED,
    SubjectState.PROBATION: BreakerState.FOLLOW_PROBATION,
}


_TOLD_TURNS = {Saw.OPENED: Event.PEER_OPENED, Saw.CLOSED: Event.PEER_CLOSED}
_FOLLOWING = (BreakerState.FOLLOW_EXCLUDED, BreakerState.FOLLOW_PROBATION)
_TRIPPED = (BreakerState.OPEN, BreakerState.HALF_OPEN)


def _start(breaker: Breaker, shared: SharedVerdict) -> None:
    """What a breaker is at first sight of a verdict (L22)."""
    breaker.start(_FIRST_SIGHT[shared.state])
    breaker.recovered = shared.recovered


def _tells(breaker: Breaker) -> bool:
    """True if the operator should hear of it."""
    return breaker.state in _TRIPPED or breaker.row.length > 0 or breaker.probe_in_flight


class BackendMonitor:
    """One backend as this proxy sees it: its own breaker, and its models as subjects.

    `generation` tags the attempts that begin now. `hurried_until`: successes travel as fast as
    failures, because the backend is not Active, was so for less than 60 s, or is suspect.
    """

    __slots__ = (
        "active_since",
        "breaker",
        "fingerprint",
        "generation",
        "hurried_until",
        "key",
        "monitor",
        "open_attempts",
        "subjects",
        "uid",
    )

    def __init__(self, monitor: Monitor, uid: str) -> None:
        self.monitor, self.uid = monitor, uid
        self.breaker = Breaker()
        self.key = KeyWatch()
        self.fingerprint: str | None = None
        self.subjects: dict[str, Subject] = {}
        self.open_attempts: set[object] = set()
        self.active_since = float("-inf")
        self.generation = 0
        self.hurried_until = float("-inf")

    def breakers(self) -> Iterator[Breaker]:
        """The backend's own breaker, then those of its models."""
        yield self.breaker
        for subject in self.subjects.values():
            yield subject.breaker

    @property
    def still(self) -> bool:
        """True if time alone changes nothing about it."""
        if self.key.changed:
            return False
        for breaker in self.breakers():
            if breaker.state is not BreakerState.CLOSED or breaker.recovered is not None:
                return False
        return True

    @property
    def tells_of_key(self) -> bool:
        """There is something to report about its key."""
        return bool(self.key.refused or self.blocked)

    @property
    def blocked(self) -> str:
        """Why no request is sent with its key, "" if one is."""
        return self.key.blocked(shared=self.breaker.shared.rejected is not None)

    def without_worst(self, now: float) -> list[Subject]:
        """The models failing in a row, the one with the longest left out; none of them if others
        than that one have succeeded since.
        """
        failing = [
            subject
            for subject in self.subjects.values()
            if subject.breaker.row.length
            and subject.breaker.row.began >= self.breaker.changed_at
            and now - subject.breaker.row.began <= ROW_SECONDS
        ]
        if len(failing) < 2:
            return []
        worst = max(failing, key=lambda subject: subject.breaker.row.length)
        others = (s.breaker.latest_success for s in self.subjects.values() if s is not worst)
        latest = max(others, default=float("-inf"))
        return [s for s in failing if s is not worst and s.breaker.row.began > latest]

    def hurry(self, *, suspect: bool) -> None:
        """Set the pace of successes by what is known now."""
        calm = self.breaker.shared.active and not suspect
        self.hurried_until = self.active_since + YOUNG_SECONDS if calm else float("inf")


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
            self._adopt(backend, shared, first=first, newer=newer and not first, facts=facts)
        for event in [Event.RESPECIFIED] * respecified + [Event.AUDIT] * audited:
            for breaker in backend.breakers():
                apply(breaker, event, facts)
        if enforced:
            # An audit that the operator never judged by has left the verdict as it was.
            for breaker in backend.breakers():
                if breaker.state not in _FOLLOWING and not breaker.shared.active:
                    apply(breaker, _NEWER[breaker.shared.state], facts)
        self.refresh(backend, now)
        if seen:
            self._on_change()

    def _adopt(
        self,
        backend: BackendMonitor,
        shared: SharedVerdict,
        *,
        first: bool,
        newer: bool,
        facts: Facts,
    ) -> None:
        breaker = backend.breaker
        overlay = breaker.shared
        breaker.shared, breaker.generation = shared, shared.generation
        if overlay.rejected and not shared.rejected:
            backend.key.renew()
        if overlay.overlay is BackendState.UNHEALTHY and shared.overlay is None:
            breaker.recovered = facts.now
        backend.generation = max(0, shared.generation)
        if first:
            _start(breaker, shared)
        elif newer:
            self._turn(breaker, overlay, facts)
            if shared.active and breaker.shared.turned(overlay):
                backend.active_since = facts.now
        left = not first and newer and shared.active is not overlay.active
        for subject in backend.subjects.values():
            self._adopt_model(backend, subject, first=first, left=left, facts=facts)
        if first or newer:
            backend.hurry(suspect=False)

    def _turn(self, breaker: Breaker, before: SharedVerdict, facts: Facts) -> None:
        """Follow a newer generation. One that a model has turned leaves a backend on probation
        where it is, with its probe in flight; a failed one holds under its own generation (L13).
        """
        if breaker.state in _FOLLOWING and not breaker.shared.turned(before):
            breaker.spent = False
        else:
            apply(breaker, _NEWER[breaker.shared.state], facts)

    def _adopt_model(
        self, backend: BackendMonitor, subject: Subject, *, first: bool, left: bool, facts: Facts
    ) -> None:
        """`left`: the backend has left Active or come back to it, which its models go by (S17)."""
        breaker, before = subject.breaker, subject.breaker.shared
        breaker.shared = shared = backend.breaker.shared.of(subject.model)
        breaker.generation = shared.generation
        if first:
            _start(breaker, shared)
            return
        if left:
            apply(breaker, Event.BACKEND_TURNED, facts)
        if left or shared.turned(before):
            apply(breaker, _NEWER[shared.state], facts)
        if shared.active and not before.active:
            backend.active_since = facts.now

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
            subject.hear(seen, now)

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
                _start(subject.breaker, subject.breaker.shared)
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
        if breaker is not backend.breaker and backend.breaker.state in _FOLLOWING:
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
        taken = self.recorder.take_changed()
        pulses = [pulse for backend in self._backends.values() for pulse in self._pulses(backend)]
        ended, self._pulsed = self._pulsed and not pulses, bool(pulses)
        telling, complete = self._telling, full or final
        whole = (full and telling.due(now)) or (final and not telling.claim)
        spend, spend_slot = self.spending.report(now, everything=whole and telling.unknown)
        if not (taken or pulses or complete or ended or spend):
            return None
        self._sent = now
        self._sending = taken
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

    def _pulses(self, backend: BackendMonitor) -> Iterator[Pulse]:
        told = any(map(_tells, backend.breakers()))
        if _tells(backend.breaker) or backend.tells_of_key:
            yield self._pulse(backend, "", backend.breaker)
        for subject in backend.subjects.values():
            # Where one model fails, what the others have in flight counts for the backend.
            if _tells(subject.breaker) or (told and subject.in_flight):
                yield self._pulse(backend, subject.model, subject.breaker)

    def _pulse(self, backend: BackendMonitor, model: str, breaker: Breaker) -> Pulse:
        row: Row = breaker.row
        in_flight = sum(s.in_flight for s in backend.subjects.values() if model in ("", s.model))
        latest = breaker.latest_success
        key, own = backend.key, not model
        return Pulse(
            uid=backend.uid,
            model=model,
            generation=backend.generation,
            in_flight=in_flight,
            row=row.length,
            row_began_ms=int(self.recorder.elapsed(row.began) * 1000) if row.length else 0,
            success_began_ms=int(self.recorder.elapsed(latest) * 1000) if latest > 0 else -1,
            open=breaker.state in _TRIPPED,
            probing=breaker.probe_in_flight,
            refused=key.refused if own else 0,
            key=backend.blocked if own else "",
            ca=own and key.facts.ca,
        )

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
