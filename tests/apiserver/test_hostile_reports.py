"""Reports of liars, thieves and vandals, to the real operator on a real API server.

After each attack the operator lives, honest reporters are answered, what they counted is published
as they counted it and judged as before, and the refusal can be seen in answer and metric.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import backend, eventually, policy
from nexus_devtools.product import Operator, Product
from nexus_devtools.reports import UP_SECONDS, full_report
from nexus_devtools.tokens import expired, pod_token, signed
from nexus_quality.limits import MAX_INCARNATIONS, MAX_KEPT
from nexus_quality.report import MAX_BYTES, MAX_CELLS, Cell, Pulse, Report, encode
from nexus_quality.window import Family

Stored = dict[str, Any]
HONEST = ("checkout-1", "checkout-2")
MEGABYTE = 1024 * 1024
REFUSALS = re.compile(r'^nexus_operator_report_refusals_total\{reason="([^"]+)"\} (\S+)$', re.M)


class Scene:
    """One namespace, one operator for all tests here, two honest pods, and an attacker's."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path, stack: ExitStack) -> None:
        self.plane, self.namespace = plane, namespace
        self.product = Product(plane, namespace, folder, stack)
        self.product.install("app")
        self.kubectl("apply", "-f", "-", input=json.dumps(policy("p", metricsIntervalSeconds=1)))
        self.operator: Operator = self.product.operator()
        self.client = stack.enter_context(httpx.Client(base_url=self.operator.url, timeout=30.0))
        self.tokens = {pod: self.pod(pod) for pod in (*HONEST, "mallory")}

    def pod(self, name: str) -> str:
        """The token of a pod, which is created."""
        return pod_token(self.plane, self.namespace, name)

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        scope = f"--namespace={self.namespace}"
        return self.plane.run_kubectl(*arguments, scope, input=input, check=True).stdout

    def post(self, body: bytes | Iterator[bytes], token: str, **headers: str) -> httpx.Response:
        """One attempt to report."""
        sent = {"Authorization": f"Bearer {token}"} | headers
        return self.client.post("/v1/outcomes", content=body, headers=sent)

    def attack(self, report: Report | bytes, **headers: str) -> httpx.Response:
        """What the attacker's pod says."""
        body = report if isinstance(report, bytes) else encode(report)
        return self.post(body, self.tokens["mallory"], **headers)

    def refusals(self) -> dict[str, float]:
        """How often what was refused, by reason."""
        found = REFUSALS.findall(self.client.get("/metrics").text)
        return {reason: float(count) for reason, count in found}

    def memory(self) -> float:
        """The most that the operator ever had in memory, in MB."""
        # The tether is the child; the operator is the process that it has become.
        text = Path(f"/proc/{self.operator.child.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1]) / 1024


class Target:
    """A backend that two honest pods use, and what they said of it."""

    def __init__(self, scene: Scene, name: str) -> None:
        self.scene, self.name = scene, name
        labelled = backend(name, "http://127.0.0.1:9", healthCheck={"enabled": False})
        scene.kubectl("apply", "-f", "-", input=json.dumps(labelled))
        self.uid = scene.kubectl("get", "llmb", name, "--output=jsonpath={.metadata.uid}")
        self.requests = 0
        self.status("its policy", lambda status: status.get("qualityPolicy") == "p")

    def status(self, what: str, holds: Callable[[Stored], bool]) -> Stored:
        """The status once something holds of it."""

        def look() -> Stored:
            text = self.scene.kubectl("get", "llmb", self.name, "--output=json")
            found: Stored = json.loads(text).get("status", {})
            return found

        return eventually(look, holds, what=what)

    def serve(self, more: int) -> None:
        """Either honest pod makes that many requests more, one in a hundred of them fails."""
        self.requests += more
        for number, pod in enumerate(HONEST):
            report = full_report(self.uid, requests=self.requests, errors=self.requests // 100)
            report = msgspec.structs.replace(report, incarnation=f"{number:032x}")
            answer = self.scene.post(encode(report), self.scene.tokens[pod])
            assert answer.status_code == 200, answer.text
            assert "refused" not in answer.json()

    def unharmed(self) -> Stored:
        """Asserts that published is what the honest pods counted, now and from now on."""
        assert self.scene.operator.child.exit_code is None
        self.serve(self.requests)
        wanted = 2 * self.requests
        status = self.status(
            f"{wanted} requests published",
            lambda status: status.get("quality", {}).get("requests1h") == wanted,
        )
        quality = status["quality"]
        assert quality["errors1h"] == 2 * (self.requests // 100)
        assert (quality["requests24h"], quality["reporters"]) == (wanted, 2)
        assert (status["state"], status.get("verdictGeneration", 0)) == ("Active", 0)
        assert "exclusion" not in status
        return status


@pytest.fixture(scope="module")
def scene(crds: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    namespace = f"test-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        crds.create_namespace(namespace)
        stack.callback(crds.delete_namespace, namespace)
        yield Scene(crds, namespace, tmp_path_factory.mktemp("hostile"), stack)


@pytest.fixture
def target(scene: Scene) -> Target:
    target = Target(scene, f"b-{secrets.token_hex(3)}")
    target.serve(100)
    return target


def report(*cells: Cell, now_ms: int = UP_SECONDS * 1000 + 1000, **given: Any) -> Report:
    return Report(incarnation=secrets.token_hex(16), now_ms=now_ms, cells=list(cells), **given)


def cell(uid: str, *, family: int = Family.MINUTE, ago: int = 0, **given: Any) -> Cell:
    bucket = UP_SECONDS // (family or 1) - ago
    claim: Stored = {"family": int(family), "bucket": bucket, "uid": uid, "model": "m"} | given
    return Cell(**claim)


# Who may speak at all.


def test_a_forged_token_is_nobody(scene: Scene, target: Target) -> None:
    lie = encode(full_report(target.uid, requests=500, errors=500))
    good = scene.tokens["mallory"]
    before = scene.refusals()
    for token in ("forged", signed(good, None), signed(good, None, sub="system:admin"), good[:-9]):
        answer = scene.post(lie, token)
        assert answer.status_code == 401
        assert "does not accept this token for the audience nexus-operator" in answer.text
    assert scene.refusals()["TokenRejected"] == before.get("TokenRejected", 0) + 4
    target.unharmed()


def test_a_token_for_another_audience_is_nobody(scene: Scene, target: Target) -> None:
    lie = encode(full_report(target.uid, requests=500, errors=500))
    for audience in (None, "somebody-else"):
        answer = scene.post(lie, scene.plane.identity(scene.namespace, "app", audience=audience))
        assert answer.status_code == 401
        assert "audience nexus-operator" in answer.text
    target.unharmed()


def test_a_token_is_nobody_once_it_has_ended(scene: Scene, target: Target) -> None:
    lie = encode(full_report(target.uid, requests=500, errors=500))
    token = scene.pod("gone")
    scene.kubectl("delete", "pod", "gone", "--now")
    assert scene.post(lie, token).status_code == 401
    if scene.plane.is_own:
        key = scene.plane.ca_file.with_name("service-account.key")
        good = scene.tokens["mallory"]
        # Signed with the true key, it is good: what is wrong with the other is its end alone.
        assert scene.post(encode(report()), signed(good, key)).status_code == 200
        assert scene.post(lie, expired(good, key)).status_code == 401
    target.unharmed()


def test_another_namespace_has_no_say(scene: Scene, target: Target) -> None:
    elsewhere = f"{scene.namespace}-apps"
    scene.plane.create_namespace(elsewhere)
    try:
        stranger = pod_token(scene.plane, elsewhere, "stranger")
        # Word for word what an honest pod says, and an invention.
        honest = full_report(target.uid, requests=target.requests, errors=1)
        for said in (honest, full_report(target.uid, requests=500, errors=500)):
            answer = scene.post(encode(said), stranger)
            assert answer.status_code == 403
            assert answer.json()["refused"][0]["uid"] == target.uid
            assert f"in namespace {scene.namespace}" in answer.json()["error"]
        assert scene.refusals()["NotAllowed"] >= 2
        target.unharmed()
    finally:
        scene.plane.delete_namespace(elsewhere)


def test_a_body_replayed_by_its_sender_changes_nothing(scene: Scene, target: Target) -> None:
    body = encode(
        msgspec.structs.replace(
            full_report(target.uid, requests=target.requests, errors=target.requests // 100),
            incarnation=f"{0:032x}",
        )
    )
    for _ in range(20):
        assert scene.post(body, scene.tokens[HONEST[0]]).status_code == 200
    target.unharmed()


def test_one_pod_that_claims_to_be_ten_is_one_reporter(scene: Scene, target: Target) -> None:
    for _ in range(10):
        lies = [cell(target.uid, family=family, requests=50, errors=50) for family in Family]
        lie = report(*lies, full=True)
        lie.pulses = [Pulse(uid=target.uid, row=50, row_began_ms=UP_SECONDS * 1000, open=True)]
        assert scene.attack(lie).status_code == 200
    status = target.status(
        "a complaint of one", lambda s: s.get("quality", {}).get("reporters") == 3
    )
    assert (status["state"], status.get("verdictGeneration", 0)) == ("Active", 0)
    within = next(c for c in status["conditions"] if c["type"] == "WithinPolicy")
    assert (within["status"], within["reason"]) == ("True", "FailingForSome")
    assert "mallory" in within["message"]
    assert "checkout" not in within["message"]


def test_a_body_stolen_from_another_pod_is_one_voice_more_not_a_second_one(
    scene: Scene, target: Target
) -> None:
    failing = full_report(target.uid, requests=500, errors=500)
    for token in (scene.tokens["mallory"],) * 5:
        assert scene.post(encode(failing), token).status_code == 200
    status = target.status("a third", lambda s: s.get("quality", {}).get("reporters") == 3)
    assert status["quality"]["errors1h"] == 500 + 2 * (target.requests // 100)
    assert status["state"] == "Active"


def test_a_restart_loop_does_not_grow_memory(scene: Scene, target: Target) -> None:
    before = scene.refusals()
    token = scene.pod("crashing")
    answers = []
    for _ in range(MAX_INCARNATIONS + 20):
        answer = scene.post(encode(report()), token)
        while answer.status_code == 429:
            time.sleep(float(answer.headers["Retry-After"]) / 4)
            answer = scene.post(encode(report()), token)
        answers.append(answer.json().get("refused", [{}])[0].get("reason"))
    assert answers[:MAX_INCARNATIONS] == [None] * MAX_INCARNATIONS
    assert set(answers[MAX_INCARNATIONS:]) == {"too many incarnations at once"}
    reason = "too many incarnations at once"
    assert scene.refusals()[reason] == before.get(reason, 0) + 20
    target.unharmed()


# How much.


def test_a_report_of_100_mb_is_not_read_and_others_are_answered_meanwhile(
    scene: Scene, target: Target
) -> None:
    before, refused, token = scene.memory(), scene.refusals(), scene.pod("giant")
    times: list[float] = []
    done = threading.Event()

    def honest() -> None:
        with httpx.Client(base_url=scene.operator.url) as client:
            headers = {"Authorization": f"Bearer {scene.tokens[HONEST[0]]}"}
            while not done.is_set():
                began = time.monotonic()
                answer = client.post("/v1/outcomes", content=encode(report()), headers=headers)
                assert answer.status_code in (200, 429)
                times.append(time.monotonic() - began)
                time.sleep(0.06)

    def endless() -> Iterator[bytes]:
        piece = b" " * MEGABYTE
        for _ in range(100):
            yield piece

    said = {"Content-Length": str(100 * MEGABYTE)}
    attacks = 0

    def attack(**headers: str) -> None:
        # The operator may have hung up before all was sent.
        with suppress(httpx.TransportError):
            assert scene.post(endless(), token, **headers).status_code == 413

    witness = threading.Thread(target=honest)
    witness.start()
    try:
        while len(times) < 20:
            attack(**said)
            attacks += 1
        attack()  # does not say how long it is
    finally:
        done.set()
        witness.join()
    assert attacks > 2
    assert scene.refusals()["TooLarge"] == refused.get("TooLarge", 0) + attacks + 1
    assert scene.memory() - before < 60
    assert max(times) < 2.0
    target.unharmed()


def test_a_bomb_is_not_unpacked(scene: Scene, target: Target) -> None:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6) as file:
        for _ in range(200):
            file.write(bytes(MEGABYTE))
    bomb = packed.getvalue()
    assert len(bomb) < MEGABYTE
    before, refused = scene.memory(), scene.refusals()
    began = time.monotonic()
    answer = scene.attack(bomb, **{"Content-Encoding": "gzip"})
    assert time.monotonic() - began < 2.0
    assert answer.status_code == 413
    assert str(MAX_BYTES) in answer.json()["error"]
    assert scene.refusals()["TooLarge"] == refused.get("TooLarge", 0) + 1
    assert scene.memory() - before < 60
    for encoding, status in (("br", 415), ("gzip", 400)):
        assert scene.attack(b"{}", **{"Content-Encoding": encoding}).status_code == status
    target.unharmed()


def test_a_million_cells_are_no_report(scene: Scene, target: Target) -> None:
    one = encode(cell(target.uid, requests=1))  # type: ignore[arg-type]
    head, tail = encode(report()).rstrip(b"}"), b"]}"
    body = head + b',"cells":[' + b",".join([one] * (MAX_CELLS + 1)) + tail
    answer = scene.attack(body)
    assert answer.status_code == 400
    assert "$.cells" in answer.json()["error"]
    packed = gzip.compress(head + b',"cells":[' + b",".join([one] * 1_000_000) + tail, 1)
    assert scene.attack(packed, **{"Content-Encoding": "gzip"}).status_code == 413
    target.unharmed()


def test_a_million_model_names_are_a_few_series(scene: Scene, target: Target) -> None:
    before, token = scene.memory(), scene.pod("babbler")
    life, sent, reasons = secrets.token_hex(16), 0, set()
    deadline = time.monotonic() + 60
    while sent < MAX_KEPT + 2 * MAX_CELLS and time.monotonic() < deadline:
        names = [secrets.token_hex(4) for _ in range(MAX_CELLS)]
        lie = report(*(cell(target.uid, model=name, throttled=1) for name in names))
        lie.incarnation = life
        packed = gzip.compress(encode(lie), 1)
        answer = scene.post(packed, token, **{"Content-Encoding": "gzip"})
        if answer.status_code in (429, 503):
            time.sleep(float(answer.headers.get("Retry-After", "1")))
            continue
        assert answer.status_code == 200, answer.text
        sent += MAX_CELLS
        reasons |= {refusal["reason"] for refusal in answer.json().get("refused", [])}
    assert reasons == {"too many buckets of one reporter", "too many series of one reporter"} or (
        reasons == {"too many buckets of one reporter"}
    )
    assert scene.refusals()["too many buckets of one reporter"] >= 1
    assert scene.memory() - before < 200
    status = target.status("still there", lambda status: "quality" in status)
    assert len(status.get("modelQuality", [])) <= 32
    page = scene.client.get("/metrics").text
    assert len(page) < 200_000


def test_a_flood_is_told_when_to_come_again(scene: Scene, target: Target) -> None:
    token = scene.pod("flood")
    body = encode(report())
    answers = [scene.post(body, token) for _ in range(400)]
    told = [answer for answer in answers if answer.status_code == 429]
    assert told
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in told)
    assert scene.refusals()["TooOften"] >= len(told)
    target.unharmed()


# What cannot be.


MALFORMED = (
    ('"cells": [{"family": 60, "bucket": 1, "uid": "U", "model": "m", "requests": NaN}]', ""),
    ('"cells": [{"family": 60, "bucket": 1, "uid": "U", "model": "m", "requests": "7"}]', "$."),
    ('"cells": [{"family": 60, "bucket": 1, "uid": "U", "model": "m", "requests": 1.5}]', "$."),
    ('"cells": [{"family": 60, "bucket": 1, "uid": "U", "model": "m", "errors": 1e99}]', "$."),
    ('"cells": [{"family": 60, "bucket": -1, "uid": "U", "model": "m"}]', "$.cells[0].bucket"),
    ('"cells": {"family": 60}', "$.cells"),
    ('"cells": ' + "[" * 200_000, ""),
    ('"new": ' + "[" * 200_000, "nested too deeply"),
    ('"new": ' + '{"a":' * 200_000, "nested too deeply"),
)
IMPOSSIBLE = (
    {"requests": -5},
    {"requests": 10, "errors": -10},
    {"requests": 2**63, "errors": 2**63},
    {"requests": 10, "errors": 11},
    {"requests": 10**9, "errors": 10**9},
    {"eligible": 10**12},
    {"probes": 10**10, "probe_failures": 10**10},
    {"requests": 1, "cost_nano_usd": 2**62},
    {"requests": 1, "ttft_count": 1, "ttft_ms_sum": 10**12},
    {"requests": 2, "ttft_count": 1, "ttft_bins": {3: 10**6}},
    {"requests": 2, "ttft_count": 1, "ttft_bins": {10**6: 1}},
)
ELSEWHERE = (
    ({"generation": 2**53 - 1}, "a generation that is still to come"),
    ({"generation": 2}, "a generation that is still to come"),
    ({"ago": -60}, "a bucket in the future"),
    ({"bucket": 2**53 - 1}, "a bucket in the future"),
    ({"family": 7}, "unknown bucket family 7"),
    ({"family": 0}, "unknown bucket family 0"),
    ({"uid": "nobody"}, "unknown backend"),
)


def test_what_is_no_report_is_malformed(scene: Scene, target: Target) -> None:
    refused = scene.refusals().get("Malformed", 0)
    for body, where in MALFORMED:
        whole = f'{{"incarnation": "{secrets.token_hex(16)}", "now_ms": 5, {body}}}'
        answer = scene.attack(whole.replace("U", target.uid).encode())
        assert answer.status_code == 400, body[:80]
        assert where in answer.json()["error"], body[:80]
        assert "\n" not in answer.json()["error"]
    assert scene.refusals()["Malformed"] == refused + len(MALFORMED)
    target.unharmed()


def test_what_cannot_be_is_refused_by_name_and_the_rest_is_taken(
    scene: Scene, target: Target
) -> None:
    failing: Stored = {"requests": 9, "errors": 9}
    claims: list[tuple[Stored, str]]
    claims = [({**claim}, "numbers that cannot be") for claim in IMPOSSIBLE]
    claims += [({**failing, **claim}, reason) for claim, reason in ELSEWHERE]
    harmless = cell(target.uid, bucket=UP_SECONDS // 60 - 5)
    for claim, reason in claims:
        label = re.sub(r" \d+$", "", reason)
        refused = scene.refusals().get(label, 0)
        answer = scene.attack(report(cell(**{"uid": target.uid, **claim}), harmless))
        assert answer.status_code == 200, claim
        assert [said["reason"] for said in answer.json()["refused"]] == [reason], claim
        assert scene.refusals()[label] == refused + 1, claim
    target.unharmed()


def test_counters_that_run_backwards_are_refused(scene: Scene, target: Target) -> None:
    life = secrets.token_hex(16)

    def say(**numbers: int) -> Stored:
        said = report(cell(target.uid, **numbers))
        said.incarnation = life
        answer: Stored = scene.attack(said).json()
        return answer

    assert "refused" not in say(throttled=50, eligible=5)
    assert say(throttled=60, eligible=4)["refused"][0]["reason"] == "a number that runs backwards"
    # Less of everything is an older report that came late: nothing to refuse, nothing to count.
    assert "refused" not in say(throttled=10, eligible=1)
    assert scene.refusals()["a number that runs backwards"] >= 1
    target.status("throttled 50", lambda s: s.get("quality", {}).get("throttled1h") == 50)


def test_a_bucket_of_the_distant_past_counts_nowhere(scene: Scene, target: Target) -> None:
    lies = [cell(target.uid, requests=9, errors=9, bucket=0, family=family) for family in Family]
    far = [Cell(family=60, bucket=1, uid=target.uid, model="m", requests=9, errors=9)]
    assert scene.attack(report(*lies, now_ms=30 * 86_400_000)).status_code == 200
    assert scene.attack(report(*far, now_ms=2**53 - 1)).status_code == 200
    target.unharmed()


def test_a_pulse_that_cannot_be_is_refused(scene: Scene, target: Target) -> None:
    for pulse in (
        Pulse(uid=target.uid, row=2**53 - 1),
        Pulse(uid=target.uid, in_flight=2**53 - 1),
        Pulse(uid=target.uid, row=9, row_began_ms=2**53 - 1),
        Pulse(uid=target.uid, row=9, success_began_ms=2**53 - 1),
        Pulse(uid=target.uid, row=9, generation=2**53 - 1, open=True),
    ):
        answer = scene.attack(report(cell(target.uid, throttled=1), pulses=[pulse]))
        assert answer.status_code == 200
        (said,) = answer.json()["refused"]
        assert (said["uid"], said["reason"]) == (target.uid, "numbers that cannot be")
    status = target.status("published", lambda status: "quality" in status)
    assert (status["state"], status.get("verdictGeneration", 0)) == ("Active", 0)


def test_an_absurd_share_of_the_traffic_excludes_nothing(scene: Scene, target: Target) -> None:
    most = 100_000 * Family.TEN_SECONDS
    for claim in (
        {"requests": most},
        {"requests": most, "errors": most, "connect_errors": most},
        {"requests": 1, "eligible": most},
        {"requests": 1, "cost_nano_usd": 10**15},
    ):
        lies = [cell(target.uid, family=family, **claim) for family in Family]
        pulse = Pulse(uid=target.uid, row=5_000, row_began_ms=UP_SECONDS * 1000, open=True)
        answer = scene.attack(report(*lies, full=True, pulses=[pulse]))
        assert answer.status_code == 200
        assert "refused" not in answer.json()
    target.serve(100)
    status = target.status("a third", lambda s: s.get("quality", {}).get("reporters") == 3)
    assert (status["state"], status.get("verdictGeneration", 0)) == ("Active", 0)
