"""The closing summary: figures in words, and whether what the demo claims was measured.

Promises: pure; the exit code is 0 only if every claim holds. It is NOT lenient: a figure that was
not measured fails its claim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nexus_devtools.demo import scenario
from nexus_devtools.demo.measure import Figures


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing the demo says about the product, and whether this run showed it."""

    text: str
    held: bool


def claims(figures: Figures) -> tuple[Claim, ...]:
    """What must have been measured for the demo to have shown what it claims."""
    return tuple(Claim(text, holds(figures)) for text, holds in _CLAIMS)


def exit_code(judged: Sequence[Claim]) -> int:
    """0 if all claims held, else 1."""
    return 0 if all(claim.held for claim in judged) else 1


def lines(figures: Figures, judged: Sequence[Claim]) -> list[str]:
    """The summary, ready to print."""
    width = max(len(label) for label, _ in _ROWS)
    table = [f"  {label:<{width}}  {say(figures)}" for label, say in _ROWS]
    verdicts = [f"  [{'ok' if claim.held else 'NOT SHOWN'}] {claim.text}" for claim in judged]
    broken = [
        f"  a client saw: {detail} ({count} times)"
        for detail, count in sorted(figures.client_failures.items())
    ]
    return ["Measured in this run", *table, *broken, "", "Shown", *verdicts, "", *_CAVEATS]


def _answered(figures: Figures) -> bool:
    answer = figures.answer
    return answer is not None and bool(answer.text.strip()) and answer.backend == scenario.REAL


def _excluded(figures: Figures) -> bool:
    seconds = figures.seconds_to_exclude
    return seconds is not None and seconds <= scenario.EXCLUSION_GOAL_SECONDS


def _unharmed(figures: Figures) -> bool:
    everyone = all(figures.requests_by_app.get(app) for app in scenario.APPS)
    return everyone and not figures.client_failures


def _lost_share(figures: Figures) -> bool:
    before, after = figures.share_before, figures.share_after
    return before is not None and after is not None and before > 0 and after <= before / 2


_CLAIMS: tuple[tuple[str, Callable[[Figures], bool]], ...] = (
    ("a real language model answered through a proxy", _answered),
    (
        f"a broken backend was excluded within {scenario.EXCLUSION_GOAL_SECONDS:g} s",
        _excluded,
    ),
    ("while it was excluded, it was sent no traffic", lambda f: f.served_while_excluded == 0),
    ("no client saw a failure", _unharmed),
    ("repaired, it came back by itself", lambda f: f.seconds_to_return is not None),
    ("a slow backend lost at least half of its share", _lost_share),
)


def _seconds(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1f} s"


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{100 * value:.0f} %"


def _requests(figures: Figures) -> str:
    apps = ", ".join(f"{app} {count}" for app, count in sorted(figures.requests_by_app.items()))
    return f"{figures.requests} ({apps}; {figures.streamed} streamed) in {figures.seconds:.0f} s"


def _slow(figures: Figures) -> str:
    text = f"{_percent(figures.share_before)} -> {_percent(figures.share_after)}"
    if figures.score_before is None or figures.score_after is None:
        return text
    return f"{text}, score {figures.score_before} -> {figures.score_after}"


def _attempts(figures: Figures) -> str:
    if figures.attempts_failed is None:
        return "not measured"
    return f"{figures.attempts_failed} (counted by the backend itself)"


_ROWS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("requests", _requests),
    ("failures that clients saw", lambda f: str(sum(f.client_failures.values()))),
    ("answers that took a retry", lambda f: str(f.retried)),
    ("first fault to Excluded", lambda f: _seconds(f.seconds_to_exclude)),
    ("failed attempts before exclusion", _attempts),
    ("repair to Probation", lambda f: _seconds(f.seconds_to_probation)),
    ("repair to Active", lambda f: _seconds(f.seconds_to_return)),
    ("share of the slow backend", _slow),
)

_CAVEATS = (
    "sim-a and sim-b are simulated, openly; gemma is a real model. The policy demo is the default",
    "but for what two minutes are too short for (default): exclusion 10 s (30 s), slow start 10 s",
    "(30 s), metrics every 2 s (30 s), TTFT threshold 400 ms (3000 ms). Seconds are from the fault",
    "or repair to the watch event, as a plain observer of the API server sees them.",
)
