"""POST /v1/outcomes: reports of proxies come in here.

Promises that nothing of an unauthenticated body is read, that a report changes only backends its
sender may speak about, and that what is refused is named, counted, and disturbs nothing else.
What the numbers mean is the engine's business; what follows from them the evaluator's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
from aiohttp import web

from nexus_operator import own_words
from nexus_operator.body import BUSY, Refused, Room, read
from nexus_operator.identity import AUDIENCE, Identities, Reporter, Unavailable
from nexus_operator.metrics import Metrics
from nexus_operator.pace import Pace
from nexus_operator.turns import Turns
from nexus_quality.refusals import OTHER, REASONS
from nexus_quality.report import (
    Answer,
    InvalidReport,
    Refusal,
    Report,
    decode_report,
    encode,
    parts,
    together,
)

NO_TOKEN: Final = "NoToken"
TOKEN_REJECTED: Final = "TokenRejected"
TOO_OFTEN: Final = "TooOften"
MALFORMED: Final = "Malformed"
NOT_ALLOWED: Final = "NotAllowed"
UNAVAILABLE: Final = "Unavailable"
MAX_TOKEN: Final = 16 * 1024
MAX_NAMESPACES: Final = 32
MAX_LISTED: Final = 50
PIECE_CELLS: Final = 400  # some 10 ms if all of them are new
SPEND: Final = "spend of "
JSON = "application/json"


class Merge(Protocol):
    """Takes a report in; returns the answer for its sender."""

    def __call__(self, reporter: Reporter, report: Report) -> Answer: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """The HTTP handler. `namespace_of` knows the namespace of a backend's UID, None if unknown."""

    identities: Identities
    namespace_of: Callable[[str], str | None]
    merge: Merge
    metrics: Metrics
    pace: Pace
    room: Room = field(default_factory=Room)
    turns: Turns = field(default_factory=Turns)

    async def handle(self, request: web.Request) -> web.Response:
        """Answers 200 with an `Answer`, or 4xx or 503 with `{"error", "refused"}`."""
        with self.metrics.report_seconds.time():
            try:
                return await self._take(request)
            except Refused as refused:
                return self._refuse(refused)
            except Unavailable:
                return self._refuse(Refused(503, UNAVAILABLE, own_words.AWAY, retry_after=5.0))

    async def _take(self, request: web.Request) -> web.Response:
        reporter = await self._sender(request)
        wait = self.pace.wait(reporter.key)
        if wait:
            raise Refused(429, TOO_OFTEN, own_words.too_often(reporter.key), retry_after=wait)
        if again := self.turns.again():
            raise Refused(503, BUSY, own_words.CROWD, retry_after=again)
        with self.room.hold(reporter.key) as hold:
            try:
                report = decode_report(await read(request, hold))
            except InvalidReport as error:
                raise Refused(400, MALFORMED, str(error)) from None
            finally:
                self.pace.charge(reporter.key, hold.bytes)
            return await self._judge(reporter, report)

    async def _sender(self, request: web.Request) -> Reporter:
        """Who sends; nothing else of the request is looked at before that is known."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Refused(401, NO_TOKEN, own_words.NO_TOKEN)
        reporter = await self.identities.reporter(token) if len(token) <= MAX_TOKEN else None
        if reporter is None:
            raise Refused(401, TOKEN_REJECTED, own_words.token_rejected(AUDIENCE))
        return reporter

    async def _judge(self, reporter: Reporter, report: Report) -> web.Response:
        """Leaves out what the sender may not speak about, and merges the rest."""
        foreign = await self._forbidden(reporter, subjects(report))
        refused = tuple(
            Refusal(uid=uid, reason=own_words.may_not_report(NOT_ALLOWED, reporter.key, place))
            for uid, place in foreign.items()
        )
        if foreign:
            self.metrics.report_refusals.labels(NOT_ALLOWED).inc(len(foreign))
            if set(foreign) == subjects(report):
                return answered(403, {"error": refused[0].reason, "refused": refused[:MAX_LISTED]})
            report = without(report, foreign)
        answers = []
        async with self.turns:
            for part in parts(report, PIECE_CELLS):
                answers.append(self.merge(reporter, part))
                await self.turns.pause()
        answer = together(answers)
        for refusal in answer.refused:
            self.metrics.report_refusals.labels(label(refusal.reason)).inc()
        listed = (answer.refused + refused)[:MAX_LISTED]
        return web.Response(
            body=encode(msgspec.structs.replace(answer, refused=listed)), content_type=JSON
        )

    async def _forbidden(self, reporter: Reporter, uids: Iterable[str]) -> dict[str, str]:
        """The UIDs it may not report on, with a description of where they live."""
        allowed: dict[str, bool] = {}
        forbidden = {}
        for uid in uids:
            namespace = spender(uid) or self.namespace_of(uid)
            if namespace is None:
                continue
            if namespace not in allowed:
                if len(allowed) >= MAX_NAMESPACES:
                    forbidden[uid] = own_words.too_many_namespaces(MAX_NAMESPACES)
                    continue
                allowed[namespace] = await self.identities.may_report(reporter, namespace)
            if not allowed[namespace]:
                forbidden[uid] = own_words.backends_of(namespace)
        return forbidden

    def _refuse(self, refused: Refused) -> web.Response:
        self.metrics.report_refusals.labels(refused.reason).inc()
        response = answered(refused.status, {"error": refused.message, "refused": ()})
        if refused.retry_after is not None:
            response.headers["Retry-After"] = str(max(1, math.ceil(refused.retry_after)))
        if refused.status == 415:
            response.headers["Accept-Encoding"] = "gzip, identity"
        return response


def answered(status: int, body: dict[str, object]) -> web.Response:
    """An answer that is no `Answer`."""
    return web.Response(status=status, body=msgspec.json.encode(body), content_type=JSON)


def label(reason: str) -> str:
    """The reason as a metric's label: one of those that are known, whatever numbers are in it."""
    return next((known for known in REASONS if reason.startswith(known)), OTHER)


def subjects(report: Report) -> set[str]:
    """The UIDs of the backends a report speaks about, and the namespaces whose money it spent."""
    backends = {cell.uid for cell in report.cells} | {pulse.uid for pulse in report.pulses}
    return backends | {SPEND + spend.namespace for spend in report.spend}


def spender(subject: str) -> str | None:
    """The namespace, if it is one whose money was spent."""
    return subject.removeprefix(SPEND) if subject.startswith(SPEND) else None


def without(report: Report, uids: Iterable[str]) -> Report:
    """The report less everything about some subjects."""
    gone = set(uids)
    return msgspec.structs.replace(
        report,
        cells=[cell for cell in report.cells if cell.uid not in gone],
        pulses=[pulse for pulse in report.pulses if pulse.uid not in gone],
        spend=[spend for spend in report.spend if SPEND + spend.namespace not in gone],
    )
