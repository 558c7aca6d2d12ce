"""What only a person can mend, as the fleet sees it: a key that is refused, a Secret not there.

Promises an overlay beside the verdict, never a state of it, that is a pure function of what living
reporters say now: it begins and ends with their claims, and neither begins nor lasts by the word of
one, if there are others. It reads no Secret.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from nexus_api import reasons
from nexus_quality.evidence import ALIVE_SECONDS
from nexus_quality.keys import REFUSALS
from nexus_quality.ledger import Incarnation, Reporter
from nexus_quality.report import Pulse

MISSING = (reasons.SECRET_NOT_FOUND, reasons.SECRET_KEY_NOT_FOUND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """What one living reporter says of a backend's key; `usual`: its attempts a second.

    `key`: what it says beside the refusals, `missing` that if it is something missing.
    """

    reporter: str
    refused: int = 0
    key: str = ""
    missing: str = ""
    ca: bool = False
    usual: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """A reason of Stalled. `ca`: it is about `tls`. `reporters`: who says so."""

    reason: str
    ca: bool = False
    refusals: int = 0
    reporters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What the fleet says: `stall` with its quorum, `partly` without one; `voices` heard."""

    stall: Stall | None = None
    partly: Stall | None = None
    voices: int = 0


def voices(
    reporters: Iterable[Reporter], uid: str, usual: Mapping[str, float], *, now: float, since: float
) -> tuple[Voice, ...]:
    """The living reporters that used the backend or speak of its key.

    `usual`: attempts a second of those that used it in the hour. `since`: when the backend last
    became another; what was said before it is not about this one.
    """
    found = []
    for reporter in reporters:
        if not is_living(reporter, now=now, since=since):
            continue
        pulses = list(_pulses(reporter, uid, now, since))
        if pulses or reporter.name in usual:
            found.append(_voice(reporter.name, pulses, usual.get(reporter.name, 0.0)))
    return tuple(found)


def is_living(reporter: Reporter, *, now: float, since: float) -> bool:
    """Whether what a reporter says counts: it was heard lately, and after `since`."""
    return not reporter.gone and now - reporter.heard <= ALIVE_SECONDS and reporter.heard >= since


def _pulses(reporter: Reporter, uid: str, now: float, since: float) -> Iterator[Pulse]:
    for life in reporter.incarnations.values():
        if _alive(life, now, since):
            pulse = life.pulses.get(uid, {}).get("")
            if pulse is not None and (pulse.refused or pulse.key):
                yield pulse


def _alive(life: Incarnation, now: float, since: float) -> bool:
    return now - life.heard <= ALIVE_SECONDS and life.heard >= since


def _voice(name: str, pulses: Sequence[Pulse], usual: float) -> Voice:
    lacking = next((pulse for pulse in pulses if pulse.key in MISSING), None)
    return Voice(
        reporter=name,
        refused=max((pulse.refused for pulse in pulses), default=0),
        key=next((pulse.key for pulse in pulses if pulse.key), ""),
        missing=lacking.key if lacking else "",
        ca=lacking.ca if lacking else False,
        usual=usual,
    )


def judge(heard: Sequence[Voice], *, min_reporters: int) -> Opinion:
    """What those voices come to."""
    partly: Stall | None = None
    heard = _levelled(heard, min_reporters - 1)
    for stall, claims in _claims(heard):
        if _carried(heard, claims, min_reporters):
            return Opinion(stall=stall, voices=len(heard))
        partly = partly or stall
    return Opinion(partly=partly, voices=len(heard))


def _levelled(heard: Sequence[Voice], loud: int) -> Sequence[Voice]:
    """The voices with the `loud` largest claims of traffic cut to the next largest,
    where there is any.
    """
    if loud <= 0 or len(heard) <= loud + 1:
        return heard
    most = heapq.nlargest(loud + 1, (voice.usual for voice in heard))[loud]
    if most <= 0.0:
        return heard
    return [replace(voice, usual=min(voice.usual, most)) for voice in heard]


def _claims(heard: Sequence[Voice]) -> Iterator[tuple[Stall, list[Voice]]]:
    """Every claim there is, with those that make it."""
    for reason in MISSING:
        for ca in (False, True):
            lacking = [v for v in heard if v.missing == reason and v.ca is ca]
            if lacking:
                names = tuple(sorted(v.reporter for v in lacking))
                yield Stall(reason=reason, ca=ca, reporters=names), lacking
    refused = [v for v in heard if v.refused]
    refusals = sum(v.refused for v in refused)
    if refusals >= REFUSALS:
        names = tuple(sorted(v.reporter for v in refused))
        stall = Stall(reason=reasons.CREDENTIALS_REJECTED, refusals=refusals, reporters=names)
        yield stall, refused


def _carried(heard: Sequence[Voice], claims: Sequence[Voice], min_reporters: int) -> bool:
    """Whether a claim is that of most of the traffic, also without its loudest reporters."""
    left_out = max(0, min(min_reporters, len(heard)) - 1)
    loudest = sorted(claims, key=lambda v: (v.usual, v.refused, v.reporter), reverse=True)
    quiet = set(loudest[:left_out])
    rest = [v for v in heard if v not in quiet]
    return _most(heard, claims) and _most(rest, loudest[left_out:])


def _most(heard: Sequence[Voice], claims: Sequence[Voice]) -> bool:
    """At least half of the usual attempts, or of the reporters where there are none."""
    if not claims:
        return False
    traffic = sum((v.usual for v in heard), 0.0)
    if traffic > 0.0:
        return 2.0 * sum((v.usual for v in claims), 0.0) >= traffic
    return 2 * len(claims) >= len(heard)
