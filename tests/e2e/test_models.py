"""One backend, two models, one of them bad: real operator, real proxies, a real API server.

The tests of this file share one world and run in order: the model breaks, is left out alone, is
refused with the words of the status where nobody else has it, and comes back.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from nexus_devtools.backends import Fault, FaultKind, Script, SimulatedProcess
from nexus_devtools.e2e import APPS, PROMPT, World, backend, eventually, policy

MODELS = ("good", "bad")
BROKEN = Script(
    headers_seconds=0.01,
    tokens=3,
    faults=(Fault(kind=FaultKind.STATUS, status=500, model="bad"),),
)
SLOW_RECOVERY = {"baseExclusionSeconds": 60, "maxExclusionSeconds": 120, "slowStartSeconds": 1}
QUICK_RECOVERY = {"baseExclusionSeconds": 2, "maxExclusionSeconds": 2, "slowStartSeconds": 1}


class Place:
    """Two backends of two models behind two proxies."""

    def __init__(self, world: World, left: SimulatedProcess, right: SimulatedProcess) -> None:
        self.world, self.left, self.right = world, left, right

    def policy(self, **spec: Any) -> None:
        self.world.apply(policy("default", metricsIntervalSeconds=1, **spec))

    def ask(self, app: str, model: str) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "?"}]}
        url = f"{self.world.proxies[app].url}/v1/chat/completions"
        return httpx.post(url, json=body, trust_env=False, timeout=10)

    def round(self, times: int = 4) -> dict[str, Counter[tuple[int, str]]]:
        """Some requests for each model; what came of them, by (status, backend)."""
        found: dict[str, Counter[tuple[int, str]]] = {model: Counter() for model in MODELS}
        for number in range(times):
            for model in MODELS:
                answer = self.ask(APPS[number % 2], model)
                served = answer.headers.get("x-nexus-backend", "-")
                found[model][answer.status_code, served] += 1
        return found

    def of_bad(self) -> dict[str, Any]:
        """What the status of `left` says of the model."""
        status = self.world.get("left").get("status", {})
        return next((m for m in status.get("modelQuality", []) if m["name"] == "bad"), {})

    def reason(self) -> str:
        return str(self.of_bad()["exclusion"]["reason"])

    def explained(self, app: str, model: str) -> dict[str, Any]:
        """What a proxy says of `left` as a candidate."""
        url = f"{self.world.proxies[app].admin_url}/v1/explain"
        found = httpx.post(url, json={"model": model, "messages": []}, trust_env=False).json()
        candidates = [c for leg in found.get("legs", []) for c in leg["candidates"]]
        return next(c for c in candidates if c["backend"] == "left")


@pytest.fixture(scope="module")
def place(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("models")
    pair = [
        SimulatedProcess(name=name, models=list(MODELS), script=PROMPT, log=folder / f"{name}.log")
        for name in ("left", "right")
    ]
    with pair[0] as left, pair[1] as right:
        made = Place(world, left, right)
        made.policy(recovery=SLOW_RECOVERY)
        models = [{"name": model} for model in MODELS]
        world.apply(
            backend("left", left.url, models=models), backend("right", right.url, models=models)
        )
        for name in ("left", "right"):
            world.wait_for_state(name, "Active")
        for app in APPS:
            eventually(
                lambda app=app: made.ask(app, "good").status_code,
                lambda status: status == 200,
                what=f"{app} routes",
            )
        yield made


def test_a_bad_model_is_left_out_and_the_backends_other_one_is_served(place: Place) -> None:
    place.left.set(BROKEN)
    seen: Counter[str] = Counter()
    good: Counter[tuple[int, str]] = Counter()
    bad: Counter[tuple[int, str]] = Counter()

    def excluded() -> bool:
        found = place.round()
        good.update(found["good"])
        bad.update(found["bad"])
        seen[place.world.state("left")] += 1
        return bool(place.of_bad().get("state") == "Excluded")

    eventually(excluded, bool, what="the model bad excluded on left", seconds=30)
    assert set(seen) == {"Active"}
    assert {status for status, _ in good} == {200}
    assert {status for status, _ in bad} == {200}, "a retry on the other backend serves it"
    status = place.world.get("left")["status"]
    assert "exclusion" not in status and status["verdictGeneration"] == 1
    assert place.reason().startswith("Model bad: ")


def test_meanwhile_the_good_one_still_comes_from_it(place: Place) -> None:
    before = place.left.seen().requests
    found = place.round(20)
    assert set(found["bad"]) == {(200, "right")}
    assert {status for status, _ in found["good"]} == {200}
    assert found["good"][200, "left"] > 0
    assert place.left.seen().requests - before == found["good"][200, "left"]


def test_kubectl_and_the_events_name_the_model(place: Place) -> None:
    ready = place.world.kubectl("get", "llmbackends", "left")
    assert "Active" in ready
    told = place.world.kubectl(
        "get", "llmbackends", "left", "-o", "jsonpath={.status.modelQuality[0]['name','state']}"
    )
    assert told == "bad Excluded"
    events = json.loads(place.world.kubectl("get", "events", "-o", "json"))["items"]
    messages = [e["message"] for e in events if e["reason"] == "Excluded"]
    assert len(messages) == 1 and messages[0].startswith(place.reason())


def test_where_nobody_else_has_it_the_client_is_told_why_in_the_words_of_the_status(
    place: Place,
) -> None:
    place.policy(recovery=SLOW_RECOVERY, whenAllExcluded="Reject")
    place.world.kubectl("delete", "llmbackend", "right")
    answer = eventually(
        lambda: place.ask(APPS[0], "bad"),
        lambda answer: answer.status_code == 503,
        what="bad is refused",
    )
    reasons = answer.json()["error"]["context"]["rejection_reasons"]
    assert [(r["backend"], r["reconciler"]) for r in reasons] == [("left", "QualityReconciler")]
    assert reasons[0]["reason"] == place.reason()
    assert reasons[0]["suggested_action"] == place.of_bad()["exclusion"]["suggestedAction"]
    assert int(answer.headers["retry-after"]) > 1
    for app in APPS:
        assert place.explained(app, "bad")["reason"] == place.reason()
        assert "reason" not in place.explained(app, "good")
        assert place.ask(app, "good").status_code == 200


def test_as_a_last_resort_it_is_tried_all_the_same(place: Place) -> None:
    place.policy(recovery=SLOW_RECOVERY, whenAllExcluded="LeastBad")
    answer = eventually(
        lambda: place.ask(APPS[0], "bad"),
        lambda answer: answer.status_code == 500,
        what="bad is tried",
    )
    assert answer.headers["x-nexus-route-reason"] == "last-resort"
    assert place.of_bad()["state"] == "Excluded"


def test_it_comes_back_when_it_recovers(place: Place) -> None:
    place.left.set(PROMPT)
    place.policy(recovery=QUICK_RECOVERY)  # ends the exclusion that runs within 2 s

    def back() -> bool:
        found = place.round()
        assert {status for status, _ in found["good"]} == {200}
        return bool(place.of_bad().get("state") == "Active")

    eventually(back, bool, what="the model bad active again", seconds=30)
    assert "recoveredTime" in place.of_bad()["exclusion"]
    eventually(
        lambda: place.explained(APPS[0], "bad")["tier"],
        lambda tier: tier == "Active",
        what="out of slow start",
    )
    assert set(place.round()["bad"]) == {(200, "left")}
