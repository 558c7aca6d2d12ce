"""Kubernetes Events: a note about an object, created once.

They are created, never patched onto the object, and an Event that cannot be created is only
counted: it tells a person what happened, nothing depends on it, and nothing waits for it for long.
The name of an Event follows from what it is about, so that the API server refuses a second one.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Mapping
from typing import Any

import httpx

from nexus_api import ObjectMeta, reasons
from nexus_api.meta import API_VERSION, BACKEND_KIND
from nexus_api.quantities import format_time
from nexus_operator.kube import FIELD_MANAGER, ApiError, Kube
from nexus_operator.metrics import Metrics
from nexus_operator.notes import Note

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
NAME_LIMIT = 230
ANSWER_SECONDS = 5.0
EXISTS = 409


def event(
    metadata: ObjectMeta, note: Note, *, now: float, kind: str = BACKEND_KIND
) -> dict[str, Any]:
    """The core/v1 Event of a note about an object."""
    time = format_time(now if note.time is None else note.time)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata.name[:NAME_LIMIT]}.{_digest(metadata, note)}",
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


async def post(kube: Kube, metrics: Metrics, namespace: str, body: Mapping[str, Any]) -> bool:
    """Creates an Event, or counts that it could not; True if it was not there before."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await kube.create_event(namespace, body)
    except ApiError as error:
        if error.status == EXISTS:
            metrics.events.labels("known").inc()
        else:
            _failed(metrics, body, str(error))
    except (httpx.HTTPError, TimeoutError) as error:
        _failed(metrics, body, str(error) or "no answer")
    else:
        metrics.events.labels("created").inc()
        return True
    return False


def _failed(metrics: Metrics, body: Mapping[str, Any], why: str) -> None:
    metrics.events.labels("failed").inc()
    log.warning("Event %s could not be created: %s", body["reason"], why)


def _digest(metadata: ObjectMeta, note: Note) -> str:
    if not note.mark:
        return secrets.token_hex(8)
    return hashlib.sha256(f"{metadata.uid} {note.mark}".encode()).hexdigest()[:16]
