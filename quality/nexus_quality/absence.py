"""Who is to be heard again once an operator that could not take reports for a while takes them.

Promises that whoever was alive when it stopped is awaited, and nobody else; how long is the
engine's to say. What was counted before stays as it is.
"""

from __future__ import annotations

from nexus_quality.evidence import ALIVE_SECONDS
from nexus_quality.ledger import Ledger


def await_the_living(ledger: Ledger, since: float) -> None:
    """Await all that were alive at `since`, until each has said all it has once more."""
    ledger.awaiting = True
    for reporter in ledger.reporters.values():
        reporter.awaited = not reporter.gone and since - reporter.heard <= ALIVE_SECONDS
        if reporter.awaited:
            reporter.complete = False
            reporter.derived.clear()
