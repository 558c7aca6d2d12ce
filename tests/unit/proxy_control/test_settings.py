"""The command line: flags, their environment twins, and one line for whatever is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nexus_proxy.build import build
from nexus_proxy.http import exchange
from nexus_proxy.settings import Address, UsageError, parse


def test_the_defaults_are_the_contracts() -> None:
    settings = parse([], {})
    assert str(settings.listen) == "127.0.0.1:8000"
    assert str(settings.admin_listen) == "0.0.0.0:9090"
    assert settings.operator_url == "http://nexus-operator.nexus-system.svc:8080"
    assert settings.namespace is None
    assert settings.manifests is None


def test_every_flag_has_an_environment_twin(tmp_path: Path) -> None:
    for name in ("tls.crt", "tls.key", "keys"):
        (tmp_path / name).touch()
    flags = {
        "--namespace": "team",
        "--tls-cert-file": str(tmp_path / "tls.crt"),
        "--tls-key-file": str(tmp_path / "tls.key"),
        "--client-keys-file": str(tmp_path / "keys"),
        "--listen": "[::1]:81",
        "--admin-listen": "0.0.0.0:0",
        "--operator-url": "https://op",
        "--report-token-file": "token",
        "--credentials-dir": str(tmp_path),
        "--workers": "3",
        "--manifests": str(tmp_path),
        "--drain-seconds": "25",
        "--log-format": "JSON",
        "--log-level": "debug",
    }
    by_flag = parse([part for pair in flags.items() for part in pair], {})
    twins = {f"NEXUS_{flag[2:].upper().replace('-', '_')}": value for flag, value in flags.items()}
    assert parse([], twins) == by_flag
    assert by_flag.listen == Address("::1", 81)
    assert by_flag.log_format == "json"
    assert by_flag.drain_seconds == 25


def test_a_flag_wins_over_its_twin() -> None:
    assert parse(["--namespace", "a"], {"NEXUS_NAMESPACE": "b"}).namespace == "a"


def test_an_empty_twin_is_no_twin() -> None:
    assert parse([], {"NEXUS_LISTEN": ""}).listen == Address("127.0.0.1", 8000)


WRONG = [
    (["--listen", "8000"], "--listen: '8000' is no HOST:PORT"),
    (["--listen", "a:99999"], "--listen:"),
    (["--operator-url", "op:8080"], "--operator-url: 'op:8080' is no URL"),
    (["--manifests", "/no/such"], "--manifests: no such folder: /no/such"),
    (["--credentials-dir", "/no/such"], "--credentials-dir: no such folder"),
    (["--tls-cert-file", "/no/such"], "--tls-cert-file: no such file: /no/such"),
    (["--client-keys-file", "/no/such"], "--client-keys-file: no such file or folder: /no/such"),
    (["--tls-key-file", __file__], "--tls-cert-file and --tls-key-file belong together: give both"),
    (["--log-format", "xml"], "--log-format: 'xml' is none of text, json"),
    (["--log-level", "loud"], "--log-level: 'loud' is none of debug"),
    (["--workers", "0"], "--workers: '0' is no positive number"),
    (["--workers", "65"], "--workers: 65 are too many, 64 at the most"),
    (["--namespace", "a/b"], "--namespace: 'a/b' is no namespace name"),
    (["--nonsense"], "--nonsense"),
    (["--listen"], "--listen"),
    (["stray"], "stray"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_wrong_usage_is_named_in_one_line(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError) as wrong:
        parse(arguments, {})
    assert said in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_a_wrong_twin_is_named_as_what_it_is() -> None:
    with pytest.raises(UsageError, match="NEXUS_LISTEN: 'x' is no HOST:PORT"):
        parse([], {"NEXUS_LISTEN": "x"})


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--listen", "x"], 2, "--listen: 'x' is no HOST:PORT, such as 127.0.0.1:8000\n"),
        ([], 1, "no kubeconfig at"),
    ],
)
def test_wrong_usage_exits_with_code_2_and_no_cluster_with_1_each_with_one_line(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "nexus_proxy", *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == code
    assert ended.stderr.startswith(f"nexus-proxy: {said}")
    assert ended.stderr.count("\n") == 1


def test_it_says_which_build_it_is() -> None:
    command = [sys.executable, "-m", "nexus_proxy", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"nexus-proxy \S+ \((pure|compiled), Python 3\.\S+\)\n", done.stdout)


def test_the_build_is_what_runs() -> None:
    ending = Path(exchange.__file__ or "").suffix
    assert build() == ("pure" if ending == ".py" else "compiled")
