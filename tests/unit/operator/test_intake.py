"""Who may report on what; what is refused, how it is named, and that nothing else is disturbed."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import pytest_asyncio
from aiohttp import ClientSession

from nexus_operator import body as body_module
from nexus_operator import identity as identity_module
from nexus_operator.credentials import Credentials
from nexus_operator.identity import AT_ONCE, Identities, Reporter, expiry, reporter_of
from nexus_operator.intake import MAX_LISTED, MAX_NAMESPACES, Intake
from nexus_operator.kube import Kube
from nexus_operator.memory import SIZE, Memory
from nexus_operator.metrics import Metrics
from nexus_operator.pace import BURST, Pace
from nexus_operator.server import Server
from nexus_operator.settings import Settings
from nexus_quality.report import MAX_BYTES, Answer, Cell, Pulse, Refusal, Report, encode
from nexus_quality.spend import Spend

POD = {
    "authenticated": True,
    "audiences": ["nexus-operator"],
    "user": {
        "username": "system:serviceaccount:shop:app",
        "uid": "sa-uid",
        "groups": ["system:serviceaccounts"],
        "extra": {
            "authentication.kubernetes.io/pod-name": ["app-1"],
            "authentication.kubernetes.io/pod-uid": ["pod-uid"],
        },
    },
}
ACCOUNT = POD | {"user": {"username": "system:serviceaccount:shop:app"}}
NAMESPACES = {"u-shop": "shop", "u-shop-2": "shop", "u-bank": "bank"}
INCARNATION = "0" * 32


@dataclass
class Api:
    """The API server's two reviews."""

    tokens: dict[str, Any] = field(default_factory=lambda: {"good": POD})
    grants: set[tuple[str, str]] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    away: bool = False
    tried: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.tried += 1
        if self.away:
            raise httpx.ConnectError("refused")
        spec = json.loads(request.content)["spec"]
        self.asked.append(request.url.path.rpartition("/")[2])
        if request.url.path.endswith("tokenreviews"):
            assert spec["audiences"] == ["nexus-operator"]
            found = self.tokens.get(spec["token"], {"authenticated": False, "error": "no"})
            return httpx.Response(201, json={"status": found})
        attributes = spec["resourceAttributes"]
        assert (attributes["group"], attributes["verb"]) == ("nexus.dev", "report")
        allowed = (spec["user"], attributes["namespace"]) in self.grants
        return httpx.Response(201, json={"status": {"allowed": allowed}})


@dataclass
class Desk:
    """The intake behind a real HTTP server."""

    api: Api
    client: ClientSession
    metrics: Metrics
    merged: list[tuple[Reporter, Report]]
    time: list[float]
    answer: list[Answer]
    intake: Intake
    port: int

    async def post(
        self, body: bytes, token: str | None = "good", **headers: str
    ) -> tuple[int, dict[str, Any]]:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        response = await self.client.post("/v1/outcomes", data=io.BytesIO(body), headers=headers)
        return response.status, await response.json()

    def refusals(self, reason: str) -> float:
        name = "nexus_operator_report_refusals_total"
        return self.metrics.registry.get_sample_value(name, {"reason": reason}) or 0.0


@pytest_asyncio.fixture
async def desk() -> AsyncIterator[Desk]:
    api, time = Api(), [1000.0]
    kube = Kube(
        Credentials(server="http://api", origin="test", namespace="default"),
        transport=httpx.MockTransport(api),
    )
    metrics = Metrics(lambda: ())
    merged: list[tuple[Reporter, Report]] = []
    answer = [Answer(epoch="e1")]

    def merge(reporter: Reporter, report: Report) -> Answer:
        merged.append((reporter, report))
        return answer[0]

    intake = Intake(
        identities=Identities(kube, lambda: time[0], count=metrics.looked_up),
        namespace_of=NAMESPACES.get,
        merge=merge,
        metrics=metrics,
        pace=Pace(lambda: time[0]),
    )
    server = Server(
        settings=Settings(host="127.0.0.1", port=0),
        why_not_ready=lambda: None,
        metrics_page=metrics.page,
        stats_page=metrics.page,
        intake=intake.handle,
    )
    await server.start()
    async with ClientSession(f"http://127.0.0.1:{server.port}") as client:
        yield Desk(api, client, metrics, merged, time, answer, intake, server.port)
    await server.stop()
    await kube.close()


def report(*uids: str) -> bytes:
    cells = [Cell(family=10, bucket=1, uid=uid, model="m", requests=1) for uid in uids]
    pulses = [Pulse(uid=uid, row=1) for uid in uids]
    return encode(Report(incarnation=INCARNATION, now_ms=20_000, cells=cells, pulses=pulses))


async def test_a_report_on_the_own_namespace_is_taken(desk: Desk) -> None:
    assert await desk.post(report("u-shop")) == (200, {"epoch": "e1"})
    ((reporter, taken),) = desk.merged
    assert reporter.key == "shop/app-1 (pod-uid)"
    assert [cell.uid for cell in taken.cells] == ["u-shop"]


async def test_an_empty_report_is_taken_for_its_sign_of_life(desk: Desk) -> None:
    assert (await desk.post(report()))[0] == 200
    assert len(desk.merged) == 1


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "NoToken"),
        ("Basic abc", "NoToken"),
        ("Bearer ", "NoToken"),
        ("Bearer x", "TokenRejected"),
    ],
)
async def test_nothing_unauthenticated_is_read(desk: Desk, header: str | None, reason: str) -> None:
    headers = {} if header is None else {"Authorization": header}
    status, body = await desk.post(b"this is no report", token=None, **headers)
    assert status == 401
    assert "token" in body["error"]
    assert desk.refusals(reason) == 1
    assert not desk.merged


async def test_a_token_for_another_audience_is_refused(desk: Desk) -> None:
    desk.api.tokens["other"] = POD | {"audiences": ["https://kubernetes.default.svc"]}
    status, body = await desk.post(report("u-shop"), token="other")
    assert (status, desk.refusals("TokenRejected")) == (401, 1)
    assert "audience nexus-operator" in body["error"]


async def test_another_namespace_is_refused_with_the_reason(desk: Desk) -> None:
    status, body = await desk.post(report("u-bank"))
    assert status == 403
    assert body["refused"] == [
        {
            "uid": "u-bank",
            "reason": "NotAllowed: shop/app-1 (pod-uid) may not report on llmbackends "
            "in namespace bank",
        }
    ]
    assert desk.refusals("NotAllowed") == 1
    assert not desk.merged


async def test_a_foreign_part_is_left_out_and_the_rest_is_taken(desk: Desk) -> None:
    status, body = await desk.post(report("u-shop", "u-bank", "u-shop-2"))
    assert status == 200
    assert [refused["uid"] for refused in body["refused"]] == ["u-bank"]
    ((_, taken),) = desk.merged
    assert [cell.uid for cell in taken.cells] == ["u-shop", "u-shop-2"]
    assert [pulse.uid for pulse in taken.pulses] == ["u-shop", "u-shop-2"]


async def test_the_money_of_another_namespace_is_not_spent(desk: Desk) -> None:
    spends = [Spend(namespace=name, slot=1, nano_usd=5) for name in ("shop", "bank")]
    body = encode(Report(incarnation=INCARNATION, now_ms=20_000, spend=spends, spend_slot=1))
    status, answered = await desk.post(body)
    assert status == 200
    ((_, taken),) = desk.merged
    assert taken.spend == spends[:1]
    (refused,) = answered["refused"]
    assert refused["uid"] == "spend of bank" and "namespace bank" in refused["reason"]


async def test_the_verb_report_opens_another_namespace(desk: Desk) -> None:
    desk.api.grants.add(("system:serviceaccount:shop:app", "bank"))
    assert (await desk.post(report("u-bank")))[0] == 200


async def test_what_the_engine_refuses_is_counted_and_answered(desk: Desk) -> None:
    desk.answer[0] = Answer(epoch="e1", refused=(Refusal(uid="u-x", reason="unknown backend"),))
    status, body = await desk.post(report("u-x"))
    assert status == 200
    assert body["refused"] == [{"uid": "u-x", "reason": "unknown backend"}]
    assert desk.refusals("unknown backend") == 1


async def test_a_reporter_cannot_make_up_names_of_series(desk: Desk) -> None:
    refusals = tuple(Refusal(uid="u", reason=f"unknown bucket family {n}") for n in range(9))
    desk.answer[0] = Answer(epoch="e1", refused=refusals)
    await desk.post(report("u-shop"))
    assert desk.refusals("unknown bucket family") == 9


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"incarnation": "x", "nowMs": 1}'])
async def test_what_is_no_report_is_refused_in_one_line(desk: Desk, body: bytes) -> None:
    status, answer = await desk.post(body)
    assert (status, desk.refusals("Malformed")) == (400, 1)
    assert "\n" not in answer["error"]


async def test_a_report_over_the_limit_is_refused_before_it_is_read(desk: Desk) -> None:
    status, answer = await desk.post(b" " * (MAX_BYTES + 1))
    assert (status, desk.refusals("TooLarge")) == (413, 1)
    assert str(MAX_BYTES) in answer["error"]


async def test_answers_of_the_api_server_are_remembered_for_a_minute(desk: Desk) -> None:
    for _ in range(3):
        await desk.post(report("u-shop", "u-bank"))
    assert desk.api.asked == ["tokenreviews", "subjectaccessreviews"]
    desk.time[0] += 61
    await desk.post(report("u-shop"))
    assert desk.api.asked.count("tokenreviews") == 2


async def test_a_refusal_is_asked_again_sooner_than_a_belief(desk: Desk) -> None:
    await desk.post(report("u-shop"), token="new")
    desk.api.tokens["new"] = POD
    assert (await desk.post(report("u-shop"), token="new"))[0] == 401
    desk.time[0] += 11
    assert (await desk.post(report("u-shop"), token="new"))[0] == 200


async def test_without_the_api_server_a_report_is_asked_for_again(desk: Desk) -> None:
    desk.api.away = True
    status, body = await desk.post(report("u-shop"))
    assert (status, desk.refusals("Unavailable")) == (503, 1)
    assert "try again" in body["error"]
    desk.api.away = False
    assert (await desk.post(report("u-shop")))[0] == 200


def test_a_reporter_is_its_pod_else_its_service_account() -> None:
    pod, account = reporter_of(POD), reporter_of(ACCOUNT)
    assert pod is not None and account is not None
    assert (pod.key, pod.namespace) == ("shop/app-1 (pod-uid)", "shop")
    assert (account.key, account.namespace) == ("shop/app", "shop")


def test_a_person_has_no_namespace_of_their_own() -> None:
    person = reporter_of(POD | {"user": {"username": "jane@example.com"}})
    assert person is not None
    assert (person.key, person.namespace) == ("jane@example.com", None)


def test_the_memory_is_bounded_and_forgets() -> None:
    now = [0.0]
    memory: Memory[int] = Memory(lambda: now[0], size=2)
    for key in (1, 2, 3):
        memory.put(key, key, fresh=10.0, last=20.0)
    assert (memory.fresh(1), memory.fresh(3), len(memory)) == (None, (3,), 2)
    now[0] = 10.0
    assert (memory.fresh(3), memory.last(3)) == (None, (3,))
    now[0] = 20.0
    assert memory.last(3) is None
    assert SIZE <= 10_000


async def test_a_packed_report_is_taken(desk: Desk) -> None:
    packed = {"Content-Encoding": "gzip"}
    assert (await desk.post(gzip.compress(report("u-shop")), **packed))[0] == 200
    half = report("u-shop")
    members = gzip.compress(half[:50]) + gzip.compress(half[50:])
    assert (await desk.post(members, **packed))[0] == 200
    assert len(desk.merged) == 2


@pytest.mark.parametrize(
    ("body", "encoding", "status", "reason"),
    [
        (gzip.compress(bytes(MAX_BYTES + 1)), "gzip", 413, "TooLarge"),
        (gzip.compress(report("u-shop"))[:-9], "gzip", 400, "Malformed"),
        (report("u-shop"), "gzip", 400, "Malformed"),
        (report("u-shop"), "br", 415, "UnknownEncoding"),
    ],
)
async def test_a_body_that_cannot_be_unpacked_names_its_reason(
    desk: Desk, body: bytes, encoding: str, status: int, reason: str
) -> None:
    answer = await desk.post(body, **{"Content-Encoding": encoding})
    assert (answer[0], desk.refusals(reason)) == (status, 1)
    assert "\n" not in answer[1]["error"]
    assert not desk.merged
    assert desk.intake.room.bytes == 0


async def test_too_many_reports_are_told_when_to_come_again(desk: Desk) -> None:
    enough = int(0.95 * BURST)
    statuses = [(await desk.post(report("u-shop")))[0] for _ in range(2 * enough)]
    assert set(statuses[:enough]) == {200}
    assert statuses[-1] == 429
    refused = desk.refusals("TooOften")
    response = await desk.client.post("/v1/outcomes", headers={"Authorization": "Bearer good"})
    assert (response.status, response.headers["Retry-After"]) == (429, "1")
    assert desk.refusals("TooOften") == refused + 1
    desk.time[0] += 1.0
    assert (await desk.post(report("u-shop")))[0] == 200


async def test_a_crowd_is_told_to_come_again_before_a_body_is_read(desk: Desk) -> None:
    desk.intake.turns.again = lambda: 4.2
    auth = {"Authorization": "Bearer good"}
    response = await desk.client.post("/v1/outcomes", data=b"no report", headers=auth)
    assert (response.status, response.headers["Retry-After"]) == (503, "5")
    assert "come again" in (await response.json())["error"]
    assert desk.merged == [] and desk.refusals("Busy") == 1


async def test_a_large_report_is_taken_in_pieces_of_whole_backends(desk: Desk) -> None:
    cells = [
        Cell(family=10, bucket=bucket, uid=uid, model="m", requests=1)
        for uid in ("u-shop", "u-shop-2")
        for bucket in range(300)
    ]
    report = Report(incarnation=INCARNATION, now_ms=5_000_000, full=True, cells=cells)
    status, _ = await desk.post(encode(report))
    assert status == 200
    pieces = [({cell.uid for cell in part.cells}, part.full) for _, part in desk.merged]
    assert pieces == [({"u-shop"}, False), ({"u-shop-2"}, True)]


async def test_a_body_is_asked_for_once_its_sender_is_known(desk: Desk) -> None:
    async def ask(token: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", desk.port)
        body = report("u-shop")
        head = f"POST /v1/outcomes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        head += f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        writer.write(head.encode())
        line = await reader.readline()
        if b"100" in line:
            assert await reader.readline() == b"\r\n"
            writer.write(body)
            line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return line

    assert b"401" in await ask("nobody")
    assert not desk.merged
    assert b"200" in await ask("good")
    assert len(desk.merged) == 1


async def test_a_body_that_does_not_come_is_not_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_module, "BODY_SECONDS", 0.05)

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"incarnation'
        await asyncio.Event().wait()

    headers = {"Authorization": "Bearer good"}
    response = await desk.client.post("/v1/outcomes", data=slowly(), headers=headers)
    assert (response.status, desk.refusals("TooSlow")) == (408, 1)
    assert desk.intake.room.bytes == 0


async def test_a_connection_cut_in_the_middle_of_a_body_is_a_refusal_like_others(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", desk.port)
    head = "POST /v1/outcomes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\n"
    writer.write(f"{head}Content-Length: 5000\r\n\r\n{{".encode())
    await writer.drain()
    await until(lambda: desk.intake.room.bytes > 0)
    writer.transport.abort()
    await until(lambda: desk.refusals("Malformed") == 1)
    assert desk.intake.room.bytes == 0
    assert "Traceback" not in caplog.text


async def test_the_same_question_is_under_way_once(desk: Desk) -> None:
    answers = await asyncio.gather(*(desk.post(report("u-shop", "u-bank")) for _ in range(20)))
    assert {status for status, _ in answers} == {200}
    assert desk.api.asked == ["tokenreviews", "subjectaccessreviews"]


async def test_known_reporters_are_believed_for_ten_minutes_without_the_api_server(
    desk: Desk,
) -> None:
    desk.api.grants.add(("system:serviceaccount:shop:app", "bank"))
    assert (await desk.post(report("u-shop", "u-bank")))[0] == 200
    desk.api.away = True
    for _ in range(9):
        desk.time[0] += 61
        status, answer = await desk.post(report("u-shop", "u-bank"))
        assert (status, answer.get("refused")) == (200, None)
        assert (await desk.post(report("u-shop"), token="new"))[0] == 503
    desk.time[0] += 61
    assert (await desk.post(report("u-shop")))[0] == 503
    desk.api.away = False
    desk.time[0] += 6
    assert (await desk.post(report("u-shop")))[0] == 200


async def test_a_crowd_that_cannot_be_vouched_for_is_one_line_of_the_log(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.api.away = True
    for seconds in (0, 1, 1, 9):
        desk.time[0] += seconds
        for number in range(3):
            assert (await desk.post(report("u-shop"), token=f"new-{number}"))[0] == 503
    lines = [line for line in caplog.messages if "could not vouch" in line]
    assert len(lines) == 2


async def test_of_a_crowd_of_tokens_each_question_has_its_whole_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity_module, "ASK_SECONDS", 0.4)
    kube, asked = SlowKube(0.1), 4 * AT_ONCE + AT_ONCE
    identities = Identities(kube, lambda: desk.time[0])  # type: ignore[arg-type]
    found = await asyncio.gather(*(identities.reporter(f"t{n}") for n in range(asked)))
    assert None not in found and kube.at_once == AT_ONCE


class SlowKube:
    """An API server that takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.asking = self.at_once = 0

    async def review_token(self, token: str, audience: str) -> dict[str, Any]:
        self.asking += 1
        self.at_once = max(self.at_once, self.asking)
        await asyncio.sleep(self.seconds)
        self.asking -= 1
        return POD


async def test_a_silent_api_server_is_waited_for_once_not_by_every_report(desk: Desk) -> None:
    assert (await desk.post(report("u-shop")))[0] == 200
    desk.api.away = True
    desk.time[0] += 61
    for _ in range(10):
        assert (await desk.post(report("u-shop")))[0] == 200
    assert desk.api.tried == 2
    desk.time[0] += 6
    assert (await desk.post(report("u-shop")))[0] == 200
    assert desk.api.tried == 3


async def test_a_token_is_not_believed_beyond_its_end(desk: Desk) -> None:
    token = jwt(exp=desk.time[0] + 30)
    desk.api.tokens[token] = POD
    assert (await desk.post(report("u-shop"), token=token))[0] == 200
    desk.time[0] += 31
    del desk.api.tokens[token]
    assert (await desk.post(report("u-shop"), token=token))[0] == 401
    desk.api.away = True
    desk.time[0] += 31
    assert (await desk.post(report("u-shop"), token=token))[0] == 503


@pytest.mark.parametrize("token", ["opaque", "a.b.c", "a.e30.c", "..", "a.W10.c"])
def test_a_token_that_shows_no_end_has_none(token: str) -> None:
    assert expiry(token) == float("inf")


async def test_an_absurd_token_is_not_passed_on(desk: Desk) -> None:
    response = await desk.client.post(
        "/v1/outcomes", headers={"Authorization": "Bearer " + "x" * 8000}
    )
    assert response.status in (400, 401)


async def test_a_report_on_many_namespaces_asks_about_some(desk: Desk) -> None:
    uids = [f"u-{number}" for number in range(MAX_NAMESPACES + 5)]
    NAMESPACES.update({uid: f"namespace-of-{uid}" for uid in uids})
    status, answer = await desk.post(report(*uids))
    assert status == 403
    assert desk.api.asked.count("subjectaccessreviews") == MAX_NAMESPACES
    assert len(answer["refused"]) <= MAX_LISTED


async def test_an_answer_lists_some_refusals_and_counts_all(desk: Desk) -> None:
    refusals = tuple(Refusal(uid=f"u-{n}", reason="unknown backend") for n in range(500))
    desk.answer[0] = Answer(epoch="e1", refused=refusals)
    _, answer = await desk.post(report("u-shop"))
    assert len(answer["refused"]) == MAX_LISTED
    assert desk.refusals("unknown backend") == 500


def test_a_person_is_not_taken_for_a_service_account_of_that_name() -> None:
    person = reporter_of(POD | {"user": {"username": "shop/app"}})
    account = reporter_of(ACCOUNT)
    assert person is not None and account is not None
    assert person.key != account.key


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5.0):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def jwt(**claims: float) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"head.{payload}.signature"
