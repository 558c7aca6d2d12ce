"""Flags, their twins in the environment, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexus_operator.__main__ import main
from nexus_operator.settings import Settings, WrongUsage, parse, split_address


def test_without_anything_the_defaults_of_the_contract_hold() -> None:
    assert parse([], {}) == Settings(
        host="0.0.0.0", port=8080, log_format="json", log_level="info", namespaces=()
    )


def test_every_flag_has_a_twin_in_the_environment(tmp_path: Path) -> None:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.touch()
    key.touch()
    flags = [
        "--namespace=a",
        "--namespace=b",
        "--listen=127.0.0.1:9000",
        f"--tls-cert-file={certificate}",
        f"--tls-key-file={key}",
        f"--data-dir={tmp_path}",
        "--log-format=text",
        "--log-level=debug",
    ]
    environment = {
        "NEXUS_NAMESPACE": "a,b",
        "NEXUS_LISTEN": "127.0.0.1:9000",
        "NEXUS_TLS_CERT_FILE": str(certificate),
        "NEXUS_TLS_KEY_FILE": str(key),
        "NEXUS_DATA_DIR": str(tmp_path),
        "NEXUS_LOG_FORMAT": "text",
        "NEXUS_LOG_LEVEL": "debug",
    }
    assert parse(flags, {}) == parse([], environment)
    assert parse(["--all-namespaces"], {}) == parse([], {"NEXUS_ALL_NAMESPACES": "true"})


def test_a_flag_wins_over_its_twin() -> None:
    environment = {"NEXUS_LISTEN": ":1", "NEXUS_ALL_NAMESPACES": "true"}
    settings = parse(["--listen=:2", "--namespace=a"], environment)
    assert (settings.port, settings.namespaces, settings.all_namespaces) == (2, ("a",), False)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:8080", ("0.0.0.0", 8080)),
        (":8080", ("0.0.0.0", 8080)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address


@pytest.mark.parametrize(
    ("flags", "environment", "says"),
    [
        (["--listen=8080"], {}, "write HOST:PORT"),
        (["--listen=a:65536"], {}, "write HOST:PORT"),
        (["--listen=::1:80"], {}, "in brackets"),
        (["--namespace=Shop"], {}, "'Shop' is not a namespace name"),
        (["--namespace=a", "--all-namespaces"], {}, "exclude each other"),
        ([], {"NEXUS_NAMESPACE": "a", "NEXUS_ALL_NAMESPACES": "1"}, "exclude each other"),
        ([], {"NEXUS_ALL_NAMESPACES": "maybe"}, "write true or false"),
        (["--log-format=xml"], {}, "write one of json, text"),
        (["--log-level=loud"], {}, "write one of debug"),
        ([], {"NEXUS_LOG_LEVEL": "loud"}, "write one of debug"),
        (["--tls-cert-file=/none.crt"], {}, "there is no such file"),
        (["--data-dir=/dev/null"], {}, "is no folder"),
        (["--name=a"], {}, "unrecognized arguments: --name=a"),
        (["extra"], {}, "unrecognized arguments: extra"),
    ],
)
def test_wrong_usage_is_named_in_one_line(
    flags: list[str], environment: dict[str, str], says: str
) -> None:
    with pytest.raises(WrongUsage) as caught:
        parse(flags, environment)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    certificate = tmp_path / "tls.crt"
    certificate.touch()
    with pytest.raises(WrongUsage, match="belong together"):
        parse([f"--tls-cert-file={certificate}"], {})


def test_wrong_usage_ends_with_code_2_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--listen=nowhere"]) == 2
    assert capsys.readouterr().err == (
        "nexus-operator: --listen 'nowhere': write HOST:PORT, for example 0.0.0.0:8080\n"
    )
