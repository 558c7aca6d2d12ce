"""Ways to an API server: service account, kubeconfigs, exec plugins."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from nexus_operator import credentials as module
from nexus_operator.credentials import Credentials, from_service_account, load
from nexus_operator.kube import ApiError, Kube
from nexus_operator.login import connection
from nexus_operator.problems import Fatal

PLUGIN = """import json, os, sys
asked = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert asked["kind"] == "ExecCredential" and os.environ["ROLE"] == "dev"
print(json.dumps({"apiVersion": asked["apiVersion"], "status": {"token": "from-" + sys.argv[1]}}))
"""


def kubeconfig(path: Path, *, name: str = "dev", **user: Any) -> Path:
    document = {
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}:6443/"}}],
        "users": [{"name": name, "user": user}],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": name, "namespace": "shop"}}
        ],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_kubeconfig_gives_server_token_and_namespace(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", token="abc")
    found = load({"KUBECONFIG": str(path)})
    assert (found.server, found.token, found.namespace) == ("https://dev:6443", "abc", "shop")
    assert found.headers() == {"Authorization": "Bearer abc"}
    assert found.origin == str(path)


def test_without_kubeconfig_the_home_folder_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    kubeconfig(tmp_path / ".kube" / "config", token="home")
    assert load({"HOME": str(tmp_path)}).token == "home"


def test_of_several_files_the_first_to_say_something_wins(tmp_path: Path) -> None:
    first = kubeconfig(tmp_path / "first", name="one", token="1")
    second = kubeconfig(tmp_path / "second", name="two", token="2")
    found = load({"KUBECONFIG": f"{tmp_path / 'none'}:{first}:{second}"})
    assert (found.server, found.token) == ("https://one:6443", "1")


def test_a_token_file_is_found_beside_its_kubeconfig_and_read_anew(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", tokenFile="token")
    (tmp_path / "token").write_text("first\n")
    assert load({"KUBECONFIG": str(path)}).token == "first"
    (tmp_path / "token").write_text("second\n")
    assert load({"KUBECONFIG": str(path)}).token == "second"


def test_an_exec_plugin_is_run(tmp_path: Path) -> None:
    script = tmp_path / "plugin.py"
    script.write_text(PLUGIN)
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(script), "plugin"],
        "env": [{"name": "ROLE", "value": "dev"}],
    }
    path = kubeconfig(tmp_path / "config", exec=plugin)
    assert load({"KUBECONFIG": str(path)}).token == "from-plugin"


@pytest.mark.parametrize(
    ("user", "says"),
    [
        (
            {"exec": {"command": "no-such-plugin"}},
            "exec plugin 'no-such-plugin' gave no credential",
        ),
        ({"exec": {"command": "true"}}, "exec plugin 'true' gave no credential"),
        ({"client-certificate": "none.crt"}, "cannot be used"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_named(
    tmp_path: Path, user: dict[str, Any], says: str
) -> None:
    path = kubeconfig(tmp_path / "config", **user)
    with pytest.raises(Fatal) as caught:
        load({"KUBECONFIG": str(path)})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_any_way_in_the_line_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match="set KUBECONFIG or run in a cluster"):
        load({"HOME": str(tmp_path)})


def test_in_a_cluster_the_service_account_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"token": "sa\n", "namespace": "nexus-system", "ca.crt": "pem"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "SERVICE_ACCOUNT", tmp_path)
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    found = load(environment | {"KUBECONFIG": "/none"})
    assert (found.server, found.token) == ("https://10.0.0.1:443", "sa")
    assert (found.namespace, found.ca_path) == ("nexus-system", str(tmp_path / "ca.crt"))


def test_an_ipv6_service_address_is_bracketed(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("sa")
    found = from_service_account(tmp_path, {"KUBERNETES_SERVICE_HOST": "fd00::1"})
    assert (found.server, found.namespace) == ("https://[fd00::1]:443", "default")


def test_each_login_is_new_to_kopf() -> None:
    credentials = Credentials(server="https://api", origin="x", namespace="shop", token="t")
    first, second = connection(credentials), connection(credentials)
    assert first != second
    assert (first.server, first.token, first.default_namespace) == ("https://api", "t", "shop")


async def test_after_a_401_renewed_credentials_are_used_at_once() -> None:
    def serve(request: httpx.Request) -> httpx.Response:
        if request.headers["authorization"] == "Bearer new":
            return httpx.Response(200, json={"gitVersion": "v1"})
        return httpx.Response(401, json={"message": "Unauthorized"})

    def credentials(token: str) -> Credentials:
        return Credentials(server="http://api", origin="x", namespace="d", token=token)

    kube = Kube(
        credentials("old"),
        renew=lambda: credentials("new"),
        transport=httpx.MockTransport(serve),
    )
    assert await kube.version() == {"gitVersion": "v1"}
    await kube.close()
    stale = Kube(
        credentials("old"),
        renew=lambda: credentials("old"),
        transport=httpx.MockTransport(serve),
    )
    with pytest.raises(ApiError) as caught:
        await stale.version()
    assert caught.value.status == 401
    await stale.close()


async def test_a_list_is_read_page_by_page() -> None:
    asked: list[dict[str, str]] = []

    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(dict(request.url.params))
        last = "continue" in request.url.params
        body = {
            "items": [{"n": 2}] if last else [{"n": 1}],
            "metadata": {} if last else {"continue": "token"},
        }
        return httpx.Response(200, content=json.dumps(body))

    kube = Kube(
        Credentials(server="http://api", origin="x", namespace="d"),
        transport=httpx.MockTransport(serve),
    )
    pages = [page async for page in kube.pages("llmbackends", None)]
    await kube.close()
    assert pages == [[{"n": 1}], [{"n": 2}]]
    assert asked == [{"limit": "200"}, {"limit": "200", "continue": "token"}]
