"""What states each backend was in, when, and why: the latest of them, in memory.

Promises at most `MOST` moments for a backend and its models together, and after a start those that
its status still tells. A moment is when this process saw it, except for those of before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from nexus_api import BackendState, LLMBackend, LLMBackendStatus, SubjectState, reasons
from nexus_api.quantities import parse_time
from nexus_operator.page.rows import condition, why

MOST = 40
MESSAGE_CHARACTERS = 400


class Moment(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A state began. `at`: epoch seconds; `model` "": the backend itself."""

    at: int
    state: str
    reason: str = ""
    message: str = ""
    model: str = ""


class Timelines:
    """By UID."""

    def __init__(self) -> None:
        self._moments: dict[str, deque[Moment]] = {}
        self._seen: dict[str, dict[str, str]] = {}
        self._since: dict[str, int] = {}

    def see(self, backend: LLMBackend, now: float) -> None:
        """Notes what is new in a backend's status."""
        uid, status = backend.metadata.uid, backend.status
        if status.state is None:
            return
        seen = states(status)
        before = self._seen.get(uid)
        if before == seen:
            return
        if before is None:
            found = list(past(status, now))
        else:
            found = list(_turns(status, before, seen, now))
        self._seen[uid] = seen
        self._moments.setdefault(uid, deque(maxlen=MOST)).extend(found)
        own = [moment.at for moment in found if not moment.model]
        if own:
            self._since[uid] = own[-1]

    def forget(self, uid: str) -> None:
        """A backend is gone."""
        self._moments.pop(uid, None)
        self._seen.pop(uid, None)
        self._since.pop(uid, None)

    def of(self, uid: str) -> list[Moment]:
        """The moments of a backend, the latest first."""
        return list(reversed(self._moments.get(uid, ())))

    def since(self, uid: str) -> int | None:
        """When the present state of a backend began."""
        return self._since.get(uid)


def states(status: LLMBackendStatus) -> dict[str, str]:
    """The states that are told: of the backend as "", and of the models that are left out."""
    found = {"": status.state.value if status.state else ""}
    for model in status.model_quality:
        if model.state is not SubjectState.ACTIVE:
            found[model.name] = model.state.value
    return found


def past(status: LLMBackendStatus, now: float) -> Iterator[Moment]:
    """What a status tells of the time before this process, the oldest first."""
    state, exclusion = status.state, status.exclusion
    assert state is not None
    began = _began(status, now)
    if exclusion is not None and exclusion.start_time is not None:
        start = parse_time(exclusion.start_time)
        back = exclusion.recovered_time
        over = state is not BackendState.EXCLUDED
        # Out, back, and since then something else: each is a moment of its own.
        if over and start < began:
            rule = exclusion.rule.value if exclusion.rule else ""
            yield _moment(start, "Excluded", rule, exclusion.reason or "")
        if back is not None and state is not BackendState.ACTIVE and start < parse_time(back):
            yield _moment(parse_time(back), "Active")
    yield _moment(began, state.value, *why(status))
    for model in status.model_quality:
        if model.state is not SubjectState.ACTIVE:
            yield from _turns(status, {}, {model.name: model.state.value}, now)


def _turns(
    status: LLMBackendStatus, before: dict[str, str], after: dict[str, str], now: float
) -> Iterator[Moment]:
    """What changed at once: the models, then the backend itself."""
    known = {model.name: model for model in status.model_quality}
    for name in sorted({*before, *after}, key=lambda each: (not each, each)):
        state = after.get(name, "Active")
        if before.get(name, "Active" if name else "") == state:
            continue
        if not name:
            yield _moment(now, state, *why(status))
            continue
        model = known.get(name)
        out = model.exclusion if model is not None and state != "Active" else None
        rule = out.rule.value if out is not None and out.rule else ""
        yield _moment(now, state, rule, (out.reason or "") if out else "", model=name)


def _began(status: LLMBackendStatus, now: float) -> float:
    """When the present state began, as far as a status knows."""
    state, exclusion = status.state, status.exclusion
    kind = reasons.HEALTHY if state is BackendState.UNHEALTHY else reasons.READY
    found = condition(status, kind)
    began = parse_time(found.last_transition_time) if found is not None else now
    if state is BackendState.EXCLUDED and exclusion is not None and exclusion.start_time:
        return parse_time(exclusion.start_time)
    # Ready stays True from Probation to Active.
    if state is BackendState.ACTIVE and exclusion is not None and exclusion.recovered_time:
        return max(began, parse_time(exclusion.recovered_time))
    return began


def _moment(
    at: float, state: str, reason: str = "", message: str = "", *, model: str = ""
) -> Moment:
    if len(message) > MESSAGE_CHARACTERS:
        message = message[: MESSAGE_CHARACTERS - 1] + "…"
    return Moment(at=int(at), state=state, reason=reason, message=message, model=model)
