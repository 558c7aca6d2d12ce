"""What a case is: what a client sends, what a backend does, and what was recorded of both proxies.

A case is data. It promises nothing about how it is played; a recorded line is compared as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from nexus_devtools.rawhttp.messages import Message, answer
from nexus_devtools.rawhttp.peers import Script, says

BODY = b'{"id":"1"}'
OK = says(answer(BODY))
_OWN_ADDRESS = re.compile(r"127\.0\.0\.1:\d+")


class Step(Enum):
    """What a client does beside sending bytes."""

    TOO_LONG = "waits until any patience is over"
    INTERIM = "waits for a 1xx answer"
    REACHED = "waits until the backend has a request"
    HALF_CLOSE = "closes its writing side"
    BYTEWISE = "sends one byte at a time from here on"


class End(Enum):
    """The state of the client's connection after the answers: a further request tells."""

    OPEN = "open"
    CLOSED = "closed"
    CUT = "cut"  # ended in the middle of a message
    STUCK = "stuck"  # neither an answer nor an end


@dataclass
class Run:
    """What happened: answers in order (`head_only` ones without their bodies), what the backend
    took for whole requests, and the end.
    """

    interim: list[int] = field(default_factory=list)
    answers: list[Message] = field(default_factory=list)
    requests: list[Message] = field(default_factory=list)
    end: End = End.OPEN
    afterwards: str = "serves"

    def line(self, look: Callable[[Run], str] | None) -> str:
        """The run in one line: statuses, end, number of requests at the backend, what was seen."""
        statuses = [*map(str, self.interim), *(str(each.status) for each in self.answers)]
        words = [*(statuses or ["nothing"]), self.end.value, f"backend {len(self.requests)}"]
        if look is not None:
            words.append(look(self))
        if self.afterwards != "serves":
            words.append(self.afterwards)
        return " ".join(words).rstrip()


@dataclass(frozen=True, slots=True)
class Case:
    """`proxy` is the line recorded of this proxy, `nginx` of nginx; None: the same. Where they
    differ, `why` says for what reason. `head`: the answers are to HEAD; `early`: the backend reads
    heads alone before it acts.
    """

    name: str
    sends: tuple[bytes | Step, ...]
    proxy: str
    backend: tuple[Script, ...] = (OK,)
    nginx: str | None = None
    why: str = ""
    look: Callable[[Run], str] | None = None
    head: bool = False
    early: bool = False

    @property
    def recorded_of_nginx(self) -> tuple[str, ...]:
        """What nginx does; where it depends on which of two things it sees first, both."""
        return tuple((self.proxy if self.nginx is None else self.nginx).split(" or "))


def case(name: str, *sends: bytes | Step, proxy: str = "", **more: Any) -> Case:
    """A case whose client sends these."""
    return Case(name, sends, proxy, **more)


def body(run: Run) -> str:
    """What to look at: the last answer's body."""
    return run.answers[-1].body.decode("latin-1")[:40] if run.answers else ""


def forwarded(*names: str) -> Callable[[Run], str]:
    """What to look at: these headers as the backend got them."""

    def look(run: Run) -> str:
        if not run.requests:
            return ""
        request = run.requests[-1]
        values = {name: b"|".join(request.values(name)).decode("latin-1") for name in names}
        seen = ", ".join(f"{name}={value}" for name, value in values.items())
        return _OWN_ADDRESS.sub("its own", seen)

    return look


def returned(*names: str) -> Callable[[Run], str]:
    """What to look at: these headers as the client got them."""

    def look(run: Run) -> str:
        if not run.answers:
            return ""
        last = run.answers[-1]
        return ", ".join(
            f"{name}={b'|'.join(last.values(name)).decode('latin-1')}" for name in names
        )

    return look


def backend_body(run: Run) -> str:
    """What to look at: the last request's body at the backend."""
    return run.requests[-1].body.decode("latin-1")[:60] if run.requests else ""
