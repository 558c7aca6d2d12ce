"""One task that sends the monitor's reports to the operator.

Urgent ones leave when the monitor says so, and every 10 to 30 s one with all that the operator was
not told yet. While the operator is away or asks to be spared nothing is lost: the monitor keeps
what was not answered, and attempts are spaced by growing, jittered pauses, or as long as the
operator says. A new epoch of the operator is answered by a report with everything, jittered, at
most once per 10 s. A report is sent in parts that the
intake takes, packed if that saves much. The content of a report, and when one is urgent, are
`nexus_quality.monitor`'s business; the connection is `OperatorIntake`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from nexus_api.pace import paced
from nexus_proxy.counters import Counters
from nexus_proxy.intake import Undelivered
from nexus_quality.monitor import REPLAY_EVERY_SECONDS, Monitor
from nexus_quality.refusals import UNKNOWN_BACKEND
from nexus_quality.report import Answer, Report, encode, parts, together

FULL_SECONDS = (paced(10.0), paced(30.0))
FIRST_SECONDS = 1.0
REPLAY_JITTER_SECONDS = paced(5.0)
BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MOST_SECONDS = paced(30.0)
ASKED_MOST_SECONDS = 60.0
FINAL_ATTEMPTS = 3
FINAL_FAILURES = 2

_log = logging.getLogger("nexus.proxy.reporting")


Deliver = Callable[[bytes], Awaitable[Answer]]


class Reporter:
    """The pace of the reports."""

    def __init__(
        self,
        *,
        deliver: Deliver,
        clock: Callable[[], float],
        random: Callable[[], float],
        counters: Counters,
    ) -> None:
        self._deliver = deliver
        self._clock = clock
        self._random = random
        self._counters = counters
        self._monitor: Monitor | None = None
        self._wake = asyncio.Event()
        self._urgent_at = float("inf")
        self._full_at = clock() + FIRST_SECONDS * random()
        self._replay_at = float("inf")
        self._replayed = float("-inf")
        self._not_before = float("-inf")
        self._failures = 0
        self._trouble = ""

    def attach(self, monitor: Monitor) -> None:
        """Report what this monitor knows."""
        self._monitor = monitor

    def urgent(self, delay: float) -> None:
        """A report should leave within `delay` seconds."""
        due = self._clock() + delay
        if due < self._urgent_at:
            self._urgent_at = due
            self._wake.set()

    def next_due(self) -> float:
        """When the next report leaves, on the proxy's clock."""
        return max(self._not_before, min(self._urgent_at, self._full_at, self._replay_at))

    async def run(self) -> None:
        """Send reports until cancelled."""
        while True:
            self._wake.clear()
            wait = self.next_due() - self._clock()
            if wait > 0:
                # Not wait_for: what wakes it at the moment of a cancellation would swallow that.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                continue
            await self.send_due()

    async def send_due(self) -> None:
        """Send the report that is due now."""
        now = self._clock()
        replay = now >= self._replay_at
        full = replay or now >= self._full_at
        self._urgent_at = float("inf")
        if full:
            shortest, longest = FULL_SECONDS
            self._full_at = now + shortest + self._random() * (longest - shortest)
        if replay:
            self._replayed, self._replay_at = now, float("inf")
        monitor = self._monitor
        report = monitor.report(now, full=full) if monitor else None
        if report is not None and not await self._send(report) and full:
            # What a full report says is not lost, but its kind is: the next one must be full again.
            self._full_at = self._not_before

    async def final(self) -> None:
        """Say goodbye with everything that this operator was not told; gives up after two failures.

        An operator that turns out to be new is told all there is.
        """
        failures = 0
        for _ in range(FINAL_ATTEMPTS):
            self._replay_at = float("inf")
            report = (
                self._monitor.report(self._clock(), full=False, final=True)
                if self._monitor
                else None
            )
            if report is None:
                return
            if not await self._send(report):
                failures += 1
            elif self._replay_at == float("inf"):
                return
            if failures >= FINAL_FAILURES:
                return

    async def _send(self, report: Report) -> bool:
        assert self._monitor is not None
        # The cells of a report are alive: all of it is encoded before anything is waited for.
        bodies = [encode(part) for part in parts(report)]
        try:
            answer = together(await self._deliver_all(bodies))
        except Undelivered as error:
            self._failed(error)
            return False
        except asyncio.CancelledError:
            self._monitor.unanswered(self._clock())
            raise
        now = self._clock()
        self._worked()
        for refusal in answer.refused:
            # Of a backend that came or went a moment ago the two watches know at different times.
            level = logging.DEBUG if refusal.reason == UNKNOWN_BACKEND else logging.WARNING
            _log.log(level, "the operator refused a part of the report: %s", refusal.reason)
        if self._monitor.acknowledged(report, answer, now):
            earliest = max(now, self._replayed + REPLAY_EVERY_SECONDS)
            self._replay_at = min(
                self._replay_at, earliest + REPLAY_JITTER_SECONDS * self._random()
            )
        return True

    async def _deliver_all(self, bodies: list[bytes]) -> list[Answer]:
        answers = [await self._deliver(body) for body in bodies]
        if len({answer.epoch for answer in answers}) > 1:
            raise Undelivered("another operator took over in the midst of a report")
        return answers

    def _failed(self, error: Undelivered) -> None:
        assert self._monitor is not None
        now, trouble = self._clock(), str(error)
        self._monitor.unanswered(now)
        self._counters.reports_failed += 1
        if trouble != self._trouble:
            self._trouble = trouble
            _log.warning("%s; routing goes on with the last known state", trouble)
        grown = min(BACKOFF_FIRST_SECONDS * 2.0 ** min(self._failures, 16), BACKOFF_MOST_SECONDS)
        self._failures += 1
        asked = min(error.retry_after, ASKED_MOST_SECONDS)
        jitter = 0.5 + 0.5 * self._random()
        self._not_before = now + max(grown * jitter, asked * (1.0 + 0.1 * self._random()))
        # What was not delivered is still due, once the pause is over.
        self._urgent_at = self._not_before

    def _worked(self) -> None:
        self._counters.reports_sent += 1
        self._failures = 0
        self._not_before = float("-inf")
        if self._trouble:
            self._trouble = ""
            _log.info("the operator takes reports again")
