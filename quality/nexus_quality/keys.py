"""One backend's key as a proxy sees it: refusals in a row, and what is missing.

Promises that only answers to the present key count, and that a success ends a row of refusals only
if its attempt began after the first of them. It reads no Secret and holds no key: whoever reads one
says when it is another. What the fleet makes of it is `stall`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from nexus_api import reasons
from nexus_quality import words
from nexus_quality.words import Words

REFUSALS = 3
UNTRIED = "Untried"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFacts:
    """What a proxy knows of a key without trying it.

    `secret`, `key`: where it is from, "" without `auth`. `content`: changes with the key and tells
    nothing of it. `missing`: the reason of Stalled if a Secret or key is not there, `ca`: that of
    `tls`, not of `auth`.
    """

    secret: str = ""
    key: str = ""
    content: int = 0
    missing: str = ""
    ca: bool = False


class KeyWatch:
    """The key of one backend. `serial` tells one key from the next; attempts carry it.

    `changed`: the operator should hear of it soon. `heeded`: the next success tells something.
    """

    __slots__ = ("_began", "_untried", "changed", "facts", "heeded", "refused", "serial")

    def __init__(self) -> None:
        self.facts = KeyFacts()
        self.serial = 0
        self.refused = 0
        self.changed = self.heeded = self._untried = False
        self._began = 0.0

    @property
    def rejected(self) -> bool:
        """Refused too often: no request must carry this key any more."""
        return self.refused >= REFUSALS

    def see(self, facts: KeyFacts) -> bool:
        """Take in what is known now; True if it is another key, or missing or there again."""
        if facts == self.facts:
            return False
        lacked, self.facts = self.facts.missing, facts
        self.renew()
        self.heeded = self._untried = self._untried or bool(lacked)
        return True

    def renew(self) -> None:
        """Begin anew: the key, what it is for, or the fleet's view of it changed."""
        self.serial += 1
        self.changed = True
        self.refused = 0
        self.heeded = self._untried = bool(self.facts.secret)

    def refuse(self, serial: int, began: float) -> None:
        """A request with the key was answered 401 or 403."""
        if serial != self.serial:
            return
        self._began = min(self._began, began) if self.refused else began
        self.refused += 1
        self.heeded, self._untried = True, False

    def accept(self, serial: int, began: float) -> None:
        """A request with the key succeeded."""
        if serial == self.serial and (began > self._began or not self.refused):
            self.refused = 0
            self.heeded = self._untried = False

    @property
    def untried(self) -> bool:
        """It was neither accepted nor refused yet."""
        return self._untried

    def reflect(self, *, refused: int, untried: bool) -> None:
        """What other processes of this proxy have met with the same key."""
        self.refused, self._untried = refused, untried

    def words(self) -> Words:
        """What to say of a rejected key."""
        facts = self.facts
        return words.key_rejected(
            secret=facts.secret, key=facts.key, refusals=self.refused, threshold=REFUSALS
        )

    def blocked(self, *, shared: bool) -> str:
        """What to report beside the row of refusals; `shared`: the fleet's verdict is Rejected.

        A proxy that has a key and nothing to complain of must say so, until it uses it and while
        it may not: or nothing would ever end what others complain of.
        """
        if self.facts.missing:
            return self.facts.missing
        if self.rejected:
            return reasons.CREDENTIALS_REJECTED
        return UNTRIED if shared or self._untried else ""
