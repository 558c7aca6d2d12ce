"""Applications in real pods, beside sidecars that the API server put in."""

from __future__ import annotations

import json
from typing import Any

from nexus_devtools.node import pods
from nexus_devtools.node.cluster import Cluster

INJECTED = {"nexus.dev/inject": "true"}


def test_an_application_is_answered_through_its_sidecar_and_the_operator_counts_it(
    shop: Any,
) -> None:
    shop.open_up("sim-a", "sim-b")
    shop.app()
    statuses, backends = shop.shopping("app", seconds=4).done()
    assert statuses == {"200": 40}
    assert set(backends) == {"sim-a", "sim-b"}

    def counted() -> bool:
        found = [shop.get("llmbackend", name)["status"] for name in ("sim-a", "sim-b")]
        return sum(each.get("quality", {}).get("requests1h", 0) for each in found) == 40

    shop.until("the operator counts every request once", counted)


def test_the_application_starts_when_the_proxy_is_ready_and_a_job_ends(shop: Any) -> None:
    shop.open_up("sim-a")
    ask = (
        "import os, httpx; "
        "r = httpx.post(os.environ['OPENAI_BASE_URL'] + '/chat/completions', "
        "json={'model': 'm', 'messages': [{'role': 'user', 'content': 'hello'}]}); "
        "print(r.status_code, os.environ['OPENAI_API_KEY'])"
    )
    template = pods.pod("once", [pods.PYTHON, "-c", ask], labels=INJECTED, restart="Never")
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "once"},
        "spec": {
            "backoffLimit": 0,
            "template": {"metadata": template["metadata"], "spec": template["spec"]},
        },
    }
    shop.apply(job)
    shop.run("wait", "--for=condition=Complete", "job/once", "--timeout=90s")
    # The first thing it did was to ask: it did not have to wait for its proxy.
    assert shop.run("logs", "job/once", "-c", "main").split() == ["200", "nexus"]


def test_a_namespace_without_rights_is_told_the_commands_that_grant_them(shop: Any) -> None:
    shop.run("delete", "rolebinding", "nexus-proxy")
    shop.run("delete", "role", "nexus-proxy")
    shop.apply(pods.pod("app", ["/bin/sleep", "infinity"], labels=INJECTED))
    grant = f"kubectl -n {shop.namespace} create role nexus-proxy"

    def told() -> bool:
        log = shop.run("logs", "app", "-c", "nexus-proxy", check=False)
        return any(grant in json.loads(line)["message"] for line in log.splitlines())

    shop.until("the sidecar's log names the command", told)
    log = shop.run("logs", "app", "-c", "nexus-proxy")
    line = next(json.loads(each)["message"] for each in log.splitlines() if grant in each)
    commands = line.split("to grant it: ", 1)[1].split(": ")[0].split("; ")
    assert shop.get("pod", "app")["status"]["phase"] == "Pending"
    for command in commands:
        shop.run(*command.split()[3:])
    shop.ready("app")


def test_the_sidecar_fits_the_restricted_standard_and_runs_under_it(
    shop: Any, cluster: Cluster
) -> None:
    standard = "pod-security.kubernetes.io/enforce=restricted"
    cluster.kubectl.run("label", "namespace", shop.namespace, standard, check=True)
    shop.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "app", "labels": INJECTED},
            "spec": {
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 1,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 1000,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "main",
                        "image": "localhost/base:dev",
                        "imagePullPolicy": "Never",
                        "command": ["/bin/sleep", "infinity"],
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    }
                ],
            },
        }
    )
    shop.ready("app")
    shop.run("exec", "app", "-c", "main", "--", "test", "!", "-e", "/var/run/secrets/kubernetes.io")


def test_the_sidecar_ends_after_the_application(shop: Any) -> None:
    shop.open_up("sim-a")
    last_words = (
        "import os, signal, httpx, sys, time\n"
        "def end(*_):\n"
        "    url = os.environ['OPENAI_BASE_URL'] + '/chat/completions'\n"
        "    body = {'model': 'm', 'messages': [{'role': 'user', 'content': 'bye'}]}\n"
        "    sys.exit(0 if httpx.post(url, json=body).status_code == 200 else 9)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "time.sleep(600)\n"
    )
    spec = pods.pod("app", [pods.PYTHON, "-c", last_words], labels=INJECTED, restart="Never")
    spec["spec"]["terminationGracePeriodSeconds"] = 20
    spec["metadata"]["finalizers"] = ["nexus.dev/test"]
    shop.apply(spec)
    shop.ready("app")
    shop.run("delete", "pod", "app", "--wait=false")

    def ended() -> bool:
        statuses = shop.get("pod", "app")["status"].get("containerStatuses", ())
        return any("terminated" in each["state"] for each in statuses)

    shop.until("the application ended", ended)
    (main,) = shop.get("pod", "app")["status"]["containerStatuses"]
    shop.run("patch", "pod", "app", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert main["state"]["terminated"]["exitCode"] == 0
