"""Scripts from outside, and what the backend says it saw."""

from __future__ import annotations

import hashlib
import json

import httpx
import pytest

from nexus_devtools.backends import Fault, FaultKind, Script, SimulatedBackend

BODY = {"model": "m1", "messages": []}


async def test_a_script_can_be_set_and_read_over_http(backend: SimulatedBackend) -> None:
    body = {"tokens": 2, "faults": [{"kind": "status", "status": 503, "probability": 0.5}]}
    async with httpx.AsyncClient(base_url=backend.url) as http:
        answer = await http.post("/_script", json=body)
        assert answer.status_code == 200
        read = (await http.get("/_script")).json()
    assert read["tokens"] == 2
    assert read["faults"][0]["kind"] == "status"
    fault = Fault(kind=FaultKind.STATUS, status=503, probability=0.5)
    assert backend.script == Script(tokens=2, faults=(fault,))


async def test_the_one_who_asks_for_refusal_still_gets_an_answer(backend: SimulatedBackend) -> None:
    async with httpx.AsyncClient(base_url=backend.url) as http:
        answer = await http.post("/_script", json={"faults": [{"kind": "refuse"}]})
    assert answer.status_code == 200
    async with httpx.AsyncClient(base_url=backend.url) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get("/health")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"faults": [{"kind": "explode"}]}, "explode"),
        ({"faults": [{"kind": "status", "probability": 2}]}, "probability is 2.0"),
        ({"faults": [{"kind": "status", "status": 200}]}, "status is 200"),
        ({"tokens": 0}, "tokens is 0"),
        ({"firstTokenSeconds": -1}, "cannot be negative"),
        ({"colour": "red"}, "colour"),
        ({"tokens": "many"}, "tokens"),
    ],
)
async def test_a_bad_script_is_refused_with_the_reason_and_changes_nothing(
    backend: SimulatedBackend, body: dict[str, object], says: str
) -> None:
    before = backend.script
    async with httpx.AsyncClient(base_url=backend.url) as http:
        answer = await http.post("/_script", json=body)
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]
    assert backend.script == before


async def test_the_last_request_is_known_to_the_byte(backend: SimulatedBackend) -> None:
    body = b'{ "model":"m1",\n "messages":[] , "z": 1.50}'
    async with httpx.AsyncClient(base_url=backend.url) as http:
        await http.post("/v1/chat/completions", content=body, headers={"X-Probe": "Yes"})
        seen = (await http.get("/_seen")).json()
    assert seen["simulated"] is True
    assert seen["last"]["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert seen["last"]["body_length"] == len(body)
    assert ["X-Probe", "Yes"] in seen["last"]["headers"]


async def test_requests_are_counted_by_path_model_and_fault_and_since_the_script(
    backend: SimulatedBackend,
) -> None:
    async with httpx.AsyncClient(base_url=backend.url) as http:
        await http.get("/health")
        await http.post("/v1/chat/completions", json=BODY)
        await http.post("/v1/completions", json=BODY | {"model": "m2"})
        backend.script = Script(faults=(Fault(kind=FaultKind.STATUS, times=1),))
        await http.post("/v1/chat/completions", json=BODY)
        await http.post("/v1/chat/completions", json=BODY)
    seen = backend.seen()
    assert (seen.requests, seen.completed, seen.faulted) == (4, 4, 1)
    assert seen.by_path["GET /health"] == 1
    assert seen.by_path["POST /v1/chat/completions"] == 3
    assert seen.by_model == {"m1": 3, "m2": 1}
    assert seen.by_fault == {"status": 1}
    assert (seen.since_script.requests, seen.since_script.faulted) == (2, 1)
    assert seen.connections == 1


@pytest.mark.parametrize("kind", [FaultKind.HANG_HEADERS, FaultKind.HANG_STREAM])
async def test_a_client_that_goes_away_is_counted_as_aborted(
    backend: SimulatedBackend, kind: FaultKind
) -> None:
    backend.script = Script(faults=(Fault(kind=kind),))
    async with httpx.AsyncClient(timeout=0.1, base_url=backend.url) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post("/v1/chat/completions", json=BODY | {"stream": True})
    seen = await backend.until(lambda seen: seen.in_flight == 0)
    assert (seen.aborted, seen.completed) == (1, 0)


async def test_a_connection_that_the_fault_cut_is_no_abort_of_the_client(
    backend: SimulatedBackend,
) -> None:
    backend.script = Script(faults=(Fault(kind=FaultKind.CUT, after_chunks=1),))
    async with httpx.AsyncClient(base_url=backend.url) as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post("/v1/chat/completions", content=json.dumps(BODY | {"stream": True}))
    seen = backend.seen()
    assert (seen.aborted, seen.completed) == (0, 1)


async def test_a_body_of_many_megabytes_is_taken(backend: SimulatedBackend) -> None:
    body = BODY | {"messages": [{"role": "user", "content": "x" * 5_000_000}]}
    async with httpx.AsyncClient(base_url=backend.url) as http:
        answer = await http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert backend.seen().last is not None
    assert backend.seen().last.body_length > 5_000_000
