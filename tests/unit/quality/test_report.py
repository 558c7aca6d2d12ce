"""The wire form: what is ignored, what is refused, and in which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_quality import report
from nexus_quality.report import (
    Answer,
    Cell,
    InvalidReport,
    Pulse,
    Refusal,
    Report,
    decode_answer,
    decode_report,
    encode,
    parts,
    together,
)

LIFE = "0123456789abcdef" * 2
MINIMAL = f'{{"incarnation":"{LIFE}","now_ms":5%s}}'


def with_cell(fields: str) -> bytes:
    return (MINIMAL % f',"cells":[{{"uid":"u","model":"m",{fields}}}]').encode()


def test_a_report_comes_back_as_it_was_sent() -> None:
    sent = Report(
        incarnation=LIFE,
        now_ms=77,
        full=True,
        replay=True,
        final=True,
        cells=[Cell(family=60, bucket=1, uid="u", model="m", requests=3, ttft_bins={7: 2})],
        pulses=[Pulse(uid="u", model="m", row=4, row_began_ms=9, open=True, probing=True)],
    )
    assert decode_report(encode(sent)) == sent


def test_an_answer_comes_back_as_it_was_sent() -> None:
    sent = Answer(epoch="e", suspects=("u",), refused=(Refusal(reason="unknown backend", uid="v"),))
    assert decode_answer(encode(sent)) == sent


def test_fields_of_a_later_version_are_ignored_and_missing_ones_have_defaults() -> None:
    body = (
        MINIMAL % ',"new":{"a":[1]},"cells":[{"family":10,"bucket":0,"uid":"u","model":"m","x":1}]'
    )
    got = decode_report(body.encode())
    assert got.cells == [Cell(family=10, bucket=0, uid="u", model="m")]
    assert decode_answer(b'{"epoch":"e","hint":1}') == Answer(epoch="e")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b"\xff", "malformed"),
        (b'{"incarnation":"\xff","now_ms":1}', "utf-8"),
        (b'{"now_ms":1}', "`incarnation`"),
        (b'{"incarnation":"abc","now_ms":1}', "$.incarnation"),
        (f'{{"incarnation":"{LIFE}","now_ms":-1}}'.encode(), "$.now_ms"),
        (f'{{"incarnation":"{LIFE}","now_ms":1.5}}'.encode(), "$.now_ms"),
        (f'{{"incarnation":"{LIFE}","now_ms":{"9" * 300}}}'.encode(), "$.now_ms"),
        (with_cell('"family":10,"bucket":-1'), "$.cells[0].bucket"),
        (with_cell(f'"family":10,"bucket":{"9" * 40}'), "$.cells[0].bucket"),
        (with_cell('"family":10,"bucket":0,"requests":"5"'), "$.cells[0].requests"),
        (with_cell('"family":10,"bucket":0,"ttft_bins":{"a":1}'), "$.cells[0].ttft_bins"),
        ((MINIMAL % ',"pulses":[{"uid":"u","row":-1}]').encode(), "$.pulses[0].row"),
        ((MINIMAL % (',"new":' + "[" * 100_000)).encode(), "nested too deeply"),
    ],
)
def test_what_is_no_report_is_refused_in_one_line_that_says_where(
    body: bytes, message: str
) -> None:
    with pytest.raises(InvalidReport) as caught:
        decode_report(body)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_body_beyond_the_limit_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_BYTES", 10)
    with pytest.raises(InvalidReport, match="a report of 11 bytes: the limit is 10"):
        decode_report(b"x" * 11)


@pytest.mark.parametrize(("field", "most"), [("uid", 64), ("model", 253)])
def test_names_are_bounded(field: str, most: int) -> None:
    names = {"uid": "u", "model": "m"}
    pulses = [Pulse(**{**names, field: "x" * most})]
    body = encode(Report(incarnation=LIFE, now_ms=1, pulses=pulses))
    assert decode_report(body).pulses == pulses
    with pytest.raises(InvalidReport, match=f"pulses.0..{field}"):
        decode_report(body.replace(b"x" * most, b"x" * (most + 1)))


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    for candidate in (body, MINIMAL.encode().replace(b"%s", b"," + body)):
        try:
            decode_report(candidate)
        except InvalidReport as error:
            assert "\n" not in str(error)


@given(
    st.lists(st.tuples(st.sampled_from("abcdefg"), st.integers(0, 40)), max_size=60),
    st.integers(1, 12),
    st.booleans(),
)
def test_the_parts_of_a_report_say_what_it_says_each_backend_in_one_of_them(
    cells: list[tuple[str, int]], size: int, full: bool
) -> None:
    said = [Cell(family=10, bucket=bucket, uid=uid, model="m") for uid, bucket in cells]
    pulses = [Pulse(uid="a", row=1)]
    whole = Report(incarnation=LIFE, now_ms=5, full=full, replay=True, cells=said, pulses=pulses)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "PART_CELLS", size)
        found = list(parts(whole))
    assert sorted(c.key for part in found for c in part.cells) == sorted(c.key for c in said)
    assert [part.full for part in found] == [False] * (len(found) - 1) + [full]
    assert all(part.pulses == pulses and part.replay for part in found)
    for uid in "abcdefg":
        assert sum(any(c.uid == uid for c in part.cells) for part in found) <= 1
    assert all(
        len({c.uid for c in part.cells}) == 1 or len(part.cells) <= size for part in found[1:]
    )


def test_a_backend_with_more_cells_than_a_report_may_have_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report, "PART_CELLS", 2)
    monkeypatch.setattr(report, "MAX_CELLS", 3)
    said = [Cell(family=10, bucket=number, uid="u", model="m") for number in range(8)]
    found = list(parts(Report(incarnation=LIFE, now_ms=5, cells=said)))
    assert [len(part.cells) for part in found] == [3, 3, 2]
    assert [c.bucket for part in found for c in part.cells] == list(range(8))


def test_the_parts_have_one_answer() -> None:
    one = Answer(epoch="e1", suspects=("a", "b"), refused=(Refusal(reason="x"),))
    two = Answer(epoch="e1", suspects=("b", "c"), refused=(Refusal(reason="y"),))
    assert together([one, two]) == Answer(
        epoch="e1", suspects=("a", "b", "c"), refused=(Refusal(reason="x"), Refusal(reason="y"))
    )
