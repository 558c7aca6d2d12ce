"""From reports and probes to the status that is due: keys, Secrets, health, events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec
import pytest

from nexus_api import LLMBackend
from nexus_devtools.desk import BAD, START, UID, Desk
from nexus_operator.notes import Note
from nexus_quality.health import EAGER_SECONDS
from nexus_quality.report import Cell, Pulse, Report

Build = Callable[..., LLMBackend]
AUTH = {"secretRef": {"name": "openai", "key": "api-key"}}
REFUSED = (
    "The backend answers 401 or 403 to the key in Secret openai, key api-key: {} refusals in a row,"
    " 3 suffice; put a valid key into Secret openai, or change spec.auth"
)


def refusals(number: int, uid: str = UID) -> Pulse:
    return Pulse(uid=uid, refused=number, key="CredentialsRejected" if number >= 3 else "")


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def keyed(desk: Desk, backend: Build) -> Desk:
    """A desk with one backend that has a key, written once."""
    desk.see(backend(auth=AUTH, models=[{"name": "m"}]))
    desk.write()
    return desk


def test_a_refused_key_is_an_overlay_in_the_same_words_everywhere(
    keyed: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keyed.hear("one", refusals(3))
    assert keyed.write() == [Note("CredentialsRejected", REFUSED.format(3))]
    assert keyed.said("Stalled") == ("True", "CredentialsRejected", REFUSED.format(3))
    assert keyed.said("Ready") == ("False", "Excluded", REFUSED.format(3))
    assert keyed.said("WithinPolicy") == ("False", "CredentialsRejected", REFUSED.format(3))
    assert f"shop/a: CredentialsRejected: {REFUSED.format(3)}" in caplog.messages
    status = keyed.status()
    assert (status.state, status.verdict_generation) == ("Excluded", 0)
    assert msgspec.to_builtins(status.exclusion) == {
        "startTime": "1970-01-12T13:46:40Z",
        "rule": "CredentialsRejected",
        "errors": 3,
        "requests": 3,
        "reason": REFUSED.format(3).split("; ")[0],
        "suggestedAction": REFUSED.format(3).split("; ")[1],
    }


def test_it_ends_when_nobody_claims_it_any_more(keyed: Desk) -> None:
    keyed.hear("one", refusals(3))
    keyed.write()
    keyed.now += 5
    keyed.hear("one", Pulse(uid=UID, key="Untried"))
    assert keyed.write() == [
        Note("Released", "No proxy reports a refused key or a missing Secret any more")
    ]
    assert keyed.said("Stalled") == ("False", "NothingToMend", "Nothing for a person to mend")
    assert (keyed.status().state, keyed.status().exclusion) == ("Active", None)


def test_further_refusals_are_no_news(keyed: Desk) -> None:
    keyed.hear("one", refusals(3))
    keyed.write()
    keyed.now += 1
    keyed.hear("one", refusals(7))
    assert keyed.write() == []
    assert keyed.said("Stalled")[2] == REFUSED.format(3)


def test_silence_takes_nothing_back(keyed: Desk) -> None:
    keyed.hear("one", refusals(3))
    keyed.write()
    keyed.now += 1000
    keyed.write()
    assert keyed.said("Stalled")[0] == "True"


def test_another_spec_takes_it_back_at_once(keyed: Desk, backend: Build) -> None:
    keyed.hear("one", refusals(3))
    keyed.write()
    keyed.now += 1
    other = {"secretRef": {"name": "other", "key": "api-key"}}
    before = msgspec.json.decode(msgspec.json.encode(keyed.status()))
    keyed.see(backend(auth=other, models=[{"name": "m"}], status=before))
    keyed.write()
    assert keyed.said("Stalled")[0] == "False"
    assert keyed.status().state == "Active"


def test_one_of_several_says_so_and_concludes_nothing_for_the_others(keyed: Desk) -> None:
    for name in ("shop/b", "shop/c"):
        keyed.hear(name, successes=20)
    keyed.hear("shop/a", refusals(5))
    keyed.write()
    assert keyed.said("Stalled")[0] == "False"
    reason = REFUSED.format(5).split("; ")[0]
    told = f"{reason}, but only as seen by shop/a, which leave it out themselves"
    assert keyed.said("WithinPolicy") == ("True", "FailingForSome", told)
    assert keyed.status().state == "Active"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("SecretNotFound", "Secret openai not found; create Secret openai with key api-key"),
        (
            "SecretKeyNotFound",
            "Secret openai has no key api-key; add key api-key to Secret openai",
        ),
    ],
)
def test_what_is_missing_is_named_and_comes_back_by_itself(
    keyed: Desk, reason: str, words: str
) -> None:
    keyed.hear("one", Pulse(uid=UID, key=reason))
    assert keyed.write() == [Note(reason, words)]
    assert keyed.said("Stalled") == ("True", reason, words)
    assert keyed.said("Ready") == ("False", "Excluded", words)
    assert keyed.said("WithinPolicy")[0] == "True"
    assert keyed.status().exclusion is None
    keyed.hear("one", Pulse(uid=UID, key="Untried"))
    keyed.write()
    assert keyed.status().state == "Active"


def test_a_claim_about_a_secret_that_the_spec_does_not_name_says_nothing(
    desk: Desk, backend: Build
) -> None:
    desk.see(backend(models=[{"name": "m"}]))
    desk.hear("one", refusals(9))
    desk.hear("two", Pulse(uid=UID, key="SecretNotFound", ca=True))
    desk.write()
    assert desk.said("Stalled")[0] == "False"


def test_the_ca_of_tls_is_named_as_such(desk: Desk, backend: Build) -> None:
    tls = {"caSecretRef": {"name": "ca", "key": "ca.crt"}}
    desk.see(backend(url="https://x", tls=tls, models=[{"name": "m"}]))
    desk.hear("one", Pulse(uid=UID, key="SecretNotFound", ca=True))
    desk.write()
    said = "Secret ca not found; create Secret ca with key ca.crt"
    assert desk.said("Stalled") == ("True", "SecretNotFound", said)


def test_a_restarted_operator_keeps_it_until_the_fleet_says_otherwise(
    keyed: Desk, backend: Build
) -> None:
    keyed.hear("one", refusals(3))
    keyed.write()
    published = msgspec.json.decode(msgspec.json.encode(keyed.status()))
    for claims, kept in (((Pulse(uid=UID, key="Untried"),), False), ((refusals(4),), True)):
        second = Desk(keyed.now + 10)
        second.see(backend(auth=AUTH, models=[{"name": "m"}], status=published))
        assert second.write() == []
        assert second.said("Stalled")[2] == REFUSED.format(3)
        assert second.engine.verdict(UID).state == "Active"
        second.now += 5
        second.hear("one", *claims)
        second.write()
        assert second.said("Stalled")[0] == "True"  # it is young: others may not be heard yet
        second.now += 60
        second.hear("one", *claims)
        second.write()
        assert (second.said("Stalled")[0] == "True") is kept


def test_the_verdict_goes_on_underneath(keyed: Desk) -> None:
    keyed.hear("one", refusals(3))
    keyed.write()
    assert keyed.engine.verdict(UID).state == "Active"
    assert keyed.engine.verdict(UID).generation == 0


# Health


async def probe(desk: Desk, rounds: int, seconds: float = 30.0) -> None:
    """Lets the prober ring each period, and in between as eagerly as it wants to."""
    task = asyncio.create_task(desk.prober.run())
    eager = [1.2 * gap for gap in EAGER_SECONDS[:3]]
    for pause in [*eager, *[seconds] * rounds]:
        desk.prober._wake.set()
        for _ in range(60):
            await asyncio.sleep(0)
        desk.now += pause
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_failing_probes_take_a_backend_out_that_nobody_succeeds_with(
    desk: Desk, backend: Build
) -> None:
    desk.see(backend(models=[{"name": "m"}]))
    desk.answers["http://llm.example:8000"] = BAD
    await probe(desk, 3)
    said = (
        "3 probes in a row failed, 3 suffice (GET /health answers 503), and no request succeeded"
        " within the last 90 s; look at the backend, or correct spec.url or spec.healthCheck"
    )
    assert desk.write() == [Note("Unhealthy", said)]
    assert desk.said("Healthy") == ("False", "ProbeFailed", said)
    assert desk.said("Ready") == ("False", "Unhealthy", said)


async def test_failing_probes_are_outweighed_by_a_success_until_it_is_old(
    desk: Desk, backend: Build
) -> None:
    desk.see(backend(models=[{"name": "m"}]))
    desk.answers["http://llm.example:8000"] = BAD
    await probe(desk, 3)
    desk.hear("one", successes=1)
    desk.write()
    assert desk.said("Healthy")[:2] == ("Unknown", "ProbeDisagrees")
    assert desk.status().state == "Active"
    desk.now += 200
    desk.hear("one")
    desk.write()
    assert desk.status().state == "Unhealthy"


async def test_what_a_silent_proxy_said_last_is_still_the_news(desk: Desk, backend: Build) -> None:
    check = {"periodSeconds": 1, "failureThreshold": 2}
    desk.see(backend(models=[{"name": "m"}], healthCheck=check))
    desk.answers["http://llm.example:8000"] = BAD
    await probe(desk, 1, 1.0)
    desk.hear("one", successes=1)
    await probe(desk, 20, 1.0)
    desk.write()
    assert desk.said("Healthy")[:2] == ("Unknown", "ProbeDisagrees")
    await probe(desk, 30, 1.0)
    desk.write()
    assert desk.status().state == "Unhealthy"


async def test_proxies_are_heard_before_failing_probes_count(desk: Desk, backend: Build) -> None:
    check = {"periodSeconds": 1, "failureThreshold": 2}
    desk.hear("one", uid="another")
    desk.see(backend(models=[{"name": "m"}], healthCheck=check))
    desk.answers["http://llm.example:8000"] = BAD
    desk.now += 1
    await probe(desk, 3, 1.0)
    desk.write()
    assert desk.said("Healthy")[:2] == ("Unknown", "ProbeFailed")
    assert desk.status().state == "Active"
    desk.hear("one")
    desk.write()
    assert desk.status().state == "Unhealthy"


async def test_after_an_absence_proxies_are_heard_before_failing_probes_count_again(
    desk: Desk, backend: Build
) -> None:
    desk.see(backend(models=[{"name": "m"}]))
    desk.answers["http://llm.example:8000"] = BAD
    await probe(desk, 3)
    desk.hear("one", successes=1)
    desk.write()
    assert desk.said("Healthy")[:2] == ("Unknown", "ProbeDisagrees")
    ready, since = desk.said("Ready"), desk.now
    desk.now += 600
    desk.engine.resume(since, desk.now)
    desk.write()
    assert desk.status().state == "Active"
    assert desk.said("Ready") == ready, "silence that was the operator's own changes nothing"
    desk.hear("one", successes=1)
    desk.write()
    assert desk.said("Healthy")[:2] == ("Unknown", "ProbeDisagrees")
    since = desk.now
    desk.now += 600
    desk.engine.resume(since, desk.now)
    desk.now += 61
    desk.write()
    assert desk.status().state == "Unhealthy", "nobody came to say otherwise"


async def test_doubted_backends_are_suspects_so_that_successes_are_heard_at_once(
    desk: Desk, backend: Build
) -> None:
    desk.see(backend(models=[{"name": "m"}]))
    desk.answers["http://llm.example:8000"] = BAD
    await probe(desk, 1)
    up = int((desk.now - START + 36_000) * 1000)
    cell = Cell(family=10, bucket=up // 10_000, uid=UID, model="m", requests=1)
    report = Report(incarnation="0" * 32, now_ms=up, cells=[cell])
    assert desk.engine.merge("one", report, desk.now).answer.suspects == (UID,)


async def test_the_probers_own_trouble_takes_nobody_out_and_is_a_metric(
    desk: Desk, backend: Build
) -> None:
    names = ("a", "b", "c", "d")
    for name in names:
        desk.see(backend(name, url=f"http://{name}", models=[{"name": "m"}]))
        if name != "d":
            desk.answers[f"http://{name}"] = BAD
    await probe(desk, 3)
    for name in names[:3]:
        desk.write(f"uid-{name}")
        said = desk.said("Healthy", f"uid-{name}")
        assert said == (
            "Unknown",
            "ProberSuspect",
            "Probes fail (GET /health answers 503), but 3 of 4 backends, more than half, began to"
            " fail within the same 30 s, so none is taken out; look at the operator's own network",
        )
        assert desk.status(f"uid-{name}").state == "Active"
    suspects = "nexus_operator_prober_suspect_backends"
    assert desk.metrics.registry.get_sample_value(suspects) == 3
    desk.answers = {"http://c": BAD}
    await probe(desk, 2)
    desk.write("uid-c")
    assert desk.status("uid-c").state == "Unhealthy"
    assert desk.metrics.registry.get_sample_value(suspects) == 0


async def test_one_failure_is_too_few_to_tell_whose_trouble_it_is(
    desk: Desk, backend: Build
) -> None:
    check = {"failureThreshold": 1}
    for name in ("a", "b", "c"):
        desk.see(backend(name, url=f"http://{name}", models=[{"name": "m"}], healthCheck=check))
    await probe(desk, 1)
    desk.answers["http://a"] = BAD
    await probe(desk, 1)
    desk.write()
    assert desk.status().state == "Active"
    await probe(desk, 1)
    desk.write()
    assert desk.status().state == "Unhealthy"


def test_a_backend_that_was_never_probed_or_has_no_models_says_so(
    desk: Desk, backend: Build
) -> None:
    desk.see(backend(models=[{"name": "m"}]))
    desk.see(backend("b"))
    desk.write()
    desk.write("uid-b")
    assert desk.said("Ready") == (
        "True",
        "NoTraffic",
        "Requests are routed to it; there was none in the last hour; not probed yet",
    )
    assert desk.said("Ready", "uid-b")[2].startswith("No request can be routed to it yet: none")
