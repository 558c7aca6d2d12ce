"""A Prometheus for tests, and `python -m nexus_devtools.prometheus`: the rules as a file.

It is Debian's, unless the call names another. Promises a server on loopback with the documented
configuration, changed only in what is said at the call, its answers as they are, and that an error
of a query is an error here. It dies with its parent. It is NOT for use in a cluster:
`docs/examples/prometheus` is.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from nexus_devtools.backends import Child, ChildError
from nexus_devtools.product import REPOSITORY, free_address, wait_until_ready

EXAMPLES = REPOSITORY / "docs" / "examples" / "prometheus"
CONFIGURATION = EXAMPLES / "prometheus.yaml"
RIGHTS = EXAMPLES / "rights.yaml"
RULE_FILE = EXAMPLES / "nexus-rules.yaml"
COMPONENT = REPOSITORY / "manifests" / "components" / "monitoring"
DASHBOARD = COMPONENT / "dashboard.json"
RULES = COMPONENT / "rules.yaml"

Config = dict[str, Any]
Sample = dict[str, Any]


def rule_file() -> str:
    """The rules that ship, as a Prometheus without its operator reads them."""
    spec = yaml.safe_load(RULES.read_text())["spec"]
    head = "# `spec` of manifests/components/monitoring/rules.yaml, written by\n"
    head += "# python -m nexus_devtools.prometheus\n"
    return head + yaml.safe_dump(spec, sort_keys=False, width=100)


def documented() -> Config:
    """The configuration that the documents show."""
    found: Config = yaml.safe_load(CONFIGURATION.read_text())
    return found


def quick(config: Config, *, every: str = "1s") -> Config:
    """The same, looking more often."""
    return config | {"global": {"scrape_interval": every, "evaluation_interval": every}}


def outside(config: Config, kubeconfig: Path) -> Config:
    """The same for a process that is no pod: it asks the API server as this kubeconfig says."""
    changed = copy.deepcopy(config)
    for job in changed["scrape_configs"]:
        for finder in job.get("kubernetes_sd_configs", ()):
            finder["kubeconfig_file"] = str(kubeconfig)
    return changed


def found(config: Config, job: str, *addresses: tuple[str, Mapping[str, str]]) -> Config:
    """The same with a job that finds these addresses, labelled as its discovery would: what
    follows from the labels is as documented.
    """
    changed = copy.deepcopy(config)
    (chosen,) = (each for each in changed["scrape_configs"] if each["job_name"] == job)
    del chosen["kubernetes_sd_configs"]
    chosen["static_configs"] = [
        {
            "targets": [address],
            "labels": {f"__meta_kubernetes_{name}": value for name, value in meta.items()},
        }
        for address, meta in addresses
    ]
    return changed


class Prometheus:
    """A server that is ready when it is made; `stop` ends it."""

    def __init__(
        self, folder: Path, config: Config, rules: Mapping[str, Any], *, program: Path | None = None
    ) -> None:
        chosen = program or shutil.which("prometheus")
        if chosen is None:
            raise ChildError("prometheus is not installed: apt install prometheus")
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        (folder / RULE_FILE.name).write_text(yaml.safe_dump({**rules}))
        address = free_address()
        self._child = Child(
            [
                str(chosen),
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ],
            log=folder / "prometheus.log",
        )
        self.client = httpx.Client(base_url=f"http://{address}", timeout=10, trust_env=False)
        try:
            wait_until_ready(self._child, f"http://{address}/-/ready")
        except ChildError:
            self.stop()
            raise

    def get(self, path: str, **parameters: str) -> Any:
        """`data` of an answer; AssertionError with Prometheus' words if it is an error."""
        answer = self.client.get(f"/api/v1/{path}", params=parameters)
        body = answer.json()
        assert body["status"] == "success", f"{parameters}: {body.get('error')}"
        assert not body.get("warnings"), f"{parameters}: {body['warnings']}"
        return body["data"]

    def query(self, expression: str) -> list[Sample]:
        """The samples of now, each `{"metric": labels, "value": [time, text]}`."""
        data = self.get("query", query=expression)
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        samples: list[Sample] = data["result"]
        return samples

    def targets(self) -> list[Sample]:
        """What is scraped: labels and health of each."""
        active: list[Sample] = self.get("targets")["activeTargets"]
        return active

    def alerts(self, name: str) -> dict[str, str]:
        """The states of an alert, pending or firing, by its labels other than the name."""
        seen: dict[str, str] = {}
        for alert in self.get("alerts")["alerts"]:
            labels = dict(alert["labels"])
            if labels.pop("alertname") == name:
                seen[json.dumps(labels, sort_keys=True)] = alert["state"]
        return seen

    def stop(self) -> None:
        """End it."""
        self.client.close()
        self._child.stop()


if __name__ == "__main__":
    RULE_FILE.write_text(rule_file())
