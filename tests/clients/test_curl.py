"""curl, program and library, through the real proxy: HTTP as people type it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from nexus_devtools.realworld.lab import Lab
from nexus_devtools.realworld.place import CLIENTS_KEY, Place

PROGRAM = shutil.which("curl")
LIBRARY = Path(__file__).with_name("libcurl_client.py")
JSON = "content-type: application/json"
SERVERS = {
    "llamacpp": "gemma3-270m",
    "llmock": "gpt-4o",
    "fakellm": "fakellm-1",
    "aimock": "aimock-1",
}


@dataclass(frozen=True, slots=True)
class Said:
    """What curl received: status line, header lines, body."""

    status: str
    head: list[str]
    body: bytes


Curl = Callable[..., Said]


@pytest.fixture(params=["libcurl", *(["curl"] if PROGRAM else [])])
def curl(request: pytest.FixtureRequest, lab: Lab, place: Place, tmp_path: Path) -> Curl:
    """Runs curl on a path of the proxy; `body` is sent from a file, byte by byte as it is."""
    command = {
        "libcurl": [str(lab.python), str(LIBRARY)],
        "curl": [str(PROGRAM), "--silent", "--show-error", "--no-buffer", "--noproxy", "*"],
    }[request.param]

    def curl(path: str, *options: str, body: bytes | None = None) -> Said:
        head = tmp_path / "head"
        sent = []
        if body is not None:
            (tmp_path / "body").write_bytes(body)
            sent = ["--data-binary", f"@{tmp_path / 'body'}", "--header", JSON]
        whole = [*command, f"{place.front.url}{path}", "--dump-header", str(head), *sent]
        whole += ["--header", f"authorization: Bearer {CLIENTS_KEY}", *options]
        done = subprocess.run(
            whole, env=lab.environment(), capture_output=True, timeout=60, check=True
        )
        # What came before the last head was an interim one.
        lines = head.read_bytes().decode("latin-1").strip().split("\r\n\r\n")[-1].split("\r\n")
        return Said(lines[0], [line.lower() for line in lines[1:]], done.stdout)

    return curl


def question(model: str, text: str = "What is the capital of France?", **more: object) -> bytes:
    """A body as nobody's library writes it: spaces, escapes, keys in any order."""
    messages = [{"content": text, "role": "user"}]
    return json.dumps({"messages": messages, **more, "model": model}, indent=1).encode()


@pytest.mark.parametrize("server", SERVERS)
def test_a_question_typed_by_hand_is_answered(curl: Curl, place: Place, server: str) -> None:
    body = question(SERVERS[server], temperature=0)
    with place.watched() as pairs:
        said = curl("/v1/chat/completions", body=body)
    assert said.status.startswith("HTTP/1.1 200")
    assert f"x-nexus-backend: {server}" in said.head
    assert pairs[0].backend.body == body
    assert pairs[0].backend.answer == said.body
    assert json.loads(said.body)["choices"][0]["message"]["content"]


@pytest.mark.parametrize("server", SERVERS)
def test_a_stream_is_printed_as_it_is(curl: Curl, place: Place, server: str) -> None:
    with place.watched() as pairs:
        said = curl("/v1/chat/completions", body=question(SERVERS[server], stream=True))
    assert "content-type: text/event-stream" in "\n".join(said.head)
    assert said.body == pairs[0].backend.answer
    assert said.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
def test_http_1_0_gets_no_chunks(curl: Curl, place: Place, stream: bool) -> None:
    with place.watched() as pairs:
        said = curl("/v1/chat/completions", "--http1.0", body=question("fakellm-1", stream=stream))
    assert " 200 " in said.status
    assert not [line for line in said.head if line.startswith("transfer-encoding")]
    assert said.body == pairs[0].backend.answer != b""


def test_a_body_of_two_megabytes_waits_for_100_continue(curl: Curl, place: Place) -> None:
    body = question("fakellm-1", "Ünïcode\n" * 250_000)
    with place.watched() as pairs:
        said = curl("/v1/chat/completions", "--header", "expect: 100-continue", body=body)
    assert said.status.startswith("HTTP/1.1 200")
    assert pairs[0].client.header("expect") == "100-continue"
    assert pairs[0].backend.header("expect") is None
    assert pairs[0].backend.body == body


def test_a_body_sent_in_chunks_arrives_whole(curl: Curl, place: Place) -> None:
    body = question("fakellm-1", "x" * 200_000)
    with place.watched() as pairs:
        said = curl("/v1/chat/completions", "--header", "transfer-encoding: chunked", body=body)
    assert said.status.startswith("HTTP/1.1 200")
    assert pairs[0].client.header("transfer-encoding") == "chunked"
    assert pairs[0].backend.header("content-length") == str(len(body))


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/chat/completions", b"{", "400", None),
        ("/v1/chat/completions", b'{"messages":[]}', "400", None),
        ("/v1/chat/completions", None, "405", "method_not_allowed"),
        ("/v1/nothing", None, "404", "not_found"),
        ("/v1/models/no-such-model", None, "404", None),
    ],
)
def test_mistakes_are_explained_in_the_envelope(
    curl: Curl, path: str, body: bytes | None, status: str, code: str | None
) -> None:
    said = curl(path, body=body)
    assert f" {status} " in said.status
    error = json.loads(said.body)["error"]
    assert error["message"]
    assert code is None or error["code"] == code


def test_an_error_of_a_server_is_passed_on_as_it_is(curl: Curl, place: Place) -> None:
    with place.watched() as pairs:
        said = curl("/v1/chat/completions", body=question("aimock-1", "sorry"))
    assert " 422 " in said.status
    assert said.body == pairs[0].backend.answer
    assert json.loads(said.body)["error"]["message"] == "that was rejected"
