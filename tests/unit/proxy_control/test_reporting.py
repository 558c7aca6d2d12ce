"""The pace of the reports, with a clock in the test's hands."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from nexus_operator.server import IDLE_SECONDS
from nexus_proxy.counters import Counters
from nexus_proxy.intake import (
    KEEP_SECONDS,
    PACK_BYTES,
    THREAD_BYTES,
    OperatorIntake,
    Undelivered,
)
from nexus_proxy.reporting import FULL_SECONDS, Reporter
from nexus_quality import report as report_module
from nexus_quality.monitor import Monitor
from nexus_quality.outcome import Outcome
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.report import Answer, Report, decode_report, encode
from nexus_quality.shared import SharedVerdict


@dataclass
class Desk:
    """A reporter on a monitor with one backend; the operator is a function of the test's."""

    now: float = 100.0
    chance: float = 0.5
    down: bool = False
    spare: float = 0.0
    epoch: str = "e1"
    sent: list[tuple[float, Report]] = field(default_factory=list)
    tries: int = 0

    def __post_init__(self) -> None:
        self.reporter = Reporter(
            deliver=self._deliver,
            clock=lambda: self.now,
            random=lambda: self.chance,
            counters=Counters(),
        )
        self.monitor = Monitor(
            incarnation="ab" * 16,
            started=self.now,
            random=lambda: self.chance,
            on_change=lambda: None,
            on_urgent=self.reporter.urgent,
        )
        self.reporter.attach(self.monitor)
        self.monitor.configure(
            "uid", policy=DEFAULT_POLICY, shared=SharedVerdict(), fingerprint="f", now=self.now
        )
        self.subject = self.monitor.subject("uid", "m")

    async def _deliver(self, body: bytes) -> Answer:
        self.tries += 1
        if self.down:
            raise Undelivered("cannot reach the operator")
        if self.spare:
            raise Undelivered("the operator answered 429", retry_after=self.spare)
        self.sent.append((self.now, decode_report(body)))
        return Answer(epoch=self.epoch)

    async def step(self) -> float:
        """Go to the next due report and send it; returns when that was."""
        self.now = max(self.now, self.reporter.next_due())
        await self.reporter.send_due()
        return self.now

    async def until(self, moment: float) -> None:
        """Send everything due up to a moment."""
        while self.reporter.next_due() <= moment:
            await self.step()
        self.now = moment

    def outcome(self, outcome: Outcome) -> None:
        """One attempt that ends now."""
        self.subject.begin(self.now).end(outcome, self.now)

    def requests(self) -> int:
        """What an operator that joined every report would count in the widest family."""
        cells = {cell.key: cell for _, report in self.sent for cell in report.cells}
        return sum(c.requests for c in cells.values() if c.family == 3600)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def completes(report: Report) -> bool:
    """Whether the operator knows all there is once it has this report."""
    return report.full or bool(report.told)


async def test_the_first_report_is_full_and_leaves_within_a_second(desk: Desk) -> None:
    assert await desk.step() <= 101.0
    assert desk.sent[0][1].full


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 10.0), (0.5, 20.0), (0.999, 29.98)])
async def test_full_reports_follow_every_ten_to_thirty_seconds(
    desk: Desk, chance: float, seconds: float
) -> None:
    await desk.step()
    desk.chance = chance
    first = await desk.step()
    assert await desk.step() - first == pytest.approx(seconds)
    assert [completes(report) for _, report in desk.sent] == [True] * 3


async def test_the_first_failure_leaves_within_200_ms_and_further_ones_once_a_second(
    desk: Desk,
) -> None:
    await desk.until(130.0)
    count, began = len(desk.sent), desk.now
    for _ in range(40):
        desk.outcome(Outcome.SERVER_ERROR)
        desk.outcome(Outcome.SUCCESS)
        await desk.until(desk.now + 0.05)
    times = [moment for moment, report in desk.sent[count:] if not completes(report)]
    assert 0 < times[0] - began <= 0.25
    assert all(b - a >= 0.95 for a, b in pairwise(times))
    assert len(times) <= 3


async def test_a_push_carries_every_counter_that_changed(desk: Desk) -> None:
    await desk.until(130.0)
    for _ in range(5):
        desk.outcome(Outcome.SUCCESS)
    desk.outcome(Outcome.SERVER_ERROR)
    await desk.until(desk.now + 0.25)
    pushed = [report for _, report in desk.sent if not completes(report)]
    hour = [cell for cell in pushed[-1].cells if cell.family == 3600]
    assert (hour[0].requests, hour[0].errors) == (6, 1)


async def test_nothing_is_lost_while_the_operator_is_away(desk: Desk) -> None:
    await desk.until(130.0)
    desk.down = True
    for _ in range(60):
        desk.outcome(Outcome.SERVER_ERROR)
        await desk.until(desk.now + 5.0)
    assert desk.requests() == 0
    desk.down = False
    await desk.until(desk.now + 31.0)
    assert desk.requests() == 60


async def test_attempts_are_spaced_by_growing_pauses_while_the_operator_is_away(
    desk: Desk,
) -> None:
    await desk.until(130.0)
    desk.down, tries = True, desk.tries
    for _ in range(600):
        desk.outcome(Outcome.SERVER_ERROR)
        await desk.until(desk.now + 1.0)
    assert 25 <= desk.tries - tries <= 40


@pytest.mark.parametrize(("asked", "waits"), [(4.0, 4.0), (10_000.0, 60.0)])
async def test_an_operator_that_asks_to_be_spared_is_spared_and_nothing_is_lost(
    desk: Desk, asked: float, waits: float
) -> None:
    await desk.until(130.0)
    desk.spare = asked
    for _ in range(7):
        desk.outcome(Outcome.SERVER_ERROR)
    await desk.step()
    assert desk.reporter.next_due() - desk.now == pytest.approx(waits * 1.05)
    for _ in range(5):
        desk.outcome(Outcome.SERVER_ERROR)
    assert desk.reporter.next_due() - desk.now == pytest.approx(waits * 1.05)
    desk.spare = 0.0
    await desk.step()
    assert desk.requests() == 12


async def test_a_large_report_is_sent_in_parts_the_last_of_which_is_full(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "PART_CELLS", 4)
    for number in range(6):
        uid = f"uid-{number}"
        policy, shared = DEFAULT_POLICY, SharedVerdict()
        desk.monitor.configure(uid, policy=policy, shared=shared, fingerprint="f", now=desk.now)
        desk.monitor.subject(uid, "m").begin(desk.now).end(Outcome.SUCCESS, desk.now)
    await desk.step()
    sent = [report for _, report in desk.sent]
    assert [report.full for report in sent] == [False] * 5 + [True]
    assert desk.requests() == 6


async def test_a_large_goodbye_says_goodbye_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "PART_CELLS", 2)
    monkeypatch.setattr(report_module, "MAX_CELLS", 2)
    desk.outcome(Outcome.SUCCESS)
    await desk.reporter.final()
    assert [report.final for _, report in desk.sent] == [False, True]
    assert desk.requests() == 1


async def test_a_new_epoch_is_answered_by_a_full_replay_jittered_and_at_most_every_10_s(
    desk: Desk,
) -> None:
    await desk.until(130.0)
    desk.outcome(Outcome.SERVER_ERROR)
    await desk.until(140.0)
    desk.epoch = "e2"
    desk.outcome(Outcome.SERVER_ERROR)
    await desk.until(146.0)
    replays = [moment for moment, report in desk.sent if report.replay]
    assert len(replays) == 1
    for number in range(3, 20):
        desk.epoch = f"e{number}"
        desk.outcome(Outcome.SERVER_ERROR)
        await desk.until(desk.now + 2.0)
    replays = [moment for moment, report in desk.sent if report.replay]
    assert len(replays) >= 3
    assert all(b - a >= 10.0 for a, b in pairwise(replays))


async def test_the_last_report_says_goodbye_with_what_was_not_answered(desk: Desk) -> None:
    await desk.until(130.0)
    desk.outcome(Outcome.SUCCESS)
    await desk.reporter.final()
    assert desk.sent[-1][1].final
    assert desk.requests() == 1


async def test_a_goodbye_to_an_operator_that_knew_nothing_holds_everything(desk: Desk) -> None:
    await desk.until(130.0)
    desk.outcome(Outcome.SUCCESS)
    await desk.until(160.0)
    desk.epoch, count = "e2", len(desk.sent)
    await desk.reporter.final()
    last = [report for _, report in desk.sent[count:]]
    assert [(report.final, report.full) for report in last] == [(True, False), (True, True)]
    assert [cell.requests for cell in last[1].cells if cell.family == 3600] == [1]


async def test_a_goodbye_among_operators_that_take_turns_comes_to_an_end(desk: Desk) -> None:
    await desk.until(130.0)
    turns = desk.tries

    async def deliver(body: bytes) -> Answer:
        desk.epoch = f"turn-{desk.tries}"
        return await desk._deliver(body)

    desk.reporter._deliver = deliver
    await desk.reporter.final()
    assert desk.tries - turns <= 3


async def test_a_report_whose_parts_two_operators_answered_was_not_told(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "PART_CELLS", 2)
    monkeypatch.setattr(report_module, "MAX_CELLS", 2)
    desk.outcome(Outcome.SUCCESS)
    answers = iter(["e1", "e2"])

    async def deliver(body: bytes) -> Answer:
        desk.epoch = next(answers, "e2")
        return await desk._deliver(body)

    desk.reporter._deliver = deliver
    await desk.step()
    await desk.step()
    sent = [(report.full, report.told) for _, report in desk.sent]
    assert sent == [(False, ""), (True, "")] * 2
    desk.outcome(Outcome.SUCCESS)
    await desk.step()
    assert desk.sent[-1][1].told == "e2"


async def test_a_goodbye_to_an_absent_operator_gives_up(desk: Desk) -> None:
    desk.down = True
    await desk.reporter.final()
    assert desk.tries == 2


async def test_the_running_task_wakes_for_an_urgent_report() -> None:
    desk = Desk()
    await desk.step()
    task = asyncio.create_task(desk.reporter.run())
    await asyncio.sleep(0)
    attempt = desk.subject.begin(desk.now)
    attempt.end(Outcome.SERVER_ERROR, desk.now)
    desk.now += 0.3
    desk.reporter.urgent(0.0)
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    assert [report.full for _, report in desk.sent] == [True, False]


async def test_the_running_task_ends_though_a_report_became_urgent_at_that_moment() -> None:
    desk = Desk()
    await desk.step()
    task = asyncio.create_task(desk.reporter.run())
    await asyncio.sleep(0)
    desk.reporter.urgent(5.0)
    await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=2.0)
    assert done and task.cancelled()


Handler = Callable[[httpx.Request], httpx.Response]


def intake(handler: Handler, token: Path | None = None) -> OperatorIntake:
    return OperatorIntake("http://op:8080/", token, transport=httpx.MockTransport(handler))


async def test_a_report_is_posted_with_the_token_of_the_moment(tmp_path: Path) -> None:
    token, seen = tmp_path / "token", []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((str(request.url), request.headers.get("authorization")))
        return httpx.Response(200, content=encode(Answer(epoch="e")))

    desk = intake(answer, token)
    await desk.deliver(b"{}")
    for text in ("one", "two"):
        token.write_text(f"{text}\n")
        await desk.deliver(b"{}")
    await desk.close()
    url = "http://op:8080/v1/outcomes"
    assert seen == [(url, None), (url, "Bearer one"), (url, "Bearer two")]


async def test_a_connection_is_kept_from_one_full_report_to_the_next() -> None:
    connections, ended = 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        answer = encode(Answer(epoch="e"))
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0]))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer))
                writer.write(answer)
        writer.close()
        await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    desk = OperatorIntake(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None)
    for _ in range(3):
        await desk.deliver(b"{}")
    await desk.close()
    await asyncio.wait_for(ended.wait(), 5.0)
    server.close()
    await server.wait_closed()
    assert connections == 1
    assert FULL_SECONDS[1] < KEEP_SECONDS < IDLE_SECONDS


@pytest.mark.parametrize(
    ("size", "packed"),
    [(PACK_BYTES, False), (PACK_BYTES + 1, True), (THREAD_BYTES + 1, True)],
)
async def test_a_report_of_some_size_is_packed(size: int, packed: bool) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=encode(Answer(epoch="e")))

    desk = intake(answer)
    body = b"x" * size
    await desk.deliver(body)
    await desk.close()
    (request,) = seen
    assert (request.headers.get("content-encoding") == "gzip") is packed
    assert (gzip.decompress(request.content) if packed else request.content) == body


async def test_an_operator_that_does_not_unpack_is_sent_plain_reports_from_then_on() -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("content-encoding"))
        if "content-encoding" in request.headers:
            return httpx.Response(415)
        return httpx.Response(200, content=encode(Answer(epoch="e")))

    desk = intake(answer)
    for _ in range(2):
        assert (await desk.deliver(b"x" * 5000)).epoch == "e"
    await desk.close()
    assert seen == ["gzip", None, None]


@pytest.mark.parametrize(
    ("hint", "seconds"), [("7", 7.0), ("", 0.0), ("soon", 0.0), ("-1", 0.0), ("9" * 400, 0.0)]
)
async def test_the_time_asked_for_comes_with_the_refusal(hint: str, seconds: float) -> None:
    desk = intake(lambda _request: httpx.Response(429, headers={"Retry-After": hint}))
    with pytest.raises(Undelivered, match="answered 429") as refused:
        await desk.deliver(b"{}")
    await desk.close()
    assert refused.value.retry_after == seconds


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (httpx.Response(401, text="no"), "does not accept the report token"),
        (httpx.Response(503, text="not\nthe leader"), "answered 503: not the leader"),
        (httpx.Response(200, text="<html>"), "the answer of http://op:8080/v1/outcomes is none"),
    ],
)
async def test_what_is_no_answer_is_said_in_one_line(response: httpx.Response, said: str) -> None:
    desk = intake(lambda _request: response)
    with pytest.raises(Undelivered, match=said) as refused:
        await desk.deliver(b"{}")
    await desk.close()
    assert "\n" not in str(refused.value)
