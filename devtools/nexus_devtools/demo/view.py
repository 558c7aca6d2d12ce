"""What a person sees while the demo runs: a live table, or lines where there is no terminal.

Promises: what is said stays on the screen in order; the table is below it and is drawn again in
place. It is NOT a place where anything is measured.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TextIO

from nexus_devtools.demo.watch import Row

_PLAIN_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One moment: the API server's columns and rows, each backend's share, and a line below."""

    columns: Sequence[str]
    rows: Sequence[Row]
    shares: Mapping[str, float | None]
    footer: str


class View(Protocol):
    """Where things are said and shown."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def show(self, frame: Frame) -> None:
        """The present state of things."""


def view_for(stream: TextIO) -> View:
    """The view that suits a stream."""
    return LiveView(stream) if stream.isatty() else PlainView(stream)


def table(frame: Frame) -> list[str]:
    """The lines that ``kubectl get`` would print, with one more column: the share of requests."""
    head = (*frame.columns, "SHARE-NOW")
    body = [(*row.cells, _share(frame.shares.get(row.name))) for row in frame.rows]
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, *body)
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f}%"


class _Clock:
    def __init__(self) -> None:
        self._start = time.monotonic()

    def __str__(self) -> str:
        return f"[{time.monotonic() - self._start:5.1f} s]"


class LiveView:
    """For a terminal: the table is erased and drawn again."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._clock = _Clock()
        self._drawn: list[str] = []

    def say(self, text: str) -> None:
        """A line that stays, above the table."""
        below = self._drawn
        self._erase()
        self._stream.write(f"{self._clock} {text}\n")
        self._draw(below)

    def show(self, frame: Frame) -> None:
        """Draw the table again."""
        self._erase()
        # A line that wraps would be two to erase.
        width = shutil.get_terminal_size().columns
        self._draw([line[:width] for line in ("", *table(frame), "", frame.footer)])

    def _erase(self) -> None:
        if self._drawn:
            # Up so many lines, then clear to the end of the screen.
            self._stream.write(f"\x1b[{len(self._drawn)}A\x1b[J")
        self._drawn = []

    def _draw(self, lines: list[str]) -> None:
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()
        self._drawn = lines


class PlainView:
    """For a file or a pipe: the table when a state changes, else every few seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._clock = _Clock()
        self._columns: tuple[str, ...] = ()
        self._states: dict[str, str | None] = {}
        self._shown = 0.0

    def say(self, text: str) -> None:
        """A line that stays."""
        self._stream.write(f"{self._clock} {text}\n")
        self._stream.flush()

    def show(self, frame: Frame) -> None:
        """The whole table after each change of a state, else every few seconds."""
        states = {row.name: row.state for row in frame.rows}
        now = time.monotonic()
        if states == self._states and now - self._shown < _PLAIN_PAUSE_SECONDS:
            return
        self._states, self._shown = states, now
        self._stream.write("".join(f"    {line}\n" for line in (*table(frame), frame.footer)))
        self._stream.flush()
