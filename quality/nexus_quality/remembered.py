"""What was worked out of backends, kept for as long as it is still so.

Promises that everything here may be forgotten at any moment and would be worked out the same again:
it saves work and decides nothing. A report is news to the backends it speaks of; that of a reporter
which was silent, or is complete only now, to all that it uses.
"""

from __future__ import annotations

from nexus_quality.attendance import Attendance
from nexus_quality.calm import Calms
from nexus_quality.evidence import ALIVE_SECONDS, Shown
from nexus_quality.ledger import Ledger


class Remembered:
    """Looks, users and evidence by UID of the backend."""

    def __init__(self) -> None:
        self.calms = Calms()
        self.attendance = Attendance()
        self.shown: dict[str, Shown] = {}

    def clear(self) -> None:
        """Forget everything."""
        self.calms.clear()
        self.attendance.clear()
        self.shown.clear()

    def forget(self, uid: str) -> None:
        """Forget a backend."""
        self.calms.forget(uid)
        self.attendance.forget(uid)
        self.shown.pop(uid, None)

    def heard(
        self, ledger: Ledger, reporter: str, touched: frozenset[str], *, steady: bool
    ) -> None:
        """A reporter spoke of the backends `touched`; `steady`: what `is_steady` said before."""
        self.calms.heard(touched, reporter)
        uids = touched if steady else touched.union(ledger.uses(reporter))
        self.attendance.heard(uids, reporter)
        for uid in uids:
            self.shown.pop(uid, None)


def is_steady(ledger: Ledger, reporter: str, now: float) -> bool:
    """Whether a reporter's next report is no news to backends that it does not speak of."""
    known = ledger.reporters.get(reporter)
    return known is not None and known.complete and now - known.heard <= ALIVE_SECONDS
