"""Keys and tokens that change under way: new ones come into the files, and nobody restarts."""

from __future__ import annotations

import json
import signal
from typing import Any

from nexus_devtools.node import pods

KEY = {"secretRef": {"name": "provider", "key": "api-key"}}
OPERATOR = "app.kubernetes.io/name=nexus-operator"
REFUSED = "does not accept the report token"
TOKENS = {"nexus-api-token": None, "nexus-report-token": "nexus-operator"}


def secret(name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": data,
    }


def test_a_backends_key_is_rotated_and_no_client_notices(shop: Any) -> None:
    shop.apply(secret("provider", **{"api-key": "first"}))
    shop.apply(pods.policy(), *pods.guarded("guarded", "first"), shop.backend("guarded", auth=KEY))
    shop.open_up("sim-b")
    shop.ready("guarded")
    shop.app(annotations={"nexus.dev/credentials": "provider"})
    statuses, backends = shop.shopping("app", seconds=2).done()
    assert statuses == {"200": 20} and backends["guarded"] > 0

    # In good order: the provider takes both until the new one has arrived.
    shopping = shop.shopping("app", seconds=15)
    shop.run("exec", "guarded", "--", "sh", "-c", "echo first second > /tmp/keys")
    shop.apply(secret("provider", **{"api-key": "second"}))
    shop.until("the proxy uses it", lambda: "key second" in shop.run("logs", "guarded"))
    shop.run("exec", "guarded", "--", "sh", "-c", "echo second > /tmp/keys")
    statuses, backends = shopping.done()
    assert statuses == {"200": 150} and backends["guarded"] > 30
    assert shop.state("guarded") == "Active"

    # In bad order: the provider has withdrawn it before anybody put the next one in place.
    shopping = shop.shopping("app", seconds=8)
    shop.run("exec", "guarded", "--", "sh", "-c", "echo third > /tmp/keys")
    shop.until("the refusals are noticed", lambda: shop.state("guarded") == "Excluded")
    statuses, _ = shopping.done()
    assert statuses == {"200": 80}
    shop.apply(secret("provider", **{"api-key": "third"}))
    shop.until("the new key mends it", lambda: shop.state("guarded") == "Active")
    statuses, backends = shop.shopping("app", seconds=4).done()
    assert statuses == {"200": 40} and backends["guarded"] > 0
    # A refused key says nothing of the backend: such attempts are no requests to the verdict.
    refused = shop.run("logs", "guarded").count("refused ")
    assert 0 < refused <= 5
    shop.whole(["guarded", "sim-b"], apart={"guarded": refused})


def minted(shop: Any, binding: str) -> dict[str, str]:
    """Tokens that are good as long as the Secret `binding` is there."""
    bound = ("--bound-object-kind=Secret", f"--bound-object-name={binding}")
    made = {}
    for volume, audience in TOKENS.items():
        asked = (f"--audience={audience}",) if audience else ()
        made[volume] = shop.run("create", "token", "default", *bound, *asked).strip()
    return made


def injected_with_tokens_of(shop: Any, held: str) -> dict[str, Any]:
    """The pod as the API server would make it, but for tokens that come from the Secret `held`."""
    plain = pods.pod("app", ["/bin/sleep", "infinity"], labels={"nexus.dev/inject": "true"})
    dry = ("create", "--dry-run=server", "-o", "json", "-f", "-")
    made: dict[str, Any] = json.loads(shop.run(*dry, input=json.dumps(plain)))
    for volume in made["spec"]["volumes"]:
        if volume["name"] in TOKENS:
            items = [{"key": volume["name"], "path": "token"}]
            token = {"secret": {"name": held, "items": items}}
            others = [s for s in volume["projected"]["sources"] if "serviceAccountToken" not in s]
            volume["projected"]["sources"] = [token, *others]
    made["metadata"] = {"name": "app", "labels": {"app": "app"}}
    return made


def is_good(shop: Any, token: str) -> bool:
    """What the API server tells the operator, some seconds late."""
    asked = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["nexus-operator"]},
    }
    answer = shop.run("create", "-o", "json", "-f", "-", input=json.dumps(asked))
    return bool(json.loads(answer)["status"].get("authenticated"))


def test_service_account_tokens_are_rotated_and_every_request_is_counted(
    shop: Any, system: Any
) -> None:
    shop.apply(pods.policy())
    shop.open_up("sim-a", "sim-b")
    shop.apply(secret("binding-1"), secret("binding-2"))
    first, second = minted(shop, "binding-1"), minted(shop, "binding-2")
    shop.apply(secret("tokens", **first))
    shop.apply(injected_with_tokens_of(shop, "tokens"))
    shop.ready("app")
    statuses, _ = shop.shopping("app", seconds=2).done()
    assert statuses == {"200": 20}
    shop.whole(["sim-a", "sim-b"])

    # The API server no longer knows the first tokens, a new operator has never believed them, and
    # the proxy has no others yet.
    shop.run("delete", "secret", "binding-1")
    shop.until("it is refused", lambda: not is_good(shop, first["nexus-report-token"]))
    system.run("delete", "pod", "-l", OPERATOR, "--grace-period=0", "--force")
    system.run("rollout", "status", "deployment/nexus-operator", "--timeout=90s")
    statuses, _ = shop.shopping("app", seconds=5).done()
    assert statuses == {"200": 50}
    shop.until("the proxy says that its token is refused", lambda: REFUSED in log(shop))

    assert is_good(shop, second["nexus-report-token"])
    shop.apply(secret("tokens", **second))
    shop.whole(["sim-a", "sim-b"])
    # The other token is good as well: with it a new process gets its backends.
    shop.signal(signal.SIGKILL, "app", "nexus-proxy")
    shop.until("it was started again", lambda: restarts(shop) == 1)
    shop.ready("app")
    statuses, _ = shop.shopping("app", seconds=1).done()
    assert statuses == {"200": 10}


def log(shop: Any) -> str:
    return str(shop.run("logs", "app", "-c", "nexus-proxy"))


def restarts(shop: Any) -> int:
    (proxy,) = shop.get("pod", "app")["status"]["initContainerStatuses"]
    return int(proxy["restartCount"])
