"""`python -m bench [NAME ...]`: run benchmarks and print their tables; all of them by default.
`python -m bench simulate [OPTION ...]` runs the simulation in full, `python -m bench scale [OPTION
...]` a thousand backends and reporters against one operator; both know `--help`.

Each benchmark is a module of this package with a `main()` that prints. Figures are ratios, CPU per
operation or waits on conditions; nothing here passes or fails.
"""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = (
    "decision",
    "quality",
    "bytepath",
    "sidebyside",
    "footprint",
    "idlestreams",
    "streams",
    "workers",
    "verdict",
    "scale",
    "simulate",
)
WITH_OPTIONS = ("simulate", "scale")


def main(names: list[str]) -> int:
    """Run the named benchmarks in order."""
    if names and names[0] in WITH_OPTIONS:
        return int(importlib.import_module(f"bench.{names[0]}").main(names[1:]))
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {unknown[0]!r}: there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    for name in names or BENCHMARKS:
        print(f"\n== {name}", flush=True)
        importlib.import_module(f"bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
