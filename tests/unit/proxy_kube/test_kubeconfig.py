"""Finding the API server: in a cluster, from kubeconfig files, and refusals that say what to do."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from nexus_proxy.kube.kubeconfig import Access, ConfigError, find_access


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def kubeconfig(user: dict[str, Any] | None = None, **cluster: Any) -> dict[str, Any]:
    return {
        "current-context": "dev",
        "contexts": [
            {"name": "dev", "context": {"cluster": "c", "user": "u", "namespace": "team"}}
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://api:6443/", **cluster}}],
        "users": [{"name": "u", "user": {"token": "t0ken"} if user is None else user}],
    }


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document))
    return path


def read(path: Path, tmp_path: Path) -> Access:
    return find_access({"KUBECONFIG": str(path)}, home=tmp_path / "nowhere")


def test_a_token_and_ca_data_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "config", kubeconfig(**{"certificate-authority-data": b64("PEM")}))
    access = read(path, tmp_path)
    assert (access.server, access.namespace) == ("https://api:6443", "team")
    assert (access.token, access.ca_pem, access.source) == ("t0ken", "PEM", str(path))


def test_the_home_folder_is_looked_at_last(tmp_path: Path) -> None:
    write(tmp_path / ".kube" / "config", kubeconfig())
    assert find_access({}, home=tmp_path).server == "https://api:6443"


def test_relative_paths_are_relative_to_their_file(tmp_path: Path) -> None:
    user = {"client-certificate": "c.pem", "client-key": "k.pem", "tokenFile": "token"}
    for name in ("c.pem", "k.pem", "ca.pem"):
        (tmp_path / name).write_text(name.upper())
    path = write(tmp_path / "config", kubeconfig(user, **{"certificate-authority": "ca.pem"}))
    access = read(path, tmp_path)
    assert (access.certificate_pem, access.key_pem, access.ca_pem) == ("C.PEM", "K.PEM", "CA.PEM")
    assert access.token_file == tmp_path / "token"


def test_client_certificate_data_is_read(tmp_path: Path) -> None:
    user = {"client-certificate-data": b64("CERT"), "client-key-data": b64("KEY")}
    access = read(write(tmp_path / "config", kubeconfig(user)), tmp_path)
    assert (access.certificate_pem, access.key_pem) == ("CERT", "KEY")


def test_several_files_are_merged_and_the_first_wins(tmp_path: Path) -> None:
    first = write(tmp_path / "a", {"current-context": "dev", "users": kubeconfig()["users"]})
    rest = kubeconfig(user={"token": "other"}) | {"current-context": "prod"}
    second = write(tmp_path / "b", rest)
    access = find_access({"KUBECONFIG": f"{first}:{second}:{tmp_path}/absent"}, home=tmp_path)
    assert access.token == "t0ken"
    assert access.namespace == "team"


def test_a_pod_uses_its_service_account_before_any_kubeconfig(tmp_path: Path) -> None:
    folder = tmp_path / "sa"
    folder.mkdir()
    for name, text in (("token", "sa-token"), ("namespace", "apps\n"), ("ca.crt", "CA")):
        (folder / name).write_text(text)
    environ = {
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "KUBERNETES_SERVICE_PORT": "6443",
        "KUBECONFIG": str(write(tmp_path / "config", kubeconfig())),
    }
    access = find_access(environ, home=tmp_path, service_account_dir=folder)
    assert (access.server, access.namespace) == ("https://10.0.0.1:6443", "apps")
    assert (access.token_file, access.ca_pem) == (folder / "token", "CA")
    environ["KUBERNETES_SERVICE_HOST"] = "fd00::1"
    again = find_access(environ, home=tmp_path, service_account_dir=folder)
    assert again.server == "https://[fd00::1]:6443"


REFUSED: list[tuple[Any, str]] = [
    (kubeconfig({"exec": {"command": "aws"}}), "'exec', which the proxy cannot"),
    (kubeconfig({"auth-provider": {"name": "gcp"}}), "'auth-provider'"),
    (kubeconfig({"username": "joe", "password": "x"}), "'username'"),
    ({**kubeconfig(), "current-context": ""}, "no current-context"),
    ({**kubeconfig(), "current-context": "gone"}, "no context named 'gone'"),
    ({**kubeconfig(), "clusters": []}, "no cluster named 'c'"),
    ({**kubeconfig(), "users": None}, "no user named 'u'"),
    (kubeconfig(server=None), "has no server"),
    (kubeconfig(**{"certificate-authority-data": "%%%"}), "is not base64"),
    (kubeconfig(**{"certificate-authority": "absent.pem"}), "No such file"),
    ("just text", "is not a kubeconfig"),
]


@pytest.mark.parametrize(("document", "said"), REFUSED)
def test_what_cannot_be_used_is_named_in_one_line(tmp_path: Path, document: Any, said: str) -> None:
    path = write(tmp_path / "config", document)
    with pytest.raises(ConfigError, match=said) as refused:
        read(path, tmp_path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_broken_yaml_is_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("a: [1,\nb: {")
    with pytest.raises(ConfigError, match="is not YAML") as refused:
        read(path, tmp_path)
    assert "\n" not in str(refused.value)


def test_no_kubeconfig_at_all_says_what_can_be_done(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set KUBECONFIG.*--manifests"):
        find_access({}, home=tmp_path)


def test_credentials_never_show_in_a_repr(tmp_path: Path) -> None:
    assert "t0ken" not in repr(read(write(tmp_path / "config", kubeconfig()), tmp_path))
