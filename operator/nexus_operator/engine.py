"""The quality engine with the questions only an operator asks.

Everything that decides is in `nexus_quality`; here are an audit policy's opinion, the ends of
exclusions and what is known of single requests, all read-only, and the moment from which this
process judges. It is an `Engine`, asked as anybody may ask one.
"""

from __future__ import annotations

from collections.abc import Callable

from nexus_operator.testimony import Testimony
from nexus_quality.engine import BackendFacts, Engine, Merged
from nexus_quality.evidence import ALIVE_SECONDS
from nexus_quality.ledger import Ledger
from nexus_quality.policy import Policy
from nexus_quality.report import Report
from nexus_quality.stall import Opinion
from nexus_quality.window import Family

NEWS_SECONDS = 40.0  # a full report is due every 10 to 30 s


class FleetEngine(Engine):
    """An `Engine` that knows what is said of keys and seen by probes.

    `doubts`: whether a backend's probes fail, so that successes should be heard of at once.
    """

    def __init__(self, *, epoch: str, started: float, random: Callable[[], float]) -> None:
        super().__init__(epoch=epoch, started=started, random=random)
        self.doubts: Callable[[str], bool] = lambda uid: False
        self._testimony = Testimony()

    def merge(self, reporter: str, report: Report, now: float) -> Merged:
        """As the engine's; who speaks of a key is remembered."""
        merged = super().merge(reporter, report, now)
        self._testimony.heard(reporter, report, self.knows)
        return merged

    def upsert(self, facts: BackendFacts, policy: Policy, now: float) -> None:
        """As the engine's; what was said of the key of another spec counts no more."""
        if self.knows(facts.uid) and self.fingerprint(facts.uid) != facts.fingerprint:
            self._testimony.renew(facts.uid, now)
        super().upsert(facts, policy, now)

    def remove(self, uid: str) -> None:
        """A backend was deleted."""
        super().remove(uid)
        self._testimony.forget(uid)

    def renewed(self, uid: str) -> bool:
        """Whether the spec changed, in what the verdict is about, since this process began."""
        return self._testimony.renewed(uid)

    def opinion(self, uid: str, now: float) -> Opinion:
        """What the fleet says of a backend's key and Secrets."""
        return self._testimony.opinion(
            uid,
            self.ledger,
            now,
            usual=lambda: {p.reporter: p.usual for p in self.hearing(uid, now).whole()},
            min_reporters=self.policy(uid).min_reporters,
        )

    def minutes(self, uid: str, first: int) -> dict[int, tuple[int, int]]:
        """Requests and errors of a backend by minute, from the minute `first` on."""
        found: dict[int, tuple[int, int]] = {}
        for whole in self.ledger.wholes(uid).values():
            for minute, _, counts in whole.minutes.buckets():
                if minute >= first:
                    requests, errors = found.get(minute, (0, 0))
                    found[minute] = requests + counts.requests, errors + counts.errors
        return found

    def heard(self, since: float, now: float) -> bool:
        """Whether all living reporters have said what there was to say since a moment."""
        living = (r for r in self.ledger.reporters.values() if not r.gone)
        return now - since > NEWS_SECONDS or all(
            reporter.heard >= since or now - reporter.heard > ALIVE_SECONDS for reporter in living
        )

    def served(self, uid: str, seconds: float, now: float) -> bool:
        """Whether a proxy reported a success within the last `seconds`.

        Successes travel with the full report: those of a reporter not heard from since are news.
        """
        for reporter in self.ledger.users(uid).values():
            silent = now - reporter.heard
            if reporter.gone or silent > NEWS_SECONDS:
                continue
            reach = seconds + silent
            family = Family.TEN_SECONDS if reach <= 600.0 else Family.MINUTE
            for series in reporter.of(uid).values():
                parts = series.windows[family].last_parts(reach + family, now)
                if any(part.requests > part.errors for part in parts):
                    return True
        return False

    def suspect(self, uid: str, now: float) -> bool:
        """As the engine's; of a backend whose probes fail as well."""
        return self.doubts(uid) or super().suspect(uid, now)

    def begin(self, now: float) -> None:
        """Starts to judge now: nothing was heard yet, however long the process stood by."""
        self.started = self.listening = now
        self.remember(Ledger(now))

    def ended(self, now: float) -> list[str]:
        """The backends with an exclusion that is over, but not yet replaced by probation."""
        return [uid for uid, until in self.ends().items() if until <= now]

    def next_end(self, now: float) -> float | None:
        """When the next exclusion ends."""
        return min((until for until in self.ends().values() if until > now), default=None)
