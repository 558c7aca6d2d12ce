"""A fleet of proxies without their byte path: real monitors, real reports over real connections.

Promises that what is reported is what a proxy's own code counts and says, at the pace of a proxy's
own reporter, and in a storm each second. The requests themselves are made up: each succeeds, or
fails while its backend is broken.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from bench.scale.plan import MODELS, Size, uid_of
from bench.scale.wire import Connection

from nexus_api import decode_backend
from nexus_proxy.counters import Counters
from nexus_proxy.intake import PACK_BYTES, Undelivered
from nexus_proxy.reporting import Reporter
from nexus_quality.monitor import Monitor
from nexus_quality.outcome import Outcome
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.report import Answer, decode_answer
from nexus_quality.shared import SharedVerdict, shared_from_status
from nexus_quality.sketch import bin_of
from nexus_quality.subject import Standing, Subject

PACE_SECONDS = 1.0
FIRST_SECONDS = 20.0


class Proxy:
    """One reporter."""

    def __init__(self, number: int, size: Size, world: Fleet) -> None:
        self._chance = random.Random(number)
        self._world = world
        self._rate = size.rate
        self._clock = world.clock
        self.started = self._clock() - size.history
        self._reporter = Reporter(
            deliver=self._deliver,
            clock=self._clock,
            random=self._chance.random,
            counters=Counters(),
        )
        self.monitor = Monitor(
            incarnation=f"{number:032x}",
            started=self.started,
            random=self._chance.random,
            on_change=lambda: None,
            on_urgent=self._reporter.urgent,
        )
        self._reporter.attach(self.monitor)
        self._connection = Connection(world.port, world.token_of(number))
        self._subjects: list[Subject] = []
        for uid in map(world.uid_of, size.users_of(number)):
            self.configure(uid, SharedVerdict())
            self._subjects += [self.monitor.subject(uid, model) for model in MODELS]
        self._remember(size)

    def configure(self, uid: str, shared: SharedVerdict) -> None:
        """The watch brought a verdict."""
        self.monitor.configure(
            uid, policy=DEFAULT_POLICY, shared=shared, fingerprint="", now=self._clock()
        )

    async def run(self) -> None:
        """Lives until cancelled."""
        await asyncio.sleep(FIRST_SECONDS * self._chance.random())
        reports = asyncio.create_task(self._reporter.run())
        try:
            await self._live()
        finally:
            reports.cancel()
            await asyncio.gather(reports, return_exceptions=True)

    async def _live(self) -> None:
        due = self._clock()
        while True:
            now = self._clock()
            self.serve(now)
            self.monitor.tick(now)
            if self._world.storm:
                self._reporter.urgent(0.0)
            due = max(due + PACE_SECONDS, now)
            await asyncio.sleep(max(0.0, due - self._clock()))

    def close(self) -> None:
        """Ends its connection."""
        self._connection.close()

    def _remember(self, size: Size) -> None:
        """The history: as many requests as it makes from now on, all of them good."""
        share = self._rate / len(self._subjects)
        now = self._clock()
        minutes = int(size.history // 60)
        moments = [(self.started + 60 * m, 60) for m in range(max(0, minutes - 10))]
        begin = self.started + 60 * max(0, minutes - 10)
        moments += [(begin + 10 * t, 10) for t in range(int((now - begin) // 10))]
        for subject in self._subjects:
            for moment, length in moments:
                slot = subject.series.slot(moment, 0)
                count = max(1, round(share * length))
                slot.ttft(milliseconds := round(200 + self._chance.random() * 300))
                for cell in slot:
                    cell.requests += count
                    cell.ttft_count += count - 1
                    cell.ttft_ms_sum += (count - 1) * milliseconds
                    for index in cell.ttft_bins:
                        cell.ttft_bins[index] += (count - 1) * (index == bin_of(milliseconds))
        self.monitor.recorder.expire(now)

    def serve(self, now: float) -> None:
        """One second's requests."""
        for _ in range(int(self._rate + self._chance.random())):
            subject = self._chance.choice(self._subjects)
            probe = False
            if subject.standing is Standing.OUT:
                subject.kept_out(now)
                continue
            if subject.standing is Standing.PROBING:
                probe = subject.wants_probe(now)
                if not probe:
                    subject.kept_out(now)
                    continue
            attempt = subject.begin(now - 0.5, probe=probe)
            attempt.sent(now - 0.5)
            if subject.uid in self._world.broken:
                attempt.end(Outcome.SERVER_ERROR, now)
            else:
                attempt.content(now - 0.5 + 0.2 + 0.3 * self._chance.random())
                attempt.end(Outcome.SUCCESS, now)

    async def _deliver(self, body: bytes) -> Answer:
        """As a proxy does it, but for the token's file."""
        began = time.monotonic()
        packed = gzip.compress(body, 1) if len(body) > PACK_BYTES else body
        try:
            status, answer = await self._connection.post("/v1/outcomes", packed, body is not packed)
        except (OSError, EOFError) as error:
            self._connection.close()
            raise Undelivered(f"cut off: {error}") from None
        self._world.answered(len(body), time.monotonic() - began, status)
        if status != 200:
            raise Undelivered(f"answered {status}", retry_after=self._connection.retry_after)
        return decode_answer(answer)


class Fleet:
    """All reporters. `broken`: UIDs of backends that fail now; `storm`: all report each second.

    `uid_of`, `token_of`: the UID of a backend and the token of a reporter, by number.
    """

    def __init__(
        self,
        size: Size,
        port: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        uid_of: Callable[[int], str] = uid_of,
        token_of: Callable[[int], str] = "pod-{:04d}".format,
    ) -> None:
        self.port = port
        self.clock = clock
        self.uid_of, self.token_of = uid_of, token_of
        self.broken: set[str] = set()
        self.storm = False
        self.reset()
        self.proxies = [Proxy(number, size, self) for number in range(size.reporters)]
        self._users: dict[str, list[Proxy]] = {}
        for number, proxy in enumerate(self.proxies):
            for backend in size.users_of(number):
                self._users.setdefault(self.uid_of(backend), []).append(proxy)

    def reset(self) -> None:
        """Begins a new count."""
        self.reports = self.bytes = self.refused = 0
        self.answers: list[float] = []

    def answered(self, length: int, seconds: float, status: int) -> None:
        """The answer to a report came."""
        self.reports += 1
        self.bytes += length
        self.answers.append(seconds)
        self.refused += status != 200

    def changed(self, stored: Mapping[str, Any]) -> None:
        """A watch event: every user of the backend hears of its verdict."""
        backend = decode_backend(stored)
        shared = shared_from_status(
            backend.status,
            server_time=time.time(),
            now=self.clock(),
            max_exclusion_seconds=DEFAULT_POLICY.max_exclusion_seconds,
        )
        for proxy in self._users.get(backend.metadata.uid, ()):
            proxy.configure(backend.metadata.uid, shared)
