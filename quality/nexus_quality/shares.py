"""What one reporter says of a subject, and what several of them say together.

Promises exact sums. Where the numbers are from is `evidence`'s to know, what follows from them
`rules`'. Nobody changes them once they are made: they are not frozen because many are made, and
that of a frozen one takes thrice as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

Rows = tuple[tuple[float, int], ...]


@dataclass(slots=True, kw_only=True, init=False)
class Share:
    """One reporter's part. `usual` is its attempts a second, of any generation.

    `rows`: failures in a row, (begin of the first on the operator's clock, number), one for each
    model that has some; `unreached_rows` and `unreached_open` are of the connect-class alone.
    `open`: its breakers keep all of the subject away. `probing`: its probes under way. `recent_…`:
    counted since a moment that the caller chose. `complete`: it has sent all it has at least once.
    """

    reporter: str
    complete: bool = True
    requests: int = 0
    errors: int = 0
    connect_errors: int = 0
    short_requests: int = 0
    short_errors: int = 0
    short_connect_errors: int = 0
    in_flight: int = 0
    usual: float = 0.0
    rows: Rows = ()
    unreached_rows: Rows = ()
    unreached_open: bool = False
    open: bool = False
    eligible: float = 0.0
    probing: int = 0
    probe_successes: int = 0
    probe_failures: int = 0
    probe_neutrals: int = 0
    recent_requests: int = 0
    recent_errors: int = 0

    def __init__(
        self,
        *,
        reporter: str,
        complete: bool = True,
        requests: int = 0,
        errors: int = 0,
        connect_errors: int = 0,
        short_requests: int = 0,
        short_errors: int = 0,
        short_connect_errors: int = 0,
        in_flight: int = 0,
        usual: float = 0.0,
        rows: Rows = (),
        unreached_rows: Rows = (),
        unreached_open: bool = False,
        open: bool = False,
        eligible: float = 0.0,
        probing: int = 0,
        probe_successes: int = 0,
        probe_failures: int = 0,
        probe_neutrals: int = 0,
        recent_requests: int = 0,
        recent_errors: int = 0,
    ) -> None:
        self.reporter = reporter
        self.complete = complete
        self.requests = requests
        self.errors = errors
        self.connect_errors = connect_errors
        self.short_requests = short_requests
        self.short_errors = short_errors
        self.short_connect_errors = short_connect_errors
        self.in_flight = in_flight
        self.usual = usual
        self.rows = rows
        self.unreached_rows = unreached_rows
        self.unreached_open = unreached_open
        self.open = open
        self.eligible = eligible
        self.probing = probing
        self.probe_successes = probe_successes
        self.probe_failures = probe_failures
        self.probe_neutrals = probe_neutrals
        self.recent_requests = recent_requests
        self.recent_errors = recent_errors

    @property
    def row(self) -> int:
        """The failures in a row, of all its models."""
        return sum(length for _, length in self.rows)

    def unreached(self) -> Share:
        """The same with connect-class failures as the only ones."""
        return replace(
            self,
            errors=self.connect_errors,
            short_errors=self.short_connect_errors,
            rows=self.unreached_rows,
            open=self.unreached_open,
        )


@dataclass(slots=True, kw_only=True, init=False)
class Sums:
    """The shares of some reporters added up. `rows`: (begin, length), the latest first."""

    requests: int
    errors: int
    short_requests: int
    short_errors: int
    in_flight: int
    usual: float
    open_usual: float
    rows: Rows

    def __init__(
        self,
        *,
        requests: int,
        errors: int,
        short_requests: int,
        short_errors: int,
        in_flight: int,
        usual: float,
        open_usual: float,
        rows: Rows,
    ) -> None:
        self.requests = requests
        self.errors = errors
        self.short_requests = short_requests
        self.short_errors = short_errors
        self.in_flight = in_flight
        self.usual = usual
        self.open_usual = open_usual
        self.rows = rows

    @classmethod
    def of(cls, parts: Sequence[Share]) -> Sums:
        """Add up `parts`."""
        requests = errors = short_requests = short_errors = in_flight = 0
        usual = open_usual = 0.0
        rows: list[tuple[float, int]] = []
        for p in parts:
            requests += p.requests
            errors += p.errors
            short_requests += p.short_requests
            short_errors += p.short_errors
            in_flight += p.in_flight
            usual += p.usual
            if p.open:
                open_usual += p.usual
            rows.extend(p.rows)
        rows.sort(reverse=True)
        return cls(
            requests=requests,
            errors=errors,
            short_requests=short_requests,
            short_errors=short_errors,
            in_flight=in_flight,
            usual=usual,
            open_usual=open_usual,
            rows=tuple(rows),
        )

    @property
    def row(self) -> int:
        """The failures in a row over all of them."""
        return sum(length for _, length in self.rows)
