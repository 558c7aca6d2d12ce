"""`python -m nexus_devtools.fuzz [--seconds 600]`: the properties in turn, on ever new examples.

Prints how many examples each has held for; one that fails is shown, made small, and makes the exit
code 1. The others go on.
"""

from __future__ import annotations

import argparse
import sys
import time

from nexus_devtools.fuzz.runs import RUNS, run

EXAMPLES = 1000  # between two looks at the clock


def main() -> int:
    """Fuzz until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m nexus_devtools.fuzz")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (600)")
    end = time.monotonic() + parser.parse_args().seconds
    done = dict.fromkeys(RUNS, 0)
    failed: set[str] = set()
    while time.monotonic() < end and len(failed) < len(RUNS):
        for name in RUNS.keys() - failed:
            try:
                run(name, EXAMPLES)
            except AssertionError as error:
                failed.add(name)
                print(f"{name} does not hold:\n{error}\n", flush=True)
            except ExceptionGroup as group:
                failed.add(name)
                print(f"{name} does not hold:", *group.exceptions, sep="\n", flush=True)
            else:
                done[name] += EXAMPLES
    for name, count in done.items():
        print(f"{name}: {count} examples")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
