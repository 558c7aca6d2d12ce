"""What the operator has been told: whether a report may leave out what was told before.

Promises that an operator is told all there is, in one answered report, before any that holds only
what is new claims to complete it; and again after a refusal, after an answer by another process,
and every few minutes. An operator is known by its epoch. It counts and sends nothing.
"""

from __future__ import annotations

from zlib import crc32

from nexus_api.pace import paced
from nexus_quality.report import Answer, Report

# Well within the ten minutes after which a bucket is sealed.
WHOLE_SECONDS = paced(240.0)
WHOLE_JITTER = 0.25


class Telling:
    """Of one incarnation. `epoch`: that of the latest answer; `replaying`: it is another one, so
    the next report with everything repeats what was counted before.
    """

    __slots__ = ("_every", "_told", "_whole_at", "epoch", "replaying")

    def __init__(self, incarnation: str) -> None:
        self.epoch = ""
        self.replaying = False
        self._told = False
        self._whole_at = float("-inf")
        spread = crc32(incarnation.encode()) / 2**32
        self._every = WHOLE_SECONDS * (1.0 + WHOLE_JITTER * spread)

    @property
    def claim(self) -> str:
        """The epoch whose operator knows all but what is listed as changed, "" if none does."""
        return self.epoch if self._told else ""

    @property
    def unknown(self) -> bool:
        """The operator may know nothing of this process."""
        return self.replaying or not self.epoch

    def due(self, now: float) -> bool:
        """Whether everything is to be told again."""
        return not self._told or now >= self._whole_at

    def answered(self, report: Report, answer: Answer, now: float) -> None:
        """`report` was answered; one that is `full` held everything."""
        if report.full:
            self.replaying, self._told = False, True
            self._whole_at = now + self._every
        # A replay that yet another process answered has told that one everything.
        if self.epoch and answer.epoch != self.epoch and not report.replay:
            self.replaying, self._told = True, False
        if answer.refused:
            self._told = False
        self.epoch = answer.epoch
