"""What the proxies of a namespace have spent in the month, each cost counted once.

A proxy counts its costs in slots of UTC time and reports the sum of each slot so far; a slot that
it called complete never grows. So `asOf` splits all costs of all proxies in two, whoever adds them
up: `spentUSD` is what lies before it, and the rest is in the reports of the proxies that live,
which they replay to a new operator. Nothing else is needed to go on after a restart.

Promises: merging is a join (twice, late, out of order: the same sum); what this process has not
seen published it counts, however late; what lies before the `asOf` it began with it does not.
What is lost is what only one process knew: costs of proxies that are gone, reported to an operator
that was killed before it could publish them; and costs of a proxy that reached neither an operator
for `SILENT_SECONDS` nor the next one for `HELD_SECONDS`. Pure: what is published is
`budget_status`'s to say, by whom it is written the writer's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from nexus_api.pace import paced
from nexus_quality.report import Report
from nexus_quality.spend import Spend, month_at, month_slot, slot_at

SILENT_SECONDS = paced(600.0)
HELD_SECONDS = paced(90.0)
SEALED_SLOTS = 20  # ten minutes behind asOf nothing is kept slot by slot
FORGET_SECONDS = 25 * 3600.0
AHEAD_SLOTS = 4


@dataclass(slots=True)
class Life:
    """One incarnation of a proxy: what it told of slots not sealed yet.

    `told`: all before this slot has been told. `sealed`: slots before this one are in `folded`.
    `latest_ms`: when, on its own clock, the latest report was made; older ones say nothing new of
    whether it lives.
    """

    heard: float = 0.0
    latest_ms: int = 0
    told: int = 0
    gone: bool = False
    sealed: int = 0
    slots: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Account:
    """One namespace in one month.

    `base` is what was published before this process began, of slots before `opening`; `as_of` the
    slot up to which the published sum goes now; `kept` what the lives' slots add up to, `folded`
    what was in slots no longer kept.
    """

    month: str
    base: int
    opening: int
    as_of: int
    folded: int = 0
    kept: int = 0
    lives: dict[tuple[str, str], Life] = field(default_factory=dict)

    @property
    def spent(self) -> int:
        """Nano-USD of the month, as far as it was reported."""
        return self.base + self.folded + self.kept

    @property
    def settled(self) -> int:
        """The part of it before `as_of`."""
        return self.base + self.folded + sum(self._before(self.as_of))

    def orphaned(self, slot: int) -> bool:
        """Whether a proxy that is gone had costs from this slot on that could be published now.

        Nobody would tell them again to another operator.
        """
        return any(
            slot <= each < self.as_of
            for life in self.lives.values()
            if life.gone
            for each in life.slots
        )

    def take(self, key: tuple[str, str], spends: list[Spend], now: float) -> int:
        """Merge what a life told; how much of it was new."""
        life = self.lives.setdefault(key, Life(sealed=self.opening))
        latest, grown = slot_at(now) + AHEAD_SLOTS, 0
        for spend in spends:
            if max(life.sealed, self.opening) <= spend.slot <= latest:
                known = life.slots.get(spend.slot, 0)
                if spend.nano_usd > known:
                    grown += spend.nano_usd - known
                    life.slots[spend.slot] = spend.nano_usd
        self.kept += grown
        return grown

    def advance(self, now: float) -> None:
        """Move `as_of` to where every proxy that is there has told everything."""
        living = [life.told for life in self.lives.values() if _alive(life, now)]
        known = [life.told + life.gone for life in self.lives.values()]
        reached = min(living) if living else max(known, default=0)
        self.as_of = max(self.as_of, min(reached, slot_at(now)))
        for life in self.lives.values():
            self._seal(life, self.as_of - SEALED_SLOTS)

    def forget(self, now: float) -> list[tuple[str, str]]:
        """Let go of proxies that have been silent for a day: what they told stays counted."""
        gone = []
        for key, life in list(self.lives.items()):
            settled = all(slot < self.as_of for slot in life.slots)
            if settled and now - life.heard > FORGET_SECONDS:
                self._fold(life, list(life.slots))
                del self.lives[key]
                gone.append(key)
        return gone

    def turn(self, month: str) -> Account:
        """The account of another month, with the same proxies."""
        opening = month_slot(month)
        account = Account(month, 0, opening, opening)
        for key, life in self.lives.items():
            kept = {slot: n for slot, n in life.slots.items() if slot >= opening}
            sealed = max(life.sealed, opening)
            account.lives[key] = replace(life, sealed=sealed, slots=kept)
            account.kept += sum(kept.values())
        return account

    def _before(self, slot: int) -> Iterator[int]:
        for life in self.lives.values():
            for each, nano_usd in life.slots.items():
                if each < slot:
                    yield nano_usd

    def _seal(self, life: Life, slot: int) -> None:
        if slot <= life.sealed:
            return
        self._fold(life, [each for each in life.slots if each < min(slot, life.told)])
        life.sealed = max(life.sealed, min(slot, life.told))

    def _fold(self, life: Life, slots: list[int]) -> None:
        nano_usd = sum(life.slots.pop(slot) for slot in slots)
        self.kept -= nano_usd
        self.folded += nano_usd


class Budgets:
    """The accounts of all namespaces, since `begin`."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._accounts: dict[str, Account] = {}
        self._homes: dict[tuple[str, str], set[str]] = {}

    def begin(self, now: float) -> None:
        """This process leads from now on: it has heard nobody yet."""
        self._began = now
        self._accounts.clear()
        self._homes.clear()

    def known(self, namespace: str) -> bool:
        """Whether there is an account of a namespace."""
        return namespace in self._accounts

    def open(
        self, namespace: str, now: float, *, month: str = "", spent: int = 0, as_of: float = 0.0
    ) -> None:
        """Begin an account with what was published (nano-USD, up to `as_of`), if of this month."""
        current = month_at(now)
        opening = month_slot(current)
        if month == current:
            opening = max(opening, slot_at(as_of))
        else:
            spent = 0
        self._accounts[namespace] = Account(current, spent, opening, opening)

    def take(self, reporter: str, report: Report, now: float) -> dict[str, int]:
        """Merge a report; the namespaces whose sum grew, and by how much.

        The accounts of all namespaces in it must be open.
        """
        spends: dict[str, list[Spend]] = {}
        for spend in report.spend:
            spends.setdefault(spend.namespace, []).append(spend)
        key, grown = (reporter, report.incarnation), {}
        if spends:
            self._homes.setdefault(key, set()).update(spends)
        for namespace in self._homes.get(key, ()):
            account = self._at(namespace, now)
            if growth := account.take(key, spends.get(namespace, []), now):
                grown[namespace] = growth
            life = account.lives[key]
            if report.now_ms >= life.latest_ms:
                life.heard, life.gone, life.latest_ms = now, report.final, report.now_ms
            life.told = max(life.told, min(report.spend_slot, slot_at(now) + AHEAD_SLOTS))
        return grown

    def spent(self, namespace: str, now: float) -> int:
        """Nano-USD of the month of `now`, as far as it was reported."""
        return self._at(namespace, now).spent

    def account(self, namespace: str, now: float) -> Account:
        """The account of a namespace in the month of `now`, brought up to date."""
        account = self._at(namespace, now)
        # A proxy not heard yet may still tell of what it spent before: asOf waits for it.
        if now - self._began >= HELD_SECONDS:
            account.advance(now)
            for key in account.forget(now):
                self._homes.get(key, set()).discard(namespace)
                if not self._homes.get(key):
                    self._homes.pop(key, None)
        return account

    def _at(self, namespace: str, now: float) -> Account:
        account, month = self._accounts[namespace], month_at(now)
        if account.month < month:
            account = self._accounts[namespace] = account.turn(month)
        return account

    def namespaces(self) -> list[str]:
        """Those with an account."""
        return list(self._accounts)


def _alive(life: Life, now: float) -> bool:
    return not life.gone and now - life.heard <= SILENT_SECONDS
