"""POST /v1/outcomes: reports of proxies come in here.

Promises that nothing of an unauthenticated body is read, that a report changes only backends its
sender may speak about, and that what is refused is named, counted, and disturbs nothing else.
What the numbers mean is the engine's business; what follows from them the evaluator's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

import httpx
import msgspec
from aiohttp import web

from nexus_operator.identity import AUDIENCE, Identities, Reporter
from nexus_operator.kube import ApiError
from nexus_operator.metrics import Metrics
from nexus_quality.report import (
    MAX_BYTES,
    Answer,
    InvalidReport,
    Refusal,
    Report,
    decode_report,
    encode,
)

log = logging.getLogger(__name__)

NO_TOKEN: Final = "NoToken"
TOKEN_REJECTED: Final = "TokenRejected"
TOO_LARGE: Final = "TooLarge"
MALFORMED: Final = "Malformed"
NOT_ALLOWED: Final = "NotAllowed"
UNAVAILABLE: Final = "Unavailable"
JSON = "application/json"
NUMBER = re.compile(r"\d+")


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

    async def handle(self, request: web.Request) -> web.Response:
        """Answers 200 with an `Answer`, or 4xx or 503 with `{"error", "refused"}`."""
        with self.metrics.report_seconds.time():
            try:
                return await self._take(request)
            except (ApiError, httpx.HTTPError) as error:
                log.warning("the API server could not vouch for a report: %s", error)
                return self._refuse(503, UNAVAILABLE, "the API server cannot be asked: try again")

    async def _take(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return self._refuse(401, NO_TOKEN, "send Authorization: Bearer with a token")
        reporter = await self.identities.reporter(token.strip())
        if reporter is None:
            message = f"the API server does not accept this token for the audience {AUDIENCE}"
            return self._refuse(401, TOKEN_REJECTED, message)
        body = await self._body(request)
        if body is None:
            return self._refuse(413, TOO_LARGE, f"a report has at most {MAX_BYTES} bytes")
        try:
            report = decode_report(body)
        except InvalidReport as error:
            return self._refuse(400, MALFORMED, str(error))
        return await self._judge(reporter, report)

    async def _body(self, request: web.Request) -> bytes | None:
        if (request.content_length or 0) > MAX_BYTES:
            return None
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge:
            return None

    async def _judge(self, reporter: Reporter, report: Report) -> web.Response:
        """Leaves out what the sender may not speak about, and merges the rest."""
        foreign = await self._forbidden(reporter, subjects(report))
        refused = tuple(
            Refusal(uid=uid, reason=f"{NOT_ALLOWED}: {reporter.key} may not report on {place}")
            for uid, place in foreign.items()
        )
        if foreign:
            self.metrics.report_refusals.labels(NOT_ALLOWED).inc(len(foreign))
            if set(foreign) == subjects(report):
                return self._refuse(403, None, refused[0].reason, refused)
            report = without(report, foreign)
        answer = self.merge(reporter, report)
        for refusal in answer.refused:
            self.metrics.report_refusals.labels(label(refusal.reason)).inc()
        answer = msgspec.structs.replace(answer, refused=answer.refused + refused)
        return web.Response(body=encode(answer), content_type=JSON)

    async def _forbidden(self, reporter: Reporter, uids: Iterable[str]) -> dict[str, str]:
        """The UIDs it may not report on, with a description of where they live."""
        allowed: dict[str, bool] = {}
        forbidden = {}
        for uid in uids:
            namespace = self.namespace_of(uid)
            if namespace is None:
                continue
            if namespace not in allowed:
                allowed[namespace] = await self.identities.may_report(reporter, namespace)
            if not allowed[namespace]:
                forbidden[uid] = f"llmbackends in namespace {namespace}"
        return forbidden

    def _refuse(
        self, status: int, reason: str | None, message: str, refused: tuple[Refusal, ...] = ()
    ) -> web.Response:
        if reason is not None:
            self.metrics.report_refusals.labels(reason).inc()
        body = {"error": message, "refused": refused}
        return web.Response(status=status, body=msgspec.json.encode(body), content_type=JSON)


def label(reason: str) -> str:
    """The reason without the numbers in it, which a reporter could choose as it likes."""
    return NUMBER.sub("", reason).strip()


def subjects(report: Report) -> set[str]:
    """The UIDs of the backends a report speaks about."""
    return {cell.uid for cell in report.cells} | {pulse.uid for pulse in report.pulses}


def without(report: Report, uids: Iterable[str]) -> Report:
    """The report less everything about some backends."""
    gone = set(uids)
    return msgspec.structs.replace(
        report,
        cells=[cell for cell in report.cells if cell.uid not in gone],
        pulses=[pulse for pulse in report.pulses if pulse.uid not in gone],
    )
