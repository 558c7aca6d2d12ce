"""The report a proxy sends and the answer it gets: counters, not events.

Promises a wire form in which sending twice, late or out of order changes nothing: every number is
the total of its cell so far. Unknown fields are ignored, so that versions one apart understand
each other. It does not send, authenticate or merge anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from nexus_quality.counts import Counts
from nexus_quality.spend import Slot, Spend

MAX_BYTES = 8 * 1024 * 1024
MAX_CELLS = 10_000
PART_CELLS = 2_000
MAX_NUMBER = 2**53 - 1
OTHER_MODEL = "other"

Natural = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]


class InvalidReport(ValueError):
    """The bytes are no report; the message says where and why, in one line."""


class CellKey(NamedTuple):
    """What a cell counts: one bucket of one (backend, model) under one verdict generation."""

    family: int
    bucket: int
    uid: str
    model: str
    generation: int


class Cell(Counts, omit_defaults=True, kw_only=True):
    """A bucket's counters so far. `bucket` is numbered by the reporter's boot clock."""

    family: Natural
    bucket: Natural
    uid: Annotated[str, Meta(max_length=64)]
    model: Annotated[str, Meta(max_length=253)]
    generation: Natural = 0

    @property
    def key(self) -> CellKey:
        """The cell's identity within its reporter's incarnation."""
        return CellKey(self.family, self.bucket, self.uid, self.model, self.generation)


class Pulse(msgspec.Struct, omit_defaults=True, kw_only=True, frozen=True, gc=False):
    """How one (backend, model) stands with the reporter at this moment; `model` "": the backend.

    `row`: failures in a row, with the begin of the first of them; times are the boot clock's in
    milliseconds. `open`: the reporter's own breaker keeps ordinary traffic away. `probing`: a
    probing request is under way. `generation`: the verdict generation that the reporter knows.
    `refused`: refusals in a row of the key from `auth`; `key`: why no request is sent with it (a
    reason of Stalled), or Untried where only the fleet's verdict says so; `ca`: it is about `tls`.
    A report carries every pulse there is to tell of: one that is missing is over.
    """

    uid: Annotated[str, Meta(max_length=64)]
    model: Annotated[str, Meta(max_length=253)] = ""
    generation: Natural = 0
    in_flight: Natural = 0
    row: Natural = 0
    row_began_ms: Natural = 0
    success_began_ms: Annotated[int, Meta(ge=-1, le=MAX_NUMBER)] = -1
    open: bool = False
    probing: bool = False
    refused: Natural = 0
    key: Annotated[str, Meta(max_length=64)] = ""
    ca: bool = False


class Report(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Everything that changed since the last answered report, or with `full` all there is.

    `told`: the epoch of the operator that has answered all there is but what is in this report.
    `replay`: sent because the operator is new, so the cells were counted before. `final`: the
    reporter says goodbye. `spend_slot`: what was spent before this slot has been told, by this
    report or an answered one.
    """

    incarnation: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    now_ms: Natural
    full: bool = False
    told: Annotated[str, Meta(max_length=64)] = ""
    replay: bool = False
    final: bool = False
    cells: Annotated[list[Cell], Meta(max_length=MAX_CELLS)] = []
    pulses: Annotated[list[Pulse], Meta(max_length=MAX_CELLS)] = []
    spend: Annotated[list[Spend], Meta(max_length=MAX_CELLS)] = []
    spend_slot: Slot = 0


class Refusal(msgspec.Struct, omit_defaults=True, kw_only=True, frozen=True):
    """Something in a report that cannot be, with the reason; the rest was taken."""

    reason: str
    uid: str = ""


class Answer(msgspec.Struct, omit_defaults=True, kw_only=True, frozen=True):
    """The intake's answer. `suspects`: backends whose successes should travel at once, too."""

    epoch: str
    suspects: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()


_T = TypeVar("_T")
_report_decoder = msgspec.json.Decoder(Report)
_answer_decoder = msgspec.json.Decoder(Answer)
_encoder = msgspec.json.Encoder()


def taken_by(report: Report, epoch: str) -> Report:
    """As the operator of an epoch takes it: full, if all else was told to it before."""
    if report.full or not report.told or report.told != epoch:
        return report
    return msgspec.structs.replace(report, full=True)


def parts(report: Report, size: int | None = None) -> Iterator[Report]:
    """The same in reports of about `size` cells each (PART_CELLS), for somebody who judges in
    between.

    A backend is in one part as long as that has no more than MAX_CELLS, so that none is judged by
    a half of what is said of it. Every part has all pulses. Only the last is what the whole is,
    complete or a goodbye.
    """
    *earlier, last = _of_backends(report.cells, PART_CELLS if size is None else size)
    if not earlier:
        yield report
        return
    for cells in earlier:
        yield msgspec.structs.replace(report, cells=cells, full=False, told="", final=False)
    yield msgspec.structs.replace(report, cells=last)


def together(answers: Sequence[Answer]) -> Answer:
    """One answer to all parts of a report."""
    return Answer(
        epoch=answers[-1].epoch,
        suspects=tuple(dict.fromkeys(uid for answer in answers for uid in answer.suspects)),
        refused=tuple(refusal for answer in answers for refusal in answer.refused),
    )


def _of_backends(cells: list[Cell], size: int) -> Iterator[list[Cell]]:
    """Pieces of some cells, cut between backends where that is possible."""
    if len(cells) <= size:
        yield cells
        return
    backends: dict[str, list[Cell]] = {}
    for cell in cells:
        backends.setdefault(cell.uid, []).append(cell)
    piece: list[Cell] = []
    for of_one in backends.values():
        if piece and len(piece) + len(of_one) > size:
            yield piece
            piece = []
        for start in range(0, len(of_one), MAX_CELLS):
            if start:
                yield piece
                piece = []
            piece = piece + of_one[start : start + MAX_CELLS]
    yield piece


def encode(message: Report | Answer) -> bytes:
    """A report or an answer as JSON."""
    return _encoder.encode(message)


def decode_report(body: bytes) -> Report:
    """Read a report; raises InvalidReport."""
    if len(body) > MAX_BYTES:
        raise InvalidReport(f"a report of {len(body)} bytes: the limit is {MAX_BYTES}")
    return _decode(_report_decoder, body)


def decode_answer(body: bytes) -> Answer:
    """Read an answer; raises InvalidReport."""
    return _decode(_answer_decoder, body)


def _decode(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidReport(str(error)) from None
    except RecursionError:
        raise InvalidReport("nested too deeply") from None
