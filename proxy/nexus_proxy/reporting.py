"""One task that sends the monitor's reports to the operator.

Urgent ones leave when the monitor says so, full ones every 10 to 30 s. While the operator is away
nothing is lost: the monitor keeps what was not answered, and attempts are spaced by growing,
jittered pauses. A new epoch of the operator is answered by a full report, jittered, at most once
per 10 s. A token file is read again for every report. The content of a report, and when one is
urgent, are `nexus_quality.monitor`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from nexus_api.pace import paced
from nexus_proxy.counters import Counters
from nexus_proxy.kube.client import read_token
from nexus_quality.monitor import REPLAY_EVERY_SECONDS, Monitor
from nexus_quality.report import Answer, InvalidReport, Report, decode_answer, encode

PATH = "/v1/outcomes"
FULL_SECONDS = (paced(10.0), paced(30.0))
FIRST_SECONDS = 1.0
REPLAY_JITTER_SECONDS = paced(5.0)
BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MOST_SECONDS = paced(30.0)
TIMEOUT_SECONDS = 5.0
FINAL_ATTEMPTS = 2

_log = logging.getLogger("nexus.proxy.reporting")


class Undelivered(Exception):
    """The report was not taken; the message says why, in one line."""


Deliver = Callable[[bytes], Awaitable[Answer]]


class OperatorIntake:
    """Delivers reports to the operator over HTTP."""

    def __init__(
        self,
        url: str,
        token_file: Path | None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url.rstrip("/") + PATH
        self._token_file = token_file
        self._http = httpx.AsyncClient(
            trust_env=False,
            timeout=TIMEOUT_SECONDS,
            transport=transport,
            verify=_trust(url),
        )

    async def deliver(self, body: bytes) -> Answer:
        """Send one report. Raises Undelivered."""
        headers = {"content-type": "application/json"}
        token = read_token(self._token_file) if self._token_file else None
        if token:
            headers["authorization"] = f"Bearer {token}"
        try:
            response = await self._http.post(self._url, content=body, headers=headers)
        except httpx.TransportError as error:
            detail = " ".join(str(error).split()) or type(error).__name__
            raise Undelivered(f"cannot reach the operator at {self._url}: {detail}") from None
        if response.status_code != httpx.codes.OK:
            raise Undelivered(self._refused(response))
        try:
            return decode_answer(response.content)
        except InvalidReport as error:
            raise Undelivered(f"the answer of {self._url} is none: {error}") from None

    def _refused(self, response: httpx.Response) -> str:
        told = f"the operator at {self._url} answered {response.status_code}"
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            source = self._token_file or "none (--report-token-file is not set)"
            return f"{told}: it does not accept the report token {source}"
        return f"{told}: {' '.join(response.text.split())[:200]}"

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()


def _trust(url: str) -> ssl.SSLContext:
    # Reading the system's trust store costs milliseconds and megabytes: only for TLS.
    if url.startswith("https:"):
        return ssl.create_default_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


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
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), wait)
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
        """Say goodbye with everything not yet answered; gives up after two attempts."""
        for _ in range(FINAL_ATTEMPTS):
            report = (
                self._monitor.report(self._clock(), full=False, final=True)
                if self._monitor
                else None
            )
            if report is None or await self._send(report):
                return

    async def _send(self, report: Report) -> bool:
        assert self._monitor is not None
        body = encode(report)
        try:
            answer = await self._deliver(body)
        except Undelivered as error:
            self._failed(str(error))
            return False
        except asyncio.CancelledError:
            self._monitor.unanswered(self._clock())
            raise
        now = self._clock()
        self._worked()
        for refusal in answer.refused:
            _log.warning("the operator refused a part of the report: %s", refusal.reason)
        if self._monitor.acknowledged(report, answer, now):
            earliest = max(now, self._replayed + REPLAY_EVERY_SECONDS)
            self._replay_at = min(
                self._replay_at, earliest + REPLAY_JITTER_SECONDS * self._random()
            )
        return True

    def _failed(self, trouble: str) -> None:
        assert self._monitor is not None
        now = self._clock()
        self._monitor.unanswered(now)
        self._counters.reports_failed += 1
        if trouble != self._trouble:
            self._trouble = trouble
            _log.warning("%s; routing goes on with the last known state", trouble)
        grown = min(BACKOFF_FIRST_SECONDS * 2.0 ** min(self._failures, 16), BACKOFF_MOST_SECONDS)
        self._failures += 1
        self._not_before = now + grown * (0.5 + 0.5 * self._random())
        # What was not delivered is still due, once the pause is over.
        self._urgent_at = self._not_before

    def _worked(self) -> None:
        self._counters.reports_sent += 1
        self._failures = 0
        self._not_before = float("-inf")
        if self._trouble:
            self._trouble = ""
            _log.info("the operator takes reports again")
