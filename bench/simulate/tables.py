"""The results as Markdown tables: medians and ranges over the seeds."""

from __future__ import annotations

import itertools
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
            [NAMES[policy], "yes" if retries else "no", str(len(found)), *_cells(found)]
            for policy in scenario.policies
            for retries in scenario.retries
            if (found := reader.of(scenario.name, policy, retries))
        ]
        if rows:
            yield f"**{scenario.name}**: {_title(scenario)}\n\n" + markdown(
                ("policy", "retries", "seeds", *COLUMNS), rows
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
    """The constants, each with other values, on the same seeds; in bold what is shipped."""
    reader = Reader(outcome)
    rows = [row for one in _by_constant() for row in _varied_rows(reader, one)]
    header = ("constant", "scenario", "seeds", "value", "failed attempts", "out after s",
              "back after s", "exclusions an hour")  # fmt: skip
    return markdown(header, rows) if rows else ""


def _by_constant() -> Iterator[list[Variation]]:
    for _, found in itertools.groupby(VARIATIONS, key=lambda variation: variation.constant):
        yield list(found)


def _varied_rows(reader: Reader, values: Sequence[Variation]) -> Iterator[list[str]]:
    for name in values[0].scenarios:
        others = {one.value: reader.of(name, NEXUS + one.name) for one in values}
        seeds = min(map(len, (reader.of(name), *others.values())))
        if not seeds:
            continue
        first = [values[0].constant, name, str(seeds)]
        told = {f"**{values[0].shipped}**": reader.of(name), **others}
        for value, found in told.items():
            yield [*first, value, *_varied_cells(found[:seeds], BY_NAME[name].seconds / 3600)]
            first = ["", "", ""]


def _varied_cells(found: Sequence[Summary], hours: float) -> list[str]:
    often = statistics.mean(max(s.outs, s.verdicts) for s in found) / hours
    return [
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
