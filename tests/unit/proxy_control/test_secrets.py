"""Where keys come from, and that a name can never lead out of the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexus_proxy.secrets import FileSecrets, MountedSecrets, NoSecrets, variable


def test_a_mounted_key_is_read_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "openai").mkdir()
    (tmp_path / "openai" / "api-key").write_text("sk-1\n")
    secrets = MountedSecrets(tmp_path)
    assert secrets.get("openai", "api-key") == "sk-1"
    assert secrets.get("openai", "other") is None
    assert secrets.get("absent", "api-key") is None


@pytest.mark.parametrize(("secret", "key"), [("..", "x"), ("a/b", "k"), ("a", "../k"), ("", "k")])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, secret: str, key: str) -> None:
    inner = tmp_path / "inner"
    (inner / "a").mkdir(parents=True)
    (tmp_path / "x").write_text("out")
    (inner / "k").write_text("out")
    assert MountedSecrets(inner).get(secret, key) is None


def test_a_manifest_comes_before_the_environment() -> None:
    environ = {"NEXUS_SECRET_MY_APP_API_KEY": "from-env"}
    secrets = FileSecrets({"my-app": {"other": "x"}}, environ)
    assert variable("my-app", "api.key") == "NEXUS_SECRET_MY_APP_API_KEY"
    assert secrets.get("my-app", "api.key") == "from-env"
    secrets.replace({"my-app": {"api.key": "from-file"}})
    assert secrets.get("my-app", "api.key") == "from-file"
    assert secrets.get("none", "k") is None
    assert "NEXUS_SECRET_NONE_K" in secrets.missing("none", "k")


def test_without_a_source_the_flag_is_named() -> None:
    assert NoSecrets().get("s", "k") is None
    assert "--credentials-dir" in NoSecrets().missing("s", "k")


def test_a_mounted_key_is_read_anew_when_the_kubelet_swaps_its_folder(tmp_path: Path) -> None:
    secret = tmp_path / "openai"
    for version, key in (("..1", "old-key"), ("..2", "new-key")):
        (secret / version).mkdir(parents=True)
        (secret / version / "api-key").write_text(f"{key}\n")
    (secret / "..data").symlink_to("..1")
    (secret / "api-key").symlink_to("..data/api-key")
    secrets = MountedSecrets(tmp_path)
    assert secrets.get("openai", "api-key") == "old-key"
    (secret / "..data_tmp").symlink_to("..2")
    (secret / "..data_tmp").rename(secret / "..data")
    assert secrets.get("openai", "api-key") == "new-key"
