"""The command line of the simulation."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.simulate.batches import Batches
from bench.simulate.runner import Outcome, run, tasks, variations
from bench.simulate.scenarios import BY_NAME, CHANCES, QUICK, SCENARIOS, Scenario
from bench.simulate.svg import timeline
from bench.simulate.tables import report

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "quality.md"
IMAGES = DOCS / "img"
PICTURES = ("A", "B", "E", "F3")
SEEDS, QUICK_SEEDS = 20, 2
BEGIN = "<!-- simulation: begin -->"
END = "<!-- simulation: end -->"


def main(arguments: Sequence[str]) -> int:
    """Run, print, and with `--write` put tables and timelines into docs/."""
    options = _options(arguments)
    scenarios = _chosen(options)
    if scenarios is None:
        return 2
    seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    began = time.monotonic()
    todo = tasks(scenarios, seeds, PICTURES)
    if options.constants or (options.scenario is None and not options.quick):
        todo += variations(seeds)
    outcome = run(todo, seeds=seeds, batches=Batches(options.batches), minutes=options.minutes)
    text = report(outcome)
    print(text)
    print(f"{seeds} seeds, {time.monotonic() - began:.0f} s", file=sys.stderr)
    if options.write:
        write(outcome, text)
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, help=f"default {SEEDS}, with --quick {QUICK_SEEDS}")
    parser.add_argument("--scenario", help="names, separated by commas; default: all")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--constants", action="store_true", help="vary the constants as well")
    parser.add_argument("--batches", type=Path, help="a directory: what is in it is not run again")
    parser.add_argument("--minutes", type=float, help="then stop, and print what there is")
    parser.add_argument("--write", action="store_true", help="update docs/quality.md, docs/img")
    return parser.parse_args(arguments)


def _chosen(options: argparse.Namespace) -> list[Scenario] | None:
    if options.scenario is None:
        return [BY_NAME[name] for name in QUICK] if options.quick else [*SCENARIOS, *CHANCES]
    names = options.scenario.split(",")
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        print(f"no scenario {unknown[0]!r}: there are {', '.join(BY_NAME)}", file=sys.stderr)
        return None
    return [BY_NAME[name] for name in names]


def write(outcome: Outcome, text: str) -> None:
    """Put the tables between the markers of docs/quality.md, the timelines beside it."""
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", "utf-8")
    IMAGES.mkdir(exist_ok=True)
    for name in PICTURES:
        scenario = BY_NAME[name]
        found = [
            (policy, result)
            for policy in scenario.policies
            if (result := outcome.pictures.get((name, policy, 0))) is not None
        ]
        if found:
            drawing = timeline(scenario, found)
            (IMAGES / f"simulation-{name.lower()}.svg").write_text(drawing, "utf-8")
