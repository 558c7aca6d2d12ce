"""One run in a few numbers, beside the fault-free run of the same seed."""

from __future__ import annotations

from dataclasses import dataclass

from bench.simulate.measure import Result
from bench.simulate.objects import uid_of
from bench.simulate.scenarios import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What became of one run. Times in seconds, None: it never happened.

    `lost`: requests the client saw fail; `…_extra`: more than without the fault. `share`: part of
    the attempts that went to the bad backends. `out_after`: from the fault to the first proxy
    that left a bad backend out, `in_after`: from the fault's end to the last that took it back.
    `verdicts`: shared exclusions of bad backends; `wrong`: of others, by the shared verdict or in
    a proxy alone.
    """

    arrived: int
    lost: int
    lost_extra: int
    rejected: int
    failures: int
    failures_extra: int
    slow: int
    share: float
    out_after: float | None
    in_after: float | None
    verdicts: int
    outs: int
    wrong_verdicts: int
    wrong_outs: int
    before_out: int
    local_lag: float | None
    fleet_lag: float | None
    until_lag: float | None
    other_model_outs: int
    slow_short: int
    refused_reports: int
    miscounted: int


def summary(scenario: Scenario, result: Result, free: Result | None) -> Summary:
    """The numbers of one run; `free`: the fault-free run of its seed."""
    bad = {uid_of(number) for number in scenario.bad}
    seconds = scenario.seconds
    expected_losses = sum(t <= seconds for t in free.losses) if free else 0
    expected_failures = sum(t <= seconds for t in free.wasted) if free else 0
    attempts = result.attempts.total()
    outs = [move for move in result.moves if not move.inside]
    exclusions = [turn for turn in result.turns if turn.row in ("S1", "S12")]
    return Summary(
        arrived=result.arrived,
        lost=result.lost,
        lost_extra=result.lost - expected_losses,
        rejected=result.rejected,
        failures=result.failures,
        failures_extra=result.failures - expected_failures,
        slow=result.slow,
        share=sum(result.attempts[n] for n in scenario.bad) / max(1, attempts),
        out_after=min((m.at for m in outs if m.backend in bad), default=None),
        in_after=_back(scenario, result, bad),
        verdicts=sum(turn.backend in bad for turn in exclusions),
        outs=sum(move.backend in bad for move in outs),
        wrong_verdicts=sum(turn.backend not in bad for turn in exclusions),
        wrong_outs=sum(move.backend not in bad for move in outs),
        before_out=round(max(_firsts(result, bad, "failures"), default=0)),
        local_lag=_local_lag(scenario, result),
        fleet_lag=_fleet_lag(scenario, result, bad),
        until_lag=_until_lag(scenario, result, bad),
        other_model_outs=sum(move.model == "other" for move in outs),
        slow_short=result.slow_by_model["short"],
        refused_reports=result.refused_reports,
        miscounted=result.miscounted,
    )


def _firsts(result: Result, bad: set[str], what: str) -> list[float]:
    """A figure of each proxy's first time of leaving a bad backend out."""
    seen: dict[tuple[int, str], float] = {}
    for move in result.moves:
        if not move.inside and move.backend in bad:
            seen.setdefault((move.proxy, move.backend), getattr(move, what))
    return list(seen.values())


def _back(scenario: Scenario, result: Result, bad: set[str]) -> float | None:
    last: dict[tuple[int, str, str], tuple[float, bool]] = {}
    for move in result.moves:
        if move.backend in bad:
            last[move.proxy, move.backend, move.model] = (move.at, move.inside)
    if not last or not all(inside for _, inside in last.values()):
        return None
    return max(0.0, max(at for at, _ in last.values()) - scenario.ends)


def _local_lag(scenario: Scenario, result: Result) -> float | None:
    """The longest time from a proxy's fifth failed attempt to leaving the backend out."""
    lags = []
    for (proxy, number), fifth in result.fifth.items():
        outs = [
            m.at
            for m in result.moves
            if m.proxy == proxy and m.backend == uid_of(number) and not m.inside
        ]
        if number in scenario.bad:
            lags.append(max(0.0, min(outs, default=scenario.seconds) - fifth))
    return max(lags, default=None)


def _fleet_lag(scenario: Scenario, result: Result, bad: set[str]) -> float | None:
    """From the proxy's leaving it out that makes a majority also without one, to the last."""
    firsts = sorted(_firsts(result, bad, "at"))
    proxies = scenario.shape.proxies
    if len(bad) != 1 or len(firsts) < proxies:
        return None
    majority = min(proxies, proxies // 2 + 1)
    return firsts[-1] - firsts[majority - 1]


def _until_lag(scenario: Scenario, result: Result, bad: set[str]) -> float | None:
    """From the end of the exclusion that outlasted the fault to Active."""
    for uid in bad:
        ending = None
        for turn in result.turns:
            if turn.backend != uid:
                continue
            if turn.row in ("S1", "S12"):
                well = turn.until is not None and turn.until >= scenario.ends
                ending = turn.until if well else None
            elif turn.row == "S11" and ending is not None:
                return turn.at - ending
    return None
