"""How a body is unpacked: within its bounds, piece by piece, whatever the encoding says."""

from __future__ import annotations

import gzip
import io
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_operator.body import MAX_MEMBERS, Refused, Room, Unpacker, is_packed

LIMIT = 1000
PLAIN = bytes(range(256)) * 3


def unpack(packed: bytes, *, step: int = 7, room: Room | None = None, limit: int = LIMIT) -> bytes:
    with (room or Room()).hold("pod") as hold:
        unpacker = Unpacker(hold, packed=True, limit=limit)
        for start in range(0, len(packed), step):
            unpacker.feed(packed[start : start + step])
        return unpacker.finish()


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3), st.integers(1, 400))
def test_what_was_packed_comes_back_in_any_pieces_and_members(
    parts: list[bytes], step: int
) -> None:
    assert unpack(b"".join(gzip.compress(part) for part in parts), step=step) == b"".join(parts)


def test_a_plain_body_comes_back() -> None:
    with Room().hold("pod") as hold:
        unpacker = Unpacker(hold, packed=False, limit=LIMIT)
        unpacker.feed(PLAIN)
        assert unpacker.finish() == PLAIN


@pytest.mark.parametrize("kept", [1, 9, 30, len(gzip.compress(PLAIN)) - 1])
def test_a_truncated_gzip_is_no_body(kept: int) -> None:
    with pytest.raises(Refused, match="cut short") as caught:
        unpack(gzip.compress(PLAIN)[:kept])
    assert (caught.value.status, caught.value.reason) == (400, "Malformed")


@pytest.mark.parametrize(
    "body",
    [b"{}", gzip.compress(PLAIN) + b"more", zlib.compress(PLAIN), b"\x1f\x8b" + b"\xff" * 90],
)
def test_what_is_no_gzip_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(Refused, match="no gzip") as caught:
        unpack(body)
    assert caught.value.status == 400


def test_a_bomb_is_refused_at_the_limit_not_after_it() -> None:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        for _ in range(64):
            file.write(bytes(1024 * 1024))
    room = Room()
    with room.hold("pod") as hold:
        unpacker = Unpacker(hold, packed=True, limit=LIMIT)
        with pytest.raises(Refused) as caught:
            unpacker.feed(packed.getvalue())
        assert caught.value.status == 413
        assert hold.bytes <= LIMIT
        assert len(unpacker.body) <= LIMIT
    assert room.bytes == 0


def test_a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    assert len(unpack(gzip.compress(bytes(LIMIT)))) == LIMIT
    with pytest.raises(Refused) as caught:
        unpack(gzip.compress(bytes(LIMIT + 1)))
    assert caught.value.status == 413


def test_packed_bytes_have_the_limit_too() -> None:
    with pytest.raises(Refused) as caught:
        unpack(gzip.compress(b"", compresslevel=1) * 100, limit=LIMIT)
    assert caught.value.status in (400, 413)


def test_members_without_content_come_to_an_end() -> None:
    assert unpack(gzip.compress(b"") * MAX_MEMBERS) == b""
    with pytest.raises(Refused, match=f"at most {MAX_MEMBERS} members"):
        unpack(gzip.compress(b"") * (MAX_MEMBERS + 1))


@pytest.mark.parametrize("name", ["", "identity", "Identity"])
def test_a_body_may_be_plain(name: str) -> None:
    assert not is_packed(name)


@pytest.mark.parametrize("name", ["gzip", "GZIP", "x-gzip"])
def test_a_body_may_be_packed(name: str) -> None:
    assert is_packed(name)


@pytest.mark.parametrize("name", ["br", "deflate", "zstd", "gzip, gzip", "nonsense"])
def test_any_other_encoding_is_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(Refused, match="gzip") as caught:
        is_packed(name)
    assert caught.value.status == 415


def test_bodies_together_have_a_bound_and_give_their_room_back() -> None:
    room = Room(each=100, together=150)
    with room.hold("a") as first, room.hold("a") as second:
        first.grow(60)
        with pytest.raises(Refused) as caught:
            second.grow(41)
        assert (caught.value.status, caught.value.reason) == (503, "Busy")
        second.grow(40)
        with room.hold("b") as third:
            third.grow(50)
            with pytest.raises(Refused):
                third.grow(1)
        assert room.bytes == 100
    assert room.bytes == 0
    with room.hold("a") as again:
        again.grow(100)
