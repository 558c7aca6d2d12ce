"""Lines of the page: the figures of the status, the reason that is worth reading, and no secret."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nexus_api import LLMBackend, decode_backend
from nexus_devtools.page_stand import NAMESPACES, Stand, name, uid
from nexus_operator.page.detail import shown_url
from nexus_operator.page.rows import Row, row, why
from nexus_quality.counts import Counts
from nexus_quality.figures import Figures, Tally

NOTHING = Figures(now=0.0, whole=Tally(), models={})


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message or f"about {reason}",
        "lastTransitionTime": "2026-11-24T00:00:00Z",
    }


def backend(*conditions: dict[str, Any], **status: Any) -> LLMBackend:
    return decode_backend(
        {
            "metadata": {"name": "a", "namespace": "shop", "uid": "u"},
            "spec": {
                "url": "https://llm.example/prefix",
                "type": "openai",
                "auth": {"secretRef": {"name": "the-secret", "key": "the-key"}},
            },
            "status": {"conditions": list(conditions), **status},
        }
    )


READY = condition("Ready", "True", "Active")
OUT = condition("WithinPolicy", "False", "AwaitingProbe")
CASES: list[tuple[LLMBackend, str]] = [
    (backend(), "NotSeen"),
    (backend(READY, state="Active"), "Active"),
    (backend(condition("Ready", "True", "NoTraffic"), state="Active"), "NoTraffic"),
    (
        backend(READY, condition("WithinPolicy", "True", "FailingForSome"), state="Active"),
        "FailingForSome",
    ),
    (
        backend(READY, condition("WithinPolicy", "False", "WouldBeExcluded"), state="Active"),
        "WouldBeExcluded",
    ),
    (backend(OUT, state="Excluded", exclusion={"rule": "ErrorRate"}), "ErrorRate"),
    (backend(OUT, state="Probation", exclusion={"rule": "FleetRow"}), "FleetRow"),
    (backend(OUT, state="Excluded"), "AwaitingProbe"),
    (backend(condition("Healthy", "False", "ProbeFailed"), state="Unhealthy"), "ProbeFailed"),
    (backend(condition("Ready", "False", "Suspended"), state="Suspended"), "Suspended"),
    (
        backend(
            OUT, condition("Stalled", "True", "SecretNotFound"), state="Excluded", exclusion={}
        ),
        "SecretNotFound",
    ),
]


@pytest.mark.parametrize(("seen", "reason"), CASES, ids=[reason for _, reason in CASES])
def test_the_reason_is_the_one_a_person_asks_for(seen: LLMBackend, reason: str) -> None:
    assert why(seen.status).reason == reason
    assert why(seen.status).message
    line = row(seen, figures=NOTHING)
    assert (line.reason, line.mend) == (reason, reason == "SecretNotFound")


def test_without_data_no_figure_is_there() -> None:
    line = msgspec.json.decode(msgspec.json.encode(row(backend(READY), figures=NOTHING)))
    assert set(line) == {"namespace", "name", "type", "state", "reason", "message"}


def test_figures_are_those_of_the_status() -> None:
    hour = Counts(requests=3, errors=1, throttled=2, ttft_count=2, ttft_ms_sum=300)
    tally = Tally(hour=hour, day=Counts(requests=7, errors=1), reporters=2)
    figures = Figures(now=0.0, whole=tally, models={})
    line, told = row(backend(READY), figures=figures), figures.quality()
    assert told is not None
    assert (line.error_rate, line.requests, line.errors) == (told.error_rate_1h, 3, 1)
    assert (line.requests_24h, line.success_24h) == (7, told.success_rate_24h)
    assert (line.throttled, line.reporters) == (2, 2)
    assert (line.p50, line.p95) == (told.p50_ttft_milliseconds, told.p95_ttft_milliseconds)


def test_no_credential_is_on_the_page_nor_the_name_of_one(stand: Stand) -> None:
    stand.add(9, auth={"secretRef": {"name": "the-secret", "key": "the-key"}})
    told = stand.board.detail(NAMESPACES[0], name(9))
    assert told is not None and told.auth == "Secret"
    assert b"the-secret" not in msgspec.json.encode(told)
    assert b"the-key" not in msgspec.json.encode(told)


def test_a_url_is_shown_without_what_might_be_secret() -> None:
    assert shown_url("https://me:pass@llm.example:8443/v1?key=s#f") == "https://llm.example:8443/v1"


def test_the_page_the_statistics_and_the_status_agree(stand: Stand) -> None:
    line = stand.board.detail(NAMESPACES[1], name(1))
    assert line is not None
    found = stand.desk.engine.figures(uid(1), stand.desk.now).whole
    assert (line.row.requests, line.row.errors) == (found.hour.requests, found.hour.errors)
    assert isinstance(line.row, Row) and line.row.state == "Active"
    assert [model.name for model in line.models] == ["llama-3.1-8b"]
    assert line.serves == ("qwen-2.5-7b",)
