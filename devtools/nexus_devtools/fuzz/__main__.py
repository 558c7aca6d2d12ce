"""`python -m nexus_devtools.fuzz [--seconds 600]`: the properties in turn, on ever new examples.

Prints how many examples each has held for; the first failing one, made small, ends it with 1.
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
    failed = 0
    while time.monotonic() < end and not failed:
        for name in RUNS:
            try:
                run(name, EXAMPLES)
            except AssertionError as error:
                failed += 1
                print(f"{name} does not hold:\n{error}\n")
            except ExceptionGroup as group:
                failed += 1
                print(f"{name} does not hold:", *group.exceptions, sep="\n")
            else:
                done[name] += EXAMPLES
    for name, count in done.items():
        print(f"{name}: {count} examples")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
