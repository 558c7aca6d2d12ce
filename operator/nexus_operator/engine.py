"""The quality engine with the questions only an operator asks.

Everything that decides is in `nexus_quality`; here are an audit policy's opinion and the ends of
exclusions, all read-only, and the moment from which this process judges.
"""

from __future__ import annotations

from nexus_api import SubjectState
from nexus_quality.engine import Engine
from nexus_quality.evidence import shares
from nexus_quality.ledger import Ledger
from nexus_quality.policy import Policy
from nexus_quality.rules import Firing, fire


class FleetEngine(Engine):
    """An `Engine` that can be asked about policies that are not in force."""

    def begin(self, now: float) -> None:
        """Starts to judge now: nothing was heard yet, however long the process stood by."""
        self.started = now
        self._ledger = Ledger(now)

    def firing_under(self, uid: str, policy: Policy, now: float) -> Firing | None:
        """The rule that would exclude the backend now if `policy` were in force."""
        verdict = self.verdict(uid)
        parts = shares(
            self._ledger,
            uid,
            now=now,
            generation=verdict.generation,
            short_window_seconds=policy.short_window_seconds,
            recent_seconds=0.0,
        )
        firing = fire(parts, policy, now)
        return firing if firing is not None and firing.quorum else None

    def ended(self, now: float) -> list[str]:
        """The backends whose exclusion is over, but not yet replaced by probation."""
        return [uid for uid, until in self._ends().items() if until <= now]

    def next_end(self, now: float) -> float | None:
        """When the next exclusion ends."""
        return min((until for until in self._ends().values() if until > now), default=None)

    def _ends(self) -> dict[str, float]:
        verdicts = {uid: self.verdict(uid) for uid in self.backends()}
        return {
            uid: verdict.until
            for uid, verdict in verdicts.items()
            if verdict.state is SubjectState.EXCLUDED and verdict.until is not None
        }
