"""A fleet of proxies without their byte path: real monitors, real reports over real connections.

Promises that what is reported is what a proxy's own code counts and says, at the pace of a proxy
(full reports every 10 to 30 s, urgent ones when the monitor asks, in a storm one a second). The
requests themselves are made up: each succeeds, or fails while its backend is broken.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from bench.scale.plan import MODELS, Size, uid_of
from bench.scale.wire import Connection

from nexus_api import decode_backend
from nexus_quality.monitor import Monitor
from nexus_quality.outcome import Outcome
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.report import decode_answer, encode
from nexus_quality.shared import SharedVerdict, shared_from_status
from nexus_quality.sketch import bin_of
from nexus_quality.subject import Standing, Subject

FULL_SECONDS = (10.0, 30.0)
PACE_SECONDS = 1.0
FIRST_SECONDS = 20.0


class Proxy:
    """One reporter."""

    def __init__(self, number: int, size: Size, world: Fleet) -> None:
        self._chance = random.Random(number)
        self._world = world
        self._rate = size.rate
        self._clock = world.clock
        self._urgent = float("inf")
        self._full = self._clock() + FIRST_SECONDS * self._chance.random()
        self.started = self._clock() - size.history
        self.monitor = Monitor(
            incarnation=f"{number:032x}",
            started=self.started,
            random=self._chance.random,
            on_change=lambda: None,
            on_urgent=self._hurry,
        )
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
        await asyncio.sleep(self._chance.random())
        due = self._clock()
        while True:
            now = self._clock()
            self.serve(now)
            self.monitor.tick(now)
            await self._report(now)
            due += PACE_SECONDS
            await asyncio.sleep(max(0.0, due - self._clock()))

    def close(self) -> None:
        """Ends its connection."""
        self._connection.close()

    def _hurry(self, seconds: float) -> None:
        self._urgent = min(self._urgent, self._clock() + seconds)

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

    async def _report(self, now: float) -> None:
        full = now >= self._full
        if not (full or now >= self._urgent or self._world.storm):
            return
        if full:
            shortest, longest = FULL_SECONDS
            self._full = now + shortest + (longest - shortest) * self._chance.random()
        self._urgent = float("inf")
        report = self.monitor.report(now, full=full)
        if report is None:
            return
        body = encode(report)
        self._world.count(len(report.cells), len(body), full=full)
        began = time.monotonic()
        status, answer = await self._connection.post("/v1/outcomes", body)
        self._world.answered(time.monotonic() - began, status)
        if status == 200:
            self.monitor.acknowledged(report, decode_answer(answer), now)
        else:
            self.monitor.unanswered(now)


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
        self.reports = self.fulls = self.cells = self.bytes = self.refused = 0
        self.answers: list[float] = []

    def count(self, cells: int, length: int, *, full: bool) -> None:
        """A report leaves."""
        self.reports += 1
        self.fulls += full
        self.cells += cells
        self.bytes += length

    def answered(self, seconds: float, status: int) -> None:
        """Its answer came."""
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
