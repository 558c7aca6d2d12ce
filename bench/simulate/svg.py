"""Timelines as SVG: error rate, share of the traffic and state of the backend that breaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from bench.simulate.measure import BIN_SECONDS, Result
from bench.simulate.objects import uid_of
from bench.simulate.scenarios import Scenario
from bench.simulate.tables import NAMES

WIDTH, LEFT, RIGHT = 760, 110, 14
PANEL, GAP, TOP, BOTTOM = 84, 22, 40, 34
STRIP = 7
COLOURS = {"Excluded": "#c0392b", "Probation": "#e0a030", "out": "#c0392b"}
TRAFFIC, ERRORS, FAULT, GRID = "#2c6fbb", "#d9534f", "#f4e9e6", "#cccccc"


def timeline(scenario: Scenario, results: Sequence[tuple[str, Result]]) -> str:
    """A drawing with one panel per policy."""
    height = TOP + len(results) * (PANEL + GAP) + BOTTOM
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="16" font-size="13">{escape(scenario.name)}: '
        f"{escape(scenario.title)}</text>",
        *_legend(),
    ]
    for number, (policy, result) in enumerate(results):
        body += _panel(scenario, NAMES[policy], result, TOP + number * (PANEL + GAP))
    body += _axis(scenario, height - BOTTOM + 4)
    return "\n".join([*body, "</svg>", ""])


def _x(scenario: Scenario, seconds: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * min(max(seconds / scenario.seconds, 0.0), 1.0)


def _legend() -> Iterator[str]:
    entries = (
        (TRAFFIC, "its share of the attempts"), (ERRORS, "failed attempts, of all"),
        (COLOURS["Excluded"], "out"), (COLOURS["Probation"], "probation"), (FAULT, "fault"),
    )  # fmt: skip
    x = LEFT
    for colour, text in entries:
        yield f'<rect x="{x}" y="23" width="9" height="9" fill="{colour}"/>'
        yield f'<text x="{x + 13}" y="31">{text}</text>'
        x += 26 + 6 * len(text)


def _panel(scenario: Scenario, name: str, result: Result, top: float) -> Iterator[str]:
    left, right = _x(scenario, 0.0), _x(scenario, scenario.seconds)
    end = _x(scenario, min(scenario.ends, scenario.seconds))
    yield f'<rect x="{left}" y="{top}" width="{end - left:.1f}" height="{PANEL}" fill="{FAULT}"/>'
    for share in (0.0, 0.5, 1.0):
        y = top + PANEL * (1 - share)
        yield f'<line x1="{left}" x2="{right}" y1="{y}" y2="{y}" stroke="{GRID}"/>'
        yield f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{share:.0%}</text>'
    yield f'<text x="6" y="{top + PANEL / 2}" font-weight="bold">{escape(name)}</text>'
    traffic, errors = _series(scenario, result)
    yield _line(scenario, errors, top, ERRORS)
    yield _line(scenario, traffic, top, TRAFFIC)
    for begin, finish, state in _states(scenario, result):
        x, until = _x(scenario, begin), _x(scenario, finish)
        yield (
            f'<rect x="{x:.1f}" y="{top + PANEL + 3}" width="{max(1.0, until - x):.1f}" '
            f'height="{STRIP}" fill="{COLOURS[state]}"/>'
        )


def _series(scenario: Scenario, result: Result) -> tuple[list[float], list[float]]:
    """Per bin: the bad backends' share of the attempts, and the share of attempts that failed."""
    bad, bins = set(scenario.bad), result.bins
    traffic, errors = [], []
    for number in range(int(scenario.seconds // BIN_SECONDS)):
        begun = {b: n for (b, at, good), n in bins.items() if at == number and good}
        failed = sum(n for (_, at, good), n in bins.items() if at == number and not good)
        all_begun = max(1, sum(begun.values()))
        traffic.append(sum(n for b, n in begun.items() if b in bad) / all_begun)
        errors.append(min(1.0, failed / all_begun))
    return traffic, errors


def _line(scenario: Scenario, values: Sequence[float], top: float, colour: str) -> str:
    points = " ".join(
        f"{_x(scenario, (number + 0.5) * BIN_SECONDS):.1f},{top + PANEL * (1 - value):.1f}"
        for number, value in enumerate(values)
    )
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.3"/>'


def _states(scenario: Scenario, result: Result) -> Iterator[tuple[float, float, str]]:
    """What the first bad backend was, from when to when: by the verdict, else in proxy 0."""
    uid = uid_of(min(scenario.bad))
    changes = [(turn.at, turn.state) for turn in result.turns if turn.backend == uid] or [
        (move.at, "Active" if move.inside else "out")
        for move in result.moves
        if move.backend == uid and move.proxy == 0
    ]
    ends = [at for at, _ in changes[1:]] + [scenario.seconds]
    for (at, state), end in zip(changes, ends, strict=True) if changes else ():
        if state in COLOURS:
            yield at, end, state


def _axis(scenario: Scenario, y: float) -> Iterator[str]:
    minutes = scenario.seconds / 60
    step = next(s for s in (1, 2, 5, 10, 20, 60) if minutes / s <= 10)
    for minute in range(0, int(minutes) + 1, step):
        x = _x(scenario, 60.0 * minute)
        yield f'<text x="{x:.1f}" y="{y + 12}" text-anchor="middle">{minute} min</text>'
