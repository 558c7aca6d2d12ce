"""The tools of the real-world tests: pins that are checked, taps that notice one changed byte."""

from __future__ import annotations

import gc
import socket
import time
from dataclasses import replace

import pytest

from nexus_devtools.realworld.errors import RealWorldError
from nexus_devtools.realworld.exchanges import Exchange, read
from nexus_devtools.realworld.lab import NPM_PINS
from nexus_devtools.realworld.npm import Pin, check, read_pins
from nexus_devtools.realworld.place import Pair, assert_equal_bytes, secrets_seen
from nexus_devtools.realworld.tap import Tap, Wire

REQUEST = b"POST /v1/x HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}"
WHOLE = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"


def heard(answer: bytes, *, ended: bool = False) -> Exchange:
    """The one exchange on a wire, read."""
    (found,) = read(Wire(sent=[(1.0, REQUEST)], received=[(2.0, answer)], ended=ended))
    return found


def test_every_pin_of_the_repository_is_whole() -> None:
    pins = read_pins(NPM_PINS.read_text())
    assert {pin.name for pin in pins} == {"openai", "@copilotkit/aimock"}
    assert all(len(pin.integrity) == len("sha512-") + 88 for pin in pins)


def test_an_archive_that_is_not_the_pinned_one_is_refused() -> None:
    with pytest.raises(RealWorldError, match="x@1 has the digest sha512-"):
        check(b"another", Pin("x", "1", "sha512-AAAA"))


def test_a_line_that_pins_nothing_is_named() -> None:
    with pytest.raises(RealWorldError, match="'x 1' is no pin"):
        read_pins("# a comment\n\nx 1\n")


def test_framing_is_no_part_of_a_body() -> None:
    chunked = heard(WHOLE)
    until_eof = heard(b"HTTP/1.1 200 OK\r\n\r\nab", ended=True)
    assert chunked.answer == until_eof.answer == b"ab"
    assert chunked.complete and until_eof.complete
    assert chunked.body == b"{}"


def test_an_answer_that_broke_off_is_not_complete() -> None:
    assert not heard(WHOLE[:-5], ended=True).complete
    assert not heard(WHOLE[:-5]).complete


@pytest.mark.parametrize("name", ["body", "answer"])
def test_one_changed_byte_is_noticed(name: str) -> None:
    same = heard(WHOLE)
    assert_equal_bytes(Pair(client=same, backend=same, served_by="b"))
    other = replace(same, **{name: b"a?"})
    with pytest.raises(AssertionError):
        assert_equal_bytes(Pair(client=other, backend=same, served_by="b"))


def test_a_tap_passes_bytes_on_and_remembers_them() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        Tap(f"http://127.0.0.1:{server.getsockname()[1]}") as tap,
        socket.create_connection(("127.0.0.1", int(tap.url.rpartition(":")[2]))) as client,
    ):
        client.sendall(b"a key: sk-1")
        there, _ = server.accept()
        with there:
            assert there.recv(100) == b"a key: sk-1"
            there.sendall(b"thanks")
        assert client.recv(100) == b"thanks"
        assert client.recv(100) == b""
        assert secrets_seen(tap, "sk-1", "sk-2") == {"sk-1"}


def test_a_tap_whose_client_has_said_everything_outlives_the_collector() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        Tap(f"http://127.0.0.1:{server.getsockname()[1]}") as tap,
        socket.create_connection(("127.0.0.1", int(tap.url.rpartition(":")[2]))) as client,
    ):
        client.settimeout(5)
        client.sendall(b"ask")
        client.shutdown(socket.SHUT_WR)
        there, _ = server.accept()
        with there:
            assert there.recv(100) == b"ask"
            assert there.recv(100) == b""
            time.sleep(0.1)  # for the loop to forget what it had at hand
            gc.collect()
            there.sendall(b"answer")
        assert client.recv(100) == b"answer"
