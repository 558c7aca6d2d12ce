"""What the fleet says of the keys and Secrets of backends: who speaks, and since when it counts.

Promises that only those who have spoken of a backend's key are asked what they say of it (hardly
anybody ever does), and that what was said of another spec counts no more. What the voices come to
is `nexus_quality.stall`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nexus_quality.ledger import Ledger
from nexus_quality.report import Report
from nexus_quality.stall import Opinion, is_living, judge, voices

_SILENCE, _HEARD = Opinion(), Opinion(voices=1)


class Testimony:
    """By UID of the backend."""

    def __init__(self) -> None:
        self._renewed: dict[str, float] = {}
        self._speakers: dict[str, set[str]] = {}

    def heard(self, reporter: str, report: Report, known: Callable[[str], bool]) -> None:
        """A report was taken in; `known`: whether there is a backend."""
        for pulse in report.pulses:
            if (pulse.refused or pulse.key) and known(pulse.uid):
                self._speakers.setdefault(pulse.uid, set()).add(reporter)

    def renew(self, uid: str, now: float) -> None:
        """The backend has become another one."""
        self._renewed[uid] = now

    def renewed(self, uid: str) -> bool:
        """Whether it did since this process began."""
        return uid in self._renewed

    def forget(self, uid: str) -> None:
        """A backend was deleted."""
        self._renewed.pop(uid, None)
        self._speakers.pop(uid, None)

    def opinion(
        self,
        uid: str,
        ledger: Ledger,
        now: float,
        *,
        usual: Callable[[], Mapping[str, float]],
        min_reporters: int,
    ) -> Opinion:
        """What the fleet says now; `usual`: attempts a second by reporter, asked for if needed.

        Where nobody ever spoke of the key the voices are not counted: one stands for all.
        """
        since = self._renewed.get(uid, float("-inf"))
        users = ledger.users(uid)
        if uid not in self._speakers:
            living = any(is_living(user, now=now, since=since) for user in users.values())
            return _HEARD if living else _SILENCE
        known = ledger.reporters
        speakers = {name: known[name] for name in self._speakers[uid] if name in known}
        asked = {**users, **speakers}.values()
        said = voices(asked, uid, usual(), now=now, since=since)
        if not any(voice.refused or voice.key for voice in said):
            del self._speakers[uid]
        return judge(said, min_reporters=min_reporters)
