"""The results as Markdown tables: medians and ranges over the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from bench.simulate.constants import VARIATIONS, Variation
from bench.simulate.goals import Reader, goals
from bench.simulate.runner import Outcome
from bench.simulate.scenarios import BY_NAME, CHANCE_SECONDS, CHANCES, SCENARIOS, Scenario
from bench.simulate.simulation import ALONE, NEXUS
from bench.simulate.summary import Summary

NAMES = {
    NEXUS: "Nexus",
    ALONE: "breakers alone",
    "seed": "seed",
    "linkerd": "Linkerd",
    "envoy": "Envoy",
}


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def spread(values: Iterable[float | None]) -> str:
    """`median (least–most)`, a dash if there is nothing; values that never came are left out."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    middle, least, most = statistics.median(known), min(known), max(known)
    if least == most:
        return _number(middle)
    return f"{_number(middle)} ({_number(least)}–{_number(most)})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) or abs(value) >= 10 else f"{value:.1f}"


def _cells(found: list[Summary]) -> list[str]:
    return [
        spread(s.lost_extra for s in found),
        spread(s.failures_extra for s in found),
        spread(s.out_after for s in found),
        spread(s.in_after for s in found),
        spread(max(s.outs, s.verdicts) for s in found),
        str(sum(s.wrong_verdicts + s.wrong_outs for s in found)),
        spread(s.slow for s in found),
    ]


COLUMNS = (
    "lost", "failed attempts", "out after s", "back after s", "times out", "wrongly", "slow",
)  # fmt: skip


def scenario_tables(outcome: Outcome) -> Iterator[str]:
    """One table per scenario that was run."""
    reader = Reader(outcome)
    for scenario in SCENARIOS:
        rows = [
            [NAMES[policy], "yes" if retries else "no", *_cells(found)]
            for policy in scenario.policies
            for retries in scenario.retries
            if (found := reader.of(scenario.name, policy, retries))
        ]
        if rows:
            yield f"**{scenario.name}**: {_title(scenario)}\n\n" + markdown(
                ("policy", "retries", *COLUMNS), rows
            )


def _title(scenario: Scenario) -> str:
    return scenario.title + (f" ({scenario.note})" if scenario.note else "")


def chance_table(outcome: Outcome) -> str:
    """How often a backend that fails now and then is left out, per hour."""
    reader = Reader(outcome)
    rows = []
    for scenario in CHANCES:
        found = reader.of(scenario.name)
        if found:
            hours = len(found) * scenario.seconds / 3600
            verdicts = sum(s.verdicts for s in found) / hours
            outs = sum(s.outs for s in found) / hours
            share = statistics.median(s.share for s in found)
            rows.append([scenario.name, f"{verdicts:.2f}", f"{outs:.2f}", f"{100 * share:.0f} %"])
    if not rows:
        return ""
    header = ("errors", "shared exclusions an hour", "times out of a proxy an hour", "its traffic")
    return markdown(header, rows)


def constants_table(outcome: Outcome) -> str:
    """The constants, each with other values, on the same seeds."""
    reader = Reader(outcome)
    rows = [row for variation in VARIATIONS for row in _variation_rows(reader, variation)]
    header = ("constant", "value", "scenario", "failed attempts", "out after s", "back after s",
              "exclusions an hour")  # fmt: skip
    return markdown(header, rows) if rows else ""


def _variation_rows(reader: Reader, variation: Variation) -> Iterator[list[str]]:
    for name in variation.scenarios:
        other = reader.of(name, NEXUS + variation.name)
        shipped = reader.of(name)[: len(other)]
        hours = BY_NAME[name].seconds / 3600
        told = ((f"{variation.shipped} (shipped)", shipped), (variation.value, other))
        for value, found in told if other else ():
            often = statistics.mean(max(s.outs, s.verdicts) for s in found) / hours
            yield [
                variation.constant,
                value,
                f"{name}, {len(found)} seeds",
                spread(s.failures_extra for s in found),
                spread(s.out_after for s in found),
                spread(s.in_after for s in found),
                f"{often:.2f}",
            ]


def origin(outcome: Outcome) -> str:
    """Of which sources and how many seeds the tables are, policy by policy."""
    told = []
    for policy, name in NAMES.items():
        seeds = [
            len(found)
            for (scenario, label, _), found in outcome.summaries.items()
            if label == policy and BY_NAME[scenario].seeds is None
        ]
        if seeds:
            least, most = min(seeds), max(seeds)
            number = f"{most}" if least == most else f"{least} to {most}"
            commits = ", ".join(sorted(outcome.commits.get(policy, ())))
            told.append(f"{name}: {number} seeds" + (f", commit {commits}" if commits else ""))
    return "; ".join(told) + "." if told else ""


def report(outcome: Outcome) -> str:
    """Everything, as a section of Markdown without its heading."""
    constants = constants_table(outcome)
    parts = [
        origin(outcome) + "\n",
        "### Goals\n",
        markdown(("goal", "limit", "measured", ""), [goal.row() for goal in goals(outcome)]),
        "### Scenarios\n",
        "\n".join(scenario_tables(outcome)),
    ]
    chances = chance_table(outcome)
    if chances:
        spans = ", ".join(f"{s / 60:g} min at {rps:g} rps" for rps, s in CHANCE_SECONDS.items())
        parts += [
            "### A backend that fails now and then\n",
            f"One of three, without retries, from the first request on, {spans} per seed. Nothing "
            "is expected of these, they are as they are.\n",
            chances,
        ]
    if constants:
        parts += ["### Constants\n", constants]
    return "\n".join(parts)
