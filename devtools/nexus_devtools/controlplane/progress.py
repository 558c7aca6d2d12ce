"""Progress of work that takes longer than a person likes to stare at nothing.

On a terminal one line is rewritten each half second; elsewhere a plain line is printed at the
start, every half minute and at the end. Work that ends within two seconds prints nothing at all,
unless it was announced as long. It measures nothing for anybody else.
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Self, TextIO

QUIET_SECONDS = 2.0
TERMINAL_INTERVAL_SECONDS = 0.5
PLAIN_INTERVAL_SECONDS = 30.0


def elapsed(seconds: float) -> str:
    """``75.2`` as ``1:15``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Progress:
    """A context manager that reports ``title`` with the elapsed time and the latest ``detail``."""

    def __init__(self, title: str, *, announce: bool = False, stream: TextIO | None = None) -> None:
        self._title = title
        self._announce = announce
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = time.monotonic()
        self._shown = False
        self.detail = ""

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        if self._announce:
            self._show("")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        if self._shown:
            outcome = "failed after" if kind else "done in"
            self._show(f" {outcome} {elapsed(time.monotonic() - self._started)}", last=True)

    def _run(self) -> None:
        interval = TERMINAL_INTERVAL_SECONDS if self._terminal else PLAIN_INTERVAL_SECONDS
        wait = interval if self._announce else QUIET_SECONDS
        while not self._done.wait(wait):
            detail = f", {self.detail}" if self.detail else ""
            self._show(f" {elapsed(time.monotonic() - self._started)}{detail}")
            wait = interval

    def _show(self, text: str, *, last: bool = False) -> None:
        self._shown = True
        line = f"==> {self._title}{text}"
        if self._terminal:
            self._stream.write(f"\r\x1b[K{line}" + ("\n" if last else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()
