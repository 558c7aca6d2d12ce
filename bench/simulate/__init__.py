"""Proof by simulation: the shipped engine, selection and breakers in a discrete-event world.

`main` runs the scenarios and prints tables; `python -m bench simulate` is its command line.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] = ("--quick",)) -> int:
    """Run with command-line arguments; without any, the quick sample."""
    from bench.simulate import cli

    return cli.main(arguments)
