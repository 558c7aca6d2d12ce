"""Kubernetes Events: one for each change of state, none for anything else.

They are created, never patched onto the object, and an Event that cannot be created is only
counted: it tells a person what happened, nothing depends on it, and nothing waits for it for long.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from nexus_api import BackendState, LLMBackendStatus, ObjectMeta, reasons
from nexus_api.meta import API_VERSION, BACKEND_KIND
from nexus_api.quantities import format_time
from nexus_operator.kube import FIELD_MANAGER, ApiError, Kube
from nexus_operator.metrics import Metrics
from nexus_quality import words
from nexus_quality.shared import stalled_by

log = logging.getLogger(__name__)

NORMAL, WARNING = "Normal", "Warning"
WARNINGS = frozenset(
    {
        reasons.EVENT_EXCLUDED,
        reasons.EVENT_UNHEALTHY,
        reasons.EVENT_CREDENTIALS_REJECTED,
        reasons.EVENT_SECRET_NOT_FOUND,
        reasons.EVENT_SECRET_KEY_NOT_FOUND,
        reasons.EVENT_BUDGET_SOFT_LIMIT,
        reasons.EVENT_BUDGET_HARD_LIMIT,
    }
)
MESSAGE_LIMIT = 1024
ANSWER_SECONDS = 5.0

# An overlay that comes or goes is no transition of the verdict, but a change of state all the same.
OVERLAYS = (
    (BackendState.SUSPENDED, reasons.EVENT_SUSPENDED, reasons.EVENT_RESUMED),
    (BackendState.UNHEALTHY, reasons.EVENT_UNHEALTHY, reasons.EVENT_HEALTHY),
)


@dataclass(frozen=True, slots=True)
class Note:
    """An Event to be: its reason and message."""

    reason: str
    message: str


def overlay_notes(before: LLMBackendStatus, after: LLMBackendStatus) -> list[Note]:
    """What an accepted status says about suspension, health and what is to be mended that the one
    before did not.
    """
    notes = _mending_notes(before, after)
    for state, begins, ends in OVERLAYS:
        if after.state is state and before.state is not state:
            notes.append(Note(begins, _message(after)))
        elif before.state is state and after.state is not state:
            notes.append(Note(ends, f"State is {after.state}"))
    return notes


def _mending_notes(before: LLMBackendStatus, after: LLMBackendStatus) -> list[Note]:
    told, now = stalled_by(before), stalled_by(after)
    if now is not None and (told is None or told[0] != now[0]):
        return [Note(*now)]
    if told is not None and now is None:
        return [Note(reasons.EVENT_RELEASED, words.MENDED)]
    return []


def event(
    metadata: ObjectMeta, note: Note, *, now: float, kind: str = BACKEND_KIND
) -> dict[str, Any]:
    """The core/v1 Event of a note about an object."""
    time = format_time(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata.name[:230]}.{secrets.token_hex(8)}",
            "namespace": metadata.namespace,
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": kind,
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
        },
        "type": WARNING if note.reason in WARNINGS else NORMAL,
        "reason": note.reason,
        "message": note.message[:MESSAGE_LIMIT],
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "reportingInstance": "",
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }


async def post(kube: Kube, metrics: Metrics, namespace: str, body: Mapping[str, Any]) -> None:
    """Creates an Event, or counts that it could not."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await kube.create_event(namespace, body)
        metrics.events.labels("created").inc()
    except (ApiError, httpx.HTTPError, TimeoutError) as error:
        metrics.events.labels("failed").inc()
        log.warning("Event %s could not be created: %s", body["reason"], str(error) or "no answer")


def _message(status: LLMBackendStatus) -> str:
    ready = next((c for c in status.conditions if c.type == reasons.READY), None)
    return ready.message if ready else str(status.state)
