"""The workers' numbers as one proxy's: merged into the parent's monitor, counters and backends.

Promises that an outcome told by a worker is counted once, whatever becomes of the worker; that what
a worker had under way ends with it; and that the parent's explanations, metrics and reports speak
of all of them. It opens no socket: what the others must hear comes back as messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from nexus_proxy.core import Core
from nexus_proxy.counters import Counters
from nexus_proxy.workers.inbox import rest
from nexus_proxy.workers.places import beside
from nexus_proxy.workers.tally import NOTHING, grow, retire
from nexus_proxy.workers.wire import Batch, Key, Load, Peers, Tally, Use
from nexus_quality.counts import Counts
from nexus_quality.peers import Saw, Sight
from nexus_quality.recorder import Slot
from nexus_quality.report import Cell, CellKey
from nexus_quality.spend import Spend

KEPT_BUCKETS = 2
KEPT_SLOTS = 4
PROBE_ENDS = (Saw.PROBE_SUCCESS, Saw.PROBE_FAILURE, Saw.PROBE_NEUTRAL)


class Hand:
    """One worker as it last told; `loads` and `uses` are what it has under way."""

    def __init__(self) -> None:
        self.tally: Tally = NOTHING
        self.cells: dict[CellKey, Counts] = {}
        self.loads: dict[str, Load] = {}
        self.uses: dict[tuple[str, str], Use] = {}
        self.keys: dict[str, Key] = {}
        self.spend: dict[tuple[str, int], int] = {}
        self.beside: dict[str, int] = {}
        self.probes: dict[tuple[str, str], Sight] = {}
        self.unanswered: dict[tuple[str, str], Sight] = {}

    def saw(self, seen: Sight) -> None:
        """Keep in mind what it has under way as a probe, and without an answer in a row."""
        if seen.saw in (Saw.FAILURE, Saw.UNANSWERED):
            self.unanswered[seen.uid, seen.model] = seen
        elif seen.saw is Saw.PROBE_SENT:
            self.probes[seen.uid, seen.model] = seen
        elif seen.saw in PROBE_ENDS:
            self.probes.pop((seen.uid, seen.model), None)

    def left(self, now: float) -> Iterator[Sight]:
        """What the others must know when it is gone: all that it had under way came to nothing."""
        for seen in self.unanswered.values():
            yield msgspec.structs.replace(seen, saw=Saw.UNANSWERED, unanswered=0)
        for seen in self.probes.values():
            yield msgspec.structs.replace(seen, saw=Saw.PROBE_NEUTRAL, began=now)


class Fleet:
    """All workers of one proxy, merged into `core` and `counters`."""

    def __init__(self, core: Core, counters: Counters) -> None:
        self._core = core
        self._counters = counters
        self.hands: list[Hand] = []
        self._moved: set[str] = set()
        self._contested: set[str] = set()
        self._rests: list[tuple[Hand, Use]] = []

    def join(self) -> Hand:
        """A worker that begins."""
        hand = Hand()
        self.hands.append(hand)
        self._moved.update(uid for each in self.hands for uid in each.loads)
        return hand

    def leave(self, hand: Hand) -> None:
        """A worker is gone: what it had under way is over, what it counted stays."""
        self.hands.remove(hand)
        retire(self._counters, hand.tally)
        for uid, load in hand.loads.items():
            self._load(hand, msgspec.structs.replace(load, in_flight=0, waiting=0))
            self._moved.add(uid)
        for use in tuple(hand.uses.values()):
            self._use(hand, msgspec.structs.replace(use, in_flight=0))
        self._rests = [(of, use) for of, use in self._rests if of is not hand]

    def forget(self, uids: Iterable[str]) -> None:
        """These backends are no more."""
        gone = set(uids)
        for hand in self.hands:
            for uid in gone:
                hand.loads.pop(uid, None)
                hand.keys.pop(uid, None)
                hand.beside.pop(uid, None)
            hand.uses = {key: use for key, use in hand.uses.items() if key[0] not in gone}
            for told in (hand.probes, hand.unanswered):
                for key in [key for key in told if key[0] in gone]:
                    del told[key]
        self._moved -= gone
        self._contested -= gone

    def take(self, hand: Hand, batch: Batch, now: float) -> None:
        """Merge what a worker told."""
        monitor = self._core.monitor
        grow(self._counters, hand.tally, batch.tally)
        hand.tally = batch.tally
        for cell in batch.cells:
            self._count(hand, cell, now)
        for spend in batch.spend:
            self._charge(hand, spend, now)
        for load in batch.loads:
            self._load(hand, load)
            self._moved.add(load.uid)
        for use in batch.uses:
            self._use(hand, use)
        for key in batch.keys:
            hand.keys[key.uid] = key
            self._reflect(key.uid)
        if batch.urgent is not None:
            monitor.hurry(now, seconds=batch.urgent)

    def peers(self, now: float) -> Iterator[tuple[Hand, Peers]]:
        """What each worker must hear of the others since the last call."""
        moved, self._moved = self._moved, set()
        rests, self._rests = self._rests, []
        news: dict[int, Peers] = {}
        for uid in moved:
            self._share(uid, int(now), news)
        for of, use in rests:
            for place, hand in enumerate(self.hands):
                if hand is not of:
                    news.setdefault(place, Peers(loads={}, uses=[])).uses.append(use)
        for place, peers in news.items():
            yield self.hands[place], peers

    def tick(self) -> None:
        """Once a second: who is next where places do not divide."""
        self._moved |= self._contested

    def _share(self, uid: str, turn: int, news: dict[int, Peers]) -> None:
        backend = self._core.control.table.backends.get(uid)
        if backend is None:
            return
        loads = [hand.loads.get(uid) for hand in self.hands]
        waiting = [load.waiting if load else 0 for load in loads]
        in_flight = [load.in_flight if load else 0 for load in loads]
        (self._contested.add if any(waiting) else self._contested.discard)(uid)
        told = beside(backend.max_concurrency, in_flight, waiting, turn)
        for place, (hand, others) in enumerate(zip(self.hands, told, strict=True)):
            if hand.beside.get(uid, 0) != others:
                hand.beside[uid] = others
                news.setdefault(place, Peers(loads={}, uses=[])).loads[uid] = others

    def _count(self, hand: Hand, cell: Cell, now: float) -> None:
        known = hand.cells.get(cell.key)
        if known is None:
            known = hand.cells[cell.key] = Counts()
            hand.cells = _recent(hand.cells, lambda key: key.bucket, cell.bucket - KEPT_BUCKETS)
        growth = known.grow_to(cell)
        if growth.empty or cell.uid not in self._core.control.table.backends:
            return  # nobody reports of a backend that is gone
        series = self._core.monitor.recorder.of(cell.uid, cell.model)
        add(series.slot(now, cell.generation), growth)
        self._core.monitor.pace(cell.uid, now)

    def _charge(self, hand: Hand, spend: Spend, now: float) -> None:
        key = spend.namespace, spend.slot
        more = spend.nano_usd - hand.spend.get(key, 0)
        hand.spend[key] = spend.nano_usd
        hand.spend = _recent(hand.spend, lambda key: key[1], spend.slot - KEPT_SLOTS)
        if more > 0:
            self._core.monitor.spending.charge(spend.namespace, more, now)

    def _load(self, hand: Hand, load: Load) -> None:
        before = hand.loads.get(load.uid)
        hand.loads[load.uid] = load
        backend = self._core.control.table.backends.get(load.uid)
        if backend is None:
            return
        backend.requests += load.requests - (before.requests if before else 0)
        shares = [each.loads[load.uid] for each in self.hands if load.uid in each.loads]
        heard = [share for share in shares if share.latency_ms and share.requests]
        if heard:
            total = sum(share.requests for share in heard)
            backend.latency_ms = sum(each.latency_ms * each.requests for each in heard) / total
            backend.revision += 1
        backend.shift(load.in_flight - (before.in_flight if before else 0))

    def _use(self, hand: Hand, use: Use) -> None:
        key = use.uid, use.model
        before = hand.uses.get(key)
        hand.uses[key] = use
        candidate = self._core.live.candidate(use.uid, use.model)
        if candidate is None:
            return
        subject = candidate.subject
        subject.in_flight += use.in_flight - (before.in_flight if before else 0)
        for breaker in (subject.breaker, subject.backend.breaker):
            breaker.latest_success = max(breaker.latest_success, use.latest_success)
        if rest(self._core, use):
            self._rests.append((hand, use))

    def _reflect(self, uid: str) -> None:
        keys = [hand.keys[uid] for hand in self.hands if uid in hand.keys]
        for known, watch in self._core.monitor.key_watches():
            if known == uid:
                refused = max(key.refused for key in keys)
                watch.reflect(refused=refused, untried=all(key.untried for key in keys))


K = TypeVar("K")
V = TypeVar("V")


def _recent(known: dict[K, V], number: Callable[[K], int], oldest: int) -> dict[K, V]:
    """Those that may still grow: all but the last of these are complete."""
    if all(number(key) >= oldest for key in known):
        return known
    return {key: value for key, value in known.items() if number(key) >= oldest}


def add(slot: Slot, growth: Counts) -> None:
    """Count what others have counted; as everywhere, only the minute's cell has the sketch."""
    slot.minute.add(growth)
    plain = msgspec.structs.replace(growth, ttft_bins={}) if growth.ttft_bins else growth
    slot.ten.add(plain)
    slot.hour.add(plain)
