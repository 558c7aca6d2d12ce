"""The pure pieces of the byte path, each by a table."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from nexus_proxy.envelope import broken_stream_event, error_body, error_type, rejection_body
from nexus_proxy.http.answer_head import retry_after_seconds
from nexus_proxy.http.heads import Roles, header_text, named_by_connection, without
from nexus_proxy.http.inspect import blames_request, is_error_body
from nexus_proxy.http.rewrite import with_model
from nexus_proxy.http.sse import MAX_EVENT_BYTES, Watcher
from nexus_proxy.routing.router import Reason, Rejection

REWRITES = {
    '{"model":"m"}': '{"model":"new"}',
    ' { "x" : 1 , "model"\t:\n"m" } ': ' { "x" : 1 , "model"\t:\n"new" } ',
    '{"a":{"model":"m"},"model":"m"}': '{"a":{"model":"m"},"model":"new"}',
    '{"a":["model",{"model":"m"}],"model":"m","z":"model"}': (
        '{"a":["model",{"model":"m"}],"model":"new","z":"model"}'
    ),
    '{"text":"\\"model\\":\\"m\\"","model":"m"}': '{"text":"\\"model\\":\\"m\\"","model":"new"}',
    '{"text":"\\\\","model":"m"}': '{"text":"\\\\","model":"new"}',
    '{"model":"m","x":2,"model":"n"}': '{"model":"new","x":2,"model":"new"}',
    '{"mod\\u0065l":"m"}': '{"mod\\u0065l":"new"}',
    '{"xmodel":"m","model ":"m","model":"é"}': '{"xmodel":"m","model ":"m","model":"new"}',
    '{"model":"a,b:{c}"}': '{"model":"new"}',
    '{"x":"{","model":"m"}': '{"x":"{","model":"new"}',
}


@pytest.mark.parametrize("body", REWRITES)
def test_rewriting_changes_the_value_of_model_alone(body: str) -> None:
    assert with_model(body.encode(), "new").decode() == REWRITES[body]


def test_a_name_is_written_as_json() -> None:
    assert json.loads(with_model(b'{"model":"m"}', 'a"b\\c'))["model"] == 'a"b\\c'


def test_rewriting_is_linear_in_hostile_bodies() -> None:
    body = b"{" + b'"a":{"model":"m"},' * 50_000 + b'"model":"m"}'
    assert with_model(body, "n").endswith(b'"model":"n"}')


ERROR_BODIES = {
    b'{"error":{"message":"x"}}': True,
    b' {"error" : "x"}': True,
    b'{"object":"error","message":"x","error":null}': True,
    b'{"error":null,"id":1}': False,
    b'{"error":{}}': False,
    b'{"id":1,"text":"error"}': False,
    b'{"choices":[{"text":"\\"error\\": 1"}]}': False,
    b'{"choices":[{"error":"x"}]}': False,
    b'[{"error":1}]': False,
    b'{"error":': False,
    b"": False,
}


@pytest.mark.parametrize("body", ERROR_BODIES)
def test_an_error_object_is_told_from_an_answer(body: bytes) -> None:
    assert is_error_body(body) is ERROR_BODIES[body]


BLAMED = {
    b'{"error":{"type":"invalid_request_error","message":"No such File object: f"}}': True,
    b'{"error":{"type":"invalid_request_error","code":"model_not_found"}}': False,
    b'{"error":{"type":"invalid_request_error","message":"No such Model"}}': False,
    b'{"error":{"type":"not_found_error","message":"File Not Found","code":404}}': False,
    b'{"error":"model not found"}': False,
    b'{"detail":"Not Found"}': False,
    b"<h1>404</h1>": False,
    b"[]": False,
}


@pytest.mark.parametrize("body", BLAMED)
def test_a_404_of_the_requests_own_making_is_told_from_a_missing_model(body: bytes) -> None:
    assert blames_request(body) is BLAMED[body]


def test_packed_bodies_are_looked_into_within_bounds() -> None:
    error = b'{"error":{"message":"x"}}'
    assert is_error_body(gzip.compress(error), b"gzip")
    assert is_error_body(zlib.compress(error), b"deflate")
    assert not is_error_body(error, b"br")
    assert not is_error_body(b"not gzip", b"gzip")
    bomb = gzip.compress(b" " * 50_000_000 + error)
    assert not is_error_body(bomb, b"gzip")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 1000])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_a_watcher_lets_whole_events_through_and_loses_nothing(size: int, end: bytes) -> None:
    data = b"".join(b'data: {"n":%d}' % n + end for n in range(40)) + b"data: [DONE]"
    watcher = Watcher()
    out = b""
    for start in range(0, len(data), size):
        piece = watcher.feed(data[start : start + size])
        assert not piece or piece.endswith(end)
        out += piece
    assert out + watcher.finish() == data
    assert watcher.ended_well()
    assert watcher.seen == 41


def test_an_event_beyond_measure_is_carried_unwatched() -> None:
    watcher = Watcher()
    data = b"data: " + b"x" * MAX_EVENT_BYTES
    out = watcher.feed(data[:10])
    out += watcher.feed(data[10:])
    out += watcher.feed(b"more")
    assert out == data + b"more"
    assert watcher.opaque


def test_comments_are_no_events() -> None:
    watcher = Watcher()
    assert watcher.feed(b": ping\n\n") == b": ping\n\n"
    assert watcher.seen == 0
    watcher.feed(b"data: 1\n\n")
    assert watcher.seen == 1


def test_only_an_error_before_any_event_fails_first() -> None:
    first, later = Watcher(), Watcher()
    first.feed(b'data: {"error":{"message":"x"}}\n\n')
    later.feed(b'data: {"choices":[]}\n\ndata: {"error":{"message":"x"}}\n\n')
    assert (first.failed, first.failed_first) == (True, True)
    assert (later.failed, later.failed_first) == (True, False)


def test_old_llama_cpp_errors_are_errors() -> None:
    watcher = Watcher()
    watcher.feed(b'error: {"code":500,"message":"x"}\n\n')
    assert watcher.failed_first


def test_connection_names_headers_and_options() -> None:
    assert named_by_connection(b"keep-alive") == frozenset()
    assert named_by_connection(b"close, X-A ,te,x-b,") == {b"x-a", b"x-b"}


def test_lines_are_removed_by_whole_names() -> None:
    lines = b"A: 1\r\nX-A: 2\r\nx-a: 3\r\nX-AB: 4: 5\r\n"
    assert without(lines, frozenset((b"x-a",))) == b"A: 1\r\nX-AB: 4: 5\r\n"


def test_spellings_are_remembered_but_not_without_bound() -> None:
    roles: Roles[object] = Roles({})
    for number in range(5000):
        assert roles[b"x-%d" % number] is None
    assert len(roles) < 5000
    assert roles[b"X-NEXUS-Anything"] is not None
    assert roles[b"Transfer-ENCODING"] is not None


def test_a_header_value_cannot_break_its_line() -> None:
    assert header_text("a\r\nSet-Cookie: b\0 é 猫") == b"aSet-Cookie: b \xe9 ?"


RETRY_AFTER = {
    b"0": 0.0,
    b"17": 17.0,
    b"99999999999": 999999999.0,
    b"Thu, 01 Jan 1970 00:16:50 GMT": 10.0,
    b"Thu, 01 Jan 1970 00:00:00 GMT": 0.0,
    b"soon": None,
    b"-1": None,
    b"": None,
}


@pytest.mark.parametrize("value", RETRY_AFTER)
def test_retry_after_is_seconds_or_a_date(value: bytes) -> None:
    assert retry_after_seconds(value, wall_time=lambda: 1000.0) == RETRY_AFTER[value]


def test_envelopes_have_the_shape_openai_clients_raise_from() -> None:
    error = json.loads(error_body(400, "no", code="c", param="p"))["error"]
    assert error == {"message": "no", "type": "invalid_request_error", "param": "p", "code": "c"}
    assert [error_type(status) for status in (401, 429, 404, 502)] == [
        "authentication_error",
        "rate_limit_error",
        "invalid_request_error",
        "server_error",
    ]


def test_a_rejection_carries_every_reason() -> None:
    reason = Reason("b", "QualityReconciler", "error rate", "wait")
    body = rejection_body(Rejection(503, "no_available_backend", "none", (reason,), retry_after=3))
    error = json.loads(body)["error"]
    assert error["code"] == "no_available_backend"
    assert error["context"]["rejection_reasons"] == [
        {
            "backend": "b",
            "reconciler": "QualityReconciler",
            "reason": "error rate",
            "suggested_action": "wait",
        }
    ]
    unknown = json.loads(rejection_body(Rejection(404, "model_not_found", "no", param="model")))
    assert unknown["error"]["param"] == "model"
    assert "context" not in unknown["error"]


def test_the_event_of_a_broken_stream_is_one_event() -> None:
    event = broken_stream_event('the "end"\n\n')
    assert event.startswith(b"data: {")
    assert event.count(b"\n\n") == 1
    assert event.endswith(b"\n\n")
    assert json.loads(event[6:])["error"]["message"] == 'the "end"\n\n'
