"""The goals of the proof, each with the figure that was measured; a missed one says by how much."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.simulate.runner import Outcome
from bench.simulate.scenarios import BY_NAME
from bench.simulate.simulation import ALONE, NEXUS
from bench.simulate.summary import Summary

SEED = "seed"


@dataclass(frozen=True, slots=True)
class Goal:
    """What is asked, the limit, and what was measured (None: not run)."""

    text: str
    limit: float
    measured: float | None
    unit: str = ""

    @property
    def verdict(self) -> str:
        """Met, missed by how much, or not run."""
        if self.measured is None:
            return "not run"
        if self.measured <= self.limit:
            return "met"
        return f"missed by {self.measured - self.limit:.3g}{self.unit}"

    def row(self) -> tuple[str, str, str, str]:
        """For a table."""
        figure = "–" if self.measured is None else f"{self.measured:.3g}{self.unit}"
        return self.text, f"≤ {self.limit:g}{self.unit}", figure, self.verdict


class Reader:
    """Looks summaries up."""

    def __init__(self, outcome: Outcome) -> None:
        self._summaries = outcome.summaries

    def of(self, name: str, policy: str = NEXUS, retries: int = 0) -> list[Summary]:
        """The summaries of one cell; empty if it was not run."""
        return self._summaries.get((name, policy, retries), [])

    def median(self, name: str, what: str, policy: str = NEXUS, retries: int = 0) -> float | None:
        """The median over seeds of a figure that is there."""
        return _median(self.of(name, policy, retries), what)

    def pair(
        self, name: str, what: str, other: str, retries: int = 0
    ) -> tuple[float | None, float | None]:
        """Our median and another policy's, over the seeds that both were run with."""
        ours, theirs = self.of(name, NEXUS, retries), self.of(name, other, retries)
        both = min(len(ours), len(theirs))
        return _median(ours[:both], what), _median(theirs[:both], what)

    def most(
        self, names: Iterable[str], what: str, retries: Iterable[int] = (0, 2)
    ) -> float | None:
        """The worst of all seeds."""
        values = [
            v
            for name in names
            for r in (0, 2)
            for s in self.of(name, retries=r)
            if (v := getattr(s, what)) is not None
        ]
        return max(values, default=None)

    def total(self, names: Iterable[str], what: str) -> float | None:
        """The sum over all seeds, with and without retries."""
        found = [s for name in names for r in (0, 2) for s in self.of(name, retries=r)]
        return sum(getattr(s, what) for s in found) if found else None

    def share(self, name: str, other: str, what: str) -> float | None:
        """Percent of our own median in another scenario."""
        this, that = self.median(name, what), self.median(other, what)
        return None if this is None or not that else 100.0 * this / that

    def failing(self, name: str) -> float | None:
        """Percent of the requests during a fault that made an attempt fail, the median."""
        scenario = BY_NAME[name]
        part = scenario.ends / scenario.seconds
        shares = [100.0 * s.failures_extra / (part * s.arrived) for s in self.of(name)]
        return statistics.median(shares) if shares else None

    def ratio(self, name: str, what: str, other: str, retries: int = 0) -> float | None:
        """Percent of another policy's median."""
        ours, theirs = self.pair(name, what, other, retries)
        return None if ours is None or not theirs else 100.0 * ours / theirs


def _median(found: list[Summary], what: str) -> float | None:
    values = [value for s in found if (value := getattr(s, what)) is not None]
    return statistics.median(values) if values else None


def _excess(reader: Reader, name: str) -> float | None:
    ours, theirs = reader.pair(name, "lost_extra", SEED, 2)
    return None if ours is None or theirs is None else max(0.0, ours - theirs)


def _wrong(reader: Reader, *names: str) -> float | None:
    """Wrong exclusions, shared or local, of any seed."""
    verdicts, outs = (reader.total(names, what) for what in ("wrong_verdicts", "wrong_outs"))
    return None if verdicts is None or outs is None else verdicts + outs


GOALS: tuple[tuple[str, float, str, Callable[[Reader], float | None]], ...] = (
    ("down (A), no retries: lost requests, of the seed's", 6, " %",
     lambda r: r.ratio("A", "lost_extra", SEED)),
    ("grey (B), no retries: lost requests, of the seed's", 15, " %",
     lambda r: r.ratio("B", "lost_extra", SEED)),
    ("down (A), retries: failed attempts, of the seed's", 6, " %",
     lambda r: r.ratio("A", "failures_extra", SEED, 2)),
    ("grey (B), retries: failed attempts, of the seed's", 15, " %",
     lambda r: r.ratio("B", "failures_extra", SEED, 2)),
    ("down (A), retries: lost requests more than the seed", 0, "", lambda r: _excess(r, "A")),
    ("grey (B), retries: lost requests more than the seed", 0, "", lambda r: _excess(r, "B")),
    ("dead (A, F3): left out after a proxy's fifth failed attempt, worst", 0.2, " s",
     lambda r: r.most(("A", "F3"), "local_lag")),
    ("dead (F3): every proxy after the evidence suffices, worst", 1, " s",
     lambda r: r.most(("F3",), "fleet_lag")),
    ("dead (A, F3): failed attempts of a proxy before it leaves it out, worst", 5, "",
     lambda r: r.most(("A", "F3"), "before_out")),
    ("500 x 0.1 rps (F500): failed attempts, of those of breakers alone", 1.5, " %",
     lambda r: r.ratio("F500", "failures_extra", ALONE)),
    ("back after `until` at 0.5 rps and 2 rps (A0.5, A, L), worst", 15, " s",
     lambda r: r.most(("A0.5", "A", "L"), "until_lag")),
    ("0.2 % errors, 4 h (N): exclusions in all seeds", 0, "", lambda r: _wrong(r, "N")),
    ("4xx storm (Q4xx): exclusions in all seeds", 0, "", lambda r: _wrong(r, "Q4xx")),
    ("429 storm (Q429): exclusions in all seeds", 0, "", lambda r: _wrong(r, "Q429")),
    ("too little left (M): survivors excluded in all seeds", 0, "", lambda r: _wrong(r, "M")),
    ("one bad model (O): times the other one was left out, all seeds", 0, "",
     lambda r: r.total(("O",), "other_model_outs")),
    ("one liar of ten (Poison): exclusions in all seeds", 0, "", lambda r: _wrong(r, "Poison")),
    ("one that claims all is well, beside nine (Praise): failed attempts, of those without", 120,
     " %", lambda r: r.share("Praise", "Honest", "failures_extra")),
    ("clocks off, reports twice, operator restarted (Pskew): outcomes counted wrong, all seeds", 0,
     "", lambda r: r.total(("Pskew",), "miscounted")),
    ("all at 70 % (E): requests turned away, worst", 0, "", lambda r: r.most(("E",), "rejected")),
    ("hang of 30 s (C), no retries: lost requests, of the seed's", 20, " %",
     lambda r: r.ratio("C", "lost_extra", SEED)),
    ("hang of 120 s (C120), no retries: failed attempts, of the seed's", 20, " %",
     lambda r: r.ratio("C120", "failures_extra", SEED)),
    ("streams that hang (Qstall), no retries: lost requests, of the seed's", 20, " %",
     lambda r: r.ratio("Qstall", "lost_extra", SEED)),
    ("one unlucky first request (D): times out, all seeds", 0, "",
     lambda r: r.total(("D",), "outs")),
    ("slow (F), no retries: slow answers, of the seed's", 30, " %",
     lambda r: r.ratio("F", "slow", SEED)),
    ("flapping (G), no retries: failed attempts, of the seed's", 5, " %",
     lambda r: r.ratio("G", "failures_extra", SEED)),
    ("two of three down (J), no retries: failed attempts, of the requests meanwhile", 3, " %",
     lambda r: r.failing("J")),
    ("15 s down (L): back after its end, median", 30, " s", lambda r: r.median("L", "in_after")),
)  # fmt: skip


def goals(outcome: Outcome) -> list[Goal]:
    """All goals with their figures."""
    reader = Reader(outcome)
    return [Goal(text, limit, measure(reader), unit) for text, limit, unit, measure in GOALS]
