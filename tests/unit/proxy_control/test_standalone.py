"""The standalone mode: files in, the engine in process, verdicts out, without a network."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from nexus_api import ConditionStatus, LLMBackend
from nexus_proxy.control import Control, Objects
from nexus_proxy.http.resolver import Resolver
from nexus_proxy.manifests import InvalidManifests, load
from nexus_proxy.prober import Prober
from nexus_proxy.routing.live import LiveBackends
from nexus_proxy.routing.router import Router
from nexus_proxy.settings import Settings
from nexus_proxy.standalone import StandaloneSource
from nexus_quality.health import Health
from nexus_quality.monitor import Monitor
from nexus_quality.outcome import Outcome
from nexus_quality.report import encode
from nexus_quality.subject import Standing

Manifests = Callable[..., Path]

BACKEND = """
    apiVersion: nexus.dev/v1alpha1
    kind: LLMBackend
    metadata: {name: b, creationTimestamp: 2026-01-01T00:00:00Z}
    spec: {url: "http://b:1", models: [{name: m}]}
"""
SECRET = """
    apiVersion: v1
    kind: Secret
    metadata: {name: s}
    data: {one: b25l}
    stringData: {two: "2"}
    ---
    apiVersion: v1
    kind: ConfigMap
    metadata: {name: not-ours}
"""


def test_a_folder_gives_objects_and_secrets_and_passes_over_the_rest(manifests: Manifests) -> None:
    found = load(manifests(a=BACKEND, b=SECRET))
    (backend,) = found.objects.backends
    assert (backend.metadata.namespace, backend.metadata.name) == ("default", "b")
    assert 0 < len(backend.metadata.uid) <= 64
    assert backend.metadata.creation_timestamp == "2026-01-01T00:00:00Z"
    assert found.secrets == {"s": {"one": "one", "two": "2"}}


def test_the_uid_follows_namespace_and_name_alone(manifests: Manifests) -> None:
    folder = manifests(a=BACKEND)
    before = load(folder).objects.backends[0].metadata.uid
    manifests(a=BACKEND.replace("http://b:1", "http://c:1"))
    assert load(folder).objects.backends[0].metadata.uid == before
    manifests(a=BACKEND.replace("name: b,", "name: b, namespace: other,"))
    assert load(folder).objects.backends[0].metadata.uid != before


def test_a_namespace_flag_keeps_the_others_out(manifests: Manifests) -> None:
    folder = manifests(a=BACKEND, b=BACKEND.replace("name: b,", "name: b, namespace: other,"))
    assert len(load(folder).objects.backends) == 2
    (kept,) = load(folder, namespace="other").objects.backends
    assert kept.metadata.namespace == "other"


def test_lists_and_json_files_count_too(manifests: Manifests, tmp_path: Path) -> None:
    folder = manifests()
    item = '{"apiVersion":"nexus.dev/v1alpha1","kind":"LLMBackend","metadata":{"name":"%s"},'
    item += '"spec":{"url":"http://b:1"}}'
    items = ",".join(item % name for name in ("x", "y"))
    (folder / "list.json").write_text(f'{{"kind":"List","items":[{items}]}}')
    assert len(load(folder).objects.backends) == 2


BAD = [
    ("a: [1,", "bad.yaml: while parsing"),
    (BACKEND.replace("http://b:1", "ftp://b"), "bad.yaml: LLMBackend b: spec.url"),
    (BACKEND.replace("models:", "priority: high, models:"), "spec.priority"),
    (BACKEND.replace("models:", "modls:"), "LLMBackend b: unknown field spec.modls"),
    (BACKEND.replace("LLMBackend", "LLMBackendd"), "unknown kind LLMBackendd: LLMBackend, "),
    (BACKEND.replace("v1alpha1", "v9"), "apiVersion: write nexus.dev/v1alpha1"),
    (f"{BACKEND}    ---{BACKEND}", "LLMBackend b is defined twice"),
    (SECRET.replace("b25l", '"%%%"'), "Secret s: data.one is not base64 text"),
]


@pytest.mark.parametrize(("text", "said"), BAD)
def test_a_file_that_cannot_be_used_is_named_in_one_line(
    manifests: Manifests, text: str, said: str
) -> None:
    with pytest.raises(InvalidManifests) as refused:
        load(manifests(bad=text))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


class Bench:
    """A standalone source wired to monitor and router, with a clock of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.now = 5000.0
        self.tables = 0
        self.due: list[Callable[[], None]] = []
        settings = Settings(manifests=folder)
        self.source = StandaloneSource(
            settings, {}, clock=lambda: self.now, later=lambda _seconds, call: self.due.append(call)
        )
        self.router = Router(random=lambda: 0.5)
        self.monitor = Monitor(
            incarnation="ab" * 16,
            started=self.now,
            random=lambda: 0.0,
            on_change=self.router.invalidate,
            on_urgent=lambda _seconds: None,
        )
        live = LiveBackends(
            subject=self.monitor.subject,
            secrets=self.source.secrets,
            journal=self.router.journal,
        )
        control = Control(
            monitor=self.monitor, router=self.router, live=live, shared=self.source.shared
        )
        self.control = control
        self.source.bind(control, self.monitor, self.apply)
        self.source._reapply()

    def apply(self, objects: Objects) -> None:
        self.tables += 1
        self.control.apply(objects, self.now)

    def probed(self, uid: str, health: Health) -> None:
        self.source._probed(uid, health, None)
        self.settle()

    def settle(self) -> None:
        due, self.due = self.due, []
        for call in due:
            call()

    @property
    def candidate(self) -> Any:
        (found,) = self.router.table.candidates["m"]
        return found

    @property
    def standing(self) -> Standing:
        standing: Standing = self.candidate.subject.standing
        return standing

    async def report(self) -> None:
        report = self.monitor.report(self.now, full=True)
        assert report is not None
        self.monitor.acknowledged(report, await self.source.deliver(encode(report)), self.now)

    def outcomes(self, outcome: Outcome, count: int, **how: Any) -> None:
        for _ in range(count):
            self.now += 0.2
            attempt = self.candidate.subject.begin(self.now, **how)
            attempt.sent(self.now)
            attempt.end(outcome, self.now + 0.1)

    def tick(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.now += 1.0
            self.monitor.tick(self.now)
            self.source.tick(self.now)


@pytest.fixture
def bench(manifests: Manifests) -> Bench:
    return Bench(manifests(a=BACKEND))


async def test_a_backend_goes_out_and_comes_back_through_probation(bench: Bench) -> None:
    bench.outcomes(Outcome.SUCCESS, 5)
    await bench.report()
    assert bench.standing is Standing.ADMITTED
    bench.outcomes(Outcome.SERVER_ERROR, 30)
    await bench.report()
    assert bench.standing is Standing.OUT
    uid = bench.candidate.subject.uid
    assert bench.source.engine.verdict(uid).state == "Excluded"
    bench.candidate.subject.kept_out(bench.now)
    await bench.report()
    bench.tick(32)
    assert bench.standing is Standing.PROBING
    for _ in range(2):
        bench.outcomes(Outcome.SUCCESS, 1, probe=True)
        await bench.report()
    assert bench.source.engine.verdict(uid).state == "Active"
    assert bench.standing is Standing.SLOW_START
    bench.tick(31)
    assert bench.standing is Standing.ADMITTED


async def test_one_bad_model_goes_out_and_comes_back_by_itself(manifests: Manifests) -> None:
    bench = Bench(manifests(a=BACKEND.replace("[{name: m}]", "[{name: m}, {name: bad}]")))
    (bad,) = bench.router.table.candidates["bad"]

    async def outcomes(outcome: Outcome, count: int, **how: Any) -> Standing:
        for _ in range(count):
            bench.now += 0.2
            bad.subject.begin(bench.now, **how).end(outcome, bench.now + 0.1)
        await bench.report()
        standing: Standing = bad.subject.standing
        return standing

    bench.outcomes(Outcome.SUCCESS, 30)
    assert await outcomes(Outcome.SERVER_ERROR, 30) is Standing.OUT
    assert bench.standing is Standing.ADMITTED
    verdicts = bench.source.engine.verdicts(bad.subject.uid)
    assert (verdicts.out, str(verdicts.backend.state)) == ({"bad"}, "Active")
    assert bad.subject.why()[0].startswith("Model bad: ")
    bad.subject.kept_out(bench.now)
    bench.tick(32)
    assert bad.subject.standing is Standing.PROBING
    assert await outcomes(Outcome.SUCCESS, 2, probe=True) is Standing.SLOW_START
    assert bench.standing is Standing.ADMITTED


async def test_the_figures_are_those_of_the_seeds_metrics(bench: Bench) -> None:
    bench.outcomes(Outcome.SUCCESS, 3)
    bench.outcomes(Outcome.SERVER_ERROR, 1)
    attempt = bench.candidate.subject.begin(bench.now)
    attempt.sent(bench.now)
    attempt.content(bench.now + 0.4)
    attempt.end(Outcome.SUCCESS, bench.now + 0.9)
    await bench.report()
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for metric in bench.source.metrics()
        for sample in metric.samples
        if sample.labels["agent_id"] == "default/b"
    }
    assert samples["nexus_agent_error_rate", None] == 0.2
    assert samples["nexus_agent_success_rate_24h", None] == 0.8
    assert samples["nexus_agent_ttft_seconds_count", None] == 1
    assert samples["nexus_agent_ttft_seconds_bucket", "0.25"] == 0
    assert samples["nexus_agent_ttft_seconds_bucket", "0.5"] == 1
    quality = bench.source.quality_of(bench.candidate.subject.uid)
    assert quality is not None
    assert (quality.error_rate_1h, quality.avg_ttft_milliseconds) == ("20%", 400)


def test_a_backend_without_traffic_has_no_figures(bench: Bench) -> None:
    assert bench.source.quality_of(bench.candidate.subject.uid) is None
    assert not [s for metric in bench.source.metrics() for s in metric.samples]


def touch(path: Path) -> None:
    later = path.stat().st_mtime + 5
    os.utime(path, (later, later))


def test_changed_files_are_picked_up_and_bad_ones_leave_the_last_good_state(
    bench: Bench, manifests: Manifests, caplog: pytest.LogCaptureFixture
) -> None:
    bench.source._prober = None
    folder = manifests(a=BACKEND.replace("spec: {", "spec: {priority: 3, "))
    bench.source.look()
    assert bench.candidate.traits.priority == 3
    manifests(a="kind: [")
    touch(folder / "a.yaml")
    bench.source.look()
    assert bench.candidate.traits.priority == 3
    assert "the last good state stays in force" in caplog.text
    (folder / "a.yaml").unlink()
    bench.source.look()
    assert not bench.router.table.backends
    assert bench.source.engine.backends() == []


def test_an_edited_url_is_a_new_backend_to_the_verdict(bench: Bench, manifests: Manifests) -> None:
    bench.source._prober = None
    bench.outcomes(Outcome.SERVER_ERROR, 9)
    assert bench.standing is Standing.OUT
    manifests(a=BACKEND.replace("http://b:1", "http://c:1"))
    bench.source.look()
    assert bench.standing is Standing.ADMITTED


def backend_of(manifests: Manifests, text: str = BACKEND) -> LLMBackend:
    return load(manifests(a=text)).objects.backends[0]


UNLISTED = BACKEND.replace(", models: [{name: m}]", ", type: vllm")
LISTING = {"data": [{"id": "x", "max_model_len": 4096}, {"id": "y"}]}


async def test_a_probe_asks_the_health_path_and_discovers_the_models(manifests: Manifests) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json=LISTING)

    prober = probing(answer)
    health, models = await prober.probe(backend_of(manifests, UNLISTED), Health())
    await prober.close()
    assert asked == ["/health", "/v1/models"]
    assert (health.status, health.reason) == ("True", "ProbeSucceeded")
    assert health.latency_ms
    assert models is not None
    assert [(m.name, m.context_length) for m in models] == [("x", 4096), ("y", None)]


Handler = Callable[[httpx.Request], httpx.Response]


def probing(answer: Handler, resolver: Resolver | None = None) -> Prober:
    return Prober(
        backend_of=lambda _uid: None,
        random=lambda: 0.5,
        resolver=resolver,
        transport=httpx.MockTransport(answer),
    )


class Zone:
    """Answers lookups at once, or with an error."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    def __call__(self, _host: str) -> asyncio.Future[tuple[str, ...]]:
        future: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        if self.addresses:
            future.set_result(self.addresses)
        else:
            future.set_exception(OSError("the resolver is dead"))
        return future


async def test_a_dead_resolver_makes_no_backend_sick_whose_address_was_known(
    manifests: Manifests,
) -> None:
    asked: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((str(request.url), request.headers["host"]))
        return httpx.Response(200)

    zone, now = Zone("2001:db8::1"), 0.0
    prober = probing(answer, Resolver(clock=lambda: now, lookup=zone))
    backend = backend_of(manifests)
    health, _ = await prober.probe(backend, Health())
    zone.addresses, now = (), 100.0
    for _ in range(3):
        health, _ = await prober.probe(backend, health)
    await prober.close()
    assert asked == [("http://[2001:db8::1]:1/v1/models", "b:1")] * 4
    assert health.status == "True"


async def test_a_probe_tries_the_next_address_when_one_refuses(manifests: Manifests) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "192.0.2.1":
            raise httpx.ConnectError("refused")
        return httpx.Response(200)

    zone = Zone("192.0.2.1", "192.0.2.2")
    prober = probing(answer, Resolver(clock=lambda: 0.0, lookup=zone))
    health, _ = await prober.probe(backend_of(manifests), Health())
    await prober.close()
    assert health.status == "True"


async def test_a_probe_of_a_name_without_an_address_says_so(manifests: Manifests) -> None:
    prober = probing(
        lambda request: httpx.Response(200), Resolver(clock=lambda: 0.0, lookup=Zone())
    )
    backend, health = backend_of(manifests), Health()
    for _ in range(backend.spec.health_check.failure_threshold):
        health, _ = await prober.probe(backend, health)
    await prober.close()
    assert health.status == "False"
    assert "no address of b: the resolver is dead" in health.message


ANSWERS = [
    (httpx.Response(200), "True", "ProbeSucceeded"),
    (httpx.Response(401), "True", "AliveUnauthenticated"),
    (httpx.Response(503), "False", "ProbeFailed"),
    (httpx.ConnectError("connection refused"), "False", "ProbeFailed"),
]


@pytest.mark.parametrize(("answered", "status", "reason"), ANSWERS)
async def test_three_probes_decide_what_a_backend_is(
    manifests: Manifests, answered: Any, status: str, reason: str
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if isinstance(answered, Exception):
            raise answered
        return httpx.Response(answered.status_code)

    prober, health = probing(answer), Health()
    for _ in range(3):
        health, _models = await prober.probe(backend_of(manifests), health)
    await prober.close()
    assert (health.status, health.reason) == (status, reason)


async def test_the_first_failed_probe_of_a_row_is_one_warning(
    manifests: Manifests, caplog: pytest.LogCaptureFixture
) -> None:
    answers = [503, 503, 503, 503, 200, 503, 200, 200, 503]
    prober, health = probing(lambda _request: httpx.Response(answers.pop(0))), Health()
    told = []
    while answers:
        caplog.clear()
        health, _models = await prober.probe(backend_of(manifests), health)
        told.append([record.getMessage() for record in caplog.records])
    await prober.close()
    line = ["default/b: probe 1 of 3 failed: The probe was answered with 503"]
    assert told == [line, [], [], [], [], [], [], [], line]


async def test_a_model_list_that_is_none_fails_the_probe(manifests: Manifests) -> None:
    prober = probing(lambda _request: httpx.Response(200, text="<html>"))
    health, models = await prober.probe(backend_of(manifests, UNLISTED), Health())
    await prober.close()
    assert (health.failures, models) == (1, None)


def test_failed_probes_take_a_backend_out_unless_traffic_succeeds(bench: Bench) -> None:
    uid = bench.candidate.subject.uid
    failed = Health(status=ConditionStatus.FALSE, reason="ProbeFailed", message="refused")
    bench.probed(uid, failed)
    assert bench.candidate.traits.unhealthy is not None
    bench.outcomes(Outcome.SUCCESS, 1)
    bench.probed(uid, failed)
    assert bench.candidate.traits.unhealthy is None
    bench.now += 200.0
    bench.probed(uid, failed)
    assert bench.candidate.traits.unhealthy is not None


def failing(since: float) -> Health:
    return Health(
        status=ConditionStatus.FALSE,
        reason="ProbeFailed",
        message="GET / answers 503",
        failures=3,
        failing_since=since,
    )


def test_leaving_unhealthy_is_a_slow_start_here_too(bench: Bench) -> None:
    uid = bench.candidate.subject.uid
    bench.probed(uid, failing(1.0))
    reason, action = bench.candidate.traits.unhealthy
    assert reason.startswith("3 probes in a row failed, 3 suffice (GET / answers 503), and no")
    assert action == "look at the backend, or correct spec.url or spec.healthCheck"
    bench.probed(uid, Health(status=ConditionStatus.TRUE))
    assert bench.candidate.traits.unhealthy is None
    assert bench.standing is Standing.SLOW_START


def test_most_backends_failing_together_are_left_in_service_here_too(manifests: Manifests) -> None:
    names = ("b", "c", "d", "e")
    folder = manifests(**{n: BACKEND.replace("name: b", f"name: {n}") for n in names})
    bench = Bench(folder)
    members = {c.backend.name: c for c in bench.router.table.candidates["m"]}
    bench.probed(members["e"].backend.uid, Health(status=ConditionStatus.TRUE))
    for number, name in enumerate(names[:3]):
        first = replace(failing(float(number)), status=ConditionStatus.UNKNOWN, failures=1)
        bench.probed(members[name].backend.uid, first)
    for number, name in enumerate(names[:3]):
        bench.probed(members[name].backend.uid, failing(float(number)))
        assert members[name].traits.unhealthy is None
    (condition,) = next(
        b for b in bench.source._control.objects.backends if b.metadata.name == "b"
    ).status.conditions
    assert (condition.status, condition.reason) == ("Unknown", "ProberSuspect")


MANY = 300


def test_a_burst_of_probes_makes_one_table(manifests: Manifests) -> None:
    text = "    ---".join(BACKEND.replace("name: b", f"name: b{n}") for n in range(MANY))
    bench = Bench(manifests(a=text))
    before = [c.traits for c in bench.router.table.candidates["m"]]
    assert (len(before), bench.tables) == (MANY, 1)
    uids = list(bench.router.table.backends)
    for uid in uids:
        bench.source._probed(uid, Health(status=ConditionStatus.TRUE), None)
    assert (bench.tables, len(bench.due)) == (1, 1)
    bench.settle()
    assert bench.tables == 2
    for uid in uids:
        bench.source._probed(uid, Health(status=ConditionStatus.TRUE), None)
    bench.settle()
    assert bench.tables == 2, "nothing changed that routing can see"


def test_a_new_table_takes_in_anew_only_what_changed(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("b", "c", "d", "e")
    bench = Bench(manifests(**{n: BACKEND.replace("name: b", f"name: {n}") for n in names}))
    configured: list[str] = []
    whole = bench.control.configure

    def configure(backend: LLMBackend, now: float) -> None:
        configured.append(backend.metadata.name)
        whole(backend, now)

    monkeypatch.setattr(bench.control, "configure", configure)
    (uid,) = (b.uid for b in bench.router.table.backends.values() if b.name == "d")
    bench.probed(uid, failing(1.0))
    assert configured == ["d"]
