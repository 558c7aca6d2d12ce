"""The command line of `nexus-proxy`: every flag has an environment twin, `--admin-listen` is
`NEXUS_ADMIN_LISTEN`.

A flag wins over its twin. Whatever is wrong is said in one line that names the flag, the variable
or the file; the caller exits with code 2. Nothing is opened here beyond looking whether files and
folders exist.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

OPERATOR_URL = "http://nexus-operator.nexus-system.svc:8080"
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")


class UsageError(Exception):
    """Wrong usage; the message is one line."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


LISTEN = Address("127.0.0.1", 8000)
ADMIN_LISTEN = Address("0.0.0.0", 9090)
DRAIN_SECONDS = 3600
MAX_WORKERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the user asked for. `namespace` None: the pod's own, or the kubeconfig context's."""

    namespace: str | None = None
    listen: Address = LISTEN
    admin_listen: Address = ADMIN_LISTEN
    operator_url: str = OPERATOR_URL
    report_token_file: Path | None = None
    credentials_dir: Path | None = None
    manifests: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    client_keys_file: Path | None = None
    workers: int = 1
    drain_seconds: int = DRAIN_SECONDS
    log_format: str = "text"
    log_level: str = "info"


T = TypeVar("T")


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """The settings of a command line and its environment. Raises UsageError; `--help` and
    `--version` exit.
    """
    given = vars(_parser().parse_args(arguments))
    read = _Reader(given, environ)
    certificate = read.value("tls_cert_file", _file, None)
    key = read.value("tls_key_file", _file, None)
    if (certificate is None) != (key is None):
        raise UsageError("--tls-cert-file and --tls-key-file belong together: give both or none")
    return Settings(
        namespace=read.value("namespace", _name, None),
        listen=read.value("listen", _address, LISTEN),
        admin_listen=read.value("admin_listen", _address, ADMIN_LISTEN),
        operator_url=read.value("operator_url", _url, OPERATOR_URL),
        report_token_file=read.value("report_token_file", Path, None),
        credentials_dir=read.value("credentials_dir", _folder, None),
        manifests=read.value("manifests", _folder, None),
        tls_cert_file=certificate,
        tls_key_file=key,
        client_keys_file=read.value("client_keys_file", _present, None),
        workers=read.value("workers", _workers, 1),
        drain_seconds=read.value("drain_seconds", _positive, DRAIN_SECONDS),
        log_format=read.value("log_format", _one_of(LOG_FORMATS), "text"),
        log_level=read.value("log_level", _one_of(LOG_LEVELS), "info"),
    )


class _Reader:
    """Flags first, then their environment twins, then the default."""

    def __init__(self, given: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self._given = given
        self._environ = environ

    def value(self, name: str, convert: Callable[[str], T], default: Any) -> Any:
        flag, twin = f"--{name.replace('_', '-')}", f"NEXUS_{name.upper()}"
        text, source = self._given.get(name), flag
        if text is None:
            text, source = self._environ.get(twin) or None, twin
        if text is None:
            return default
        try:
            return convert(text)
        except ValueError as error:
            raise UsageError(f"{source}: {error}") from None


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        # All of the byte path, and the metadata of packages: not for those who do not ask.
        from nexus_proxy.build import described

        print(described())  # noqa: T201
        parser.exit()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (nexus-proxy --help lists the flags)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="nexus-proxy",
        description="Routes OpenAI API requests to the best LLMBackend.",
        epilog="Each flag has an environment twin: --admin-listen is NEXUS_ADMIN_LISTEN.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="say which build this is")
    for flag, metavar, text in _FLAGS:
        parser.add_argument(flag, metavar=metavar, help=text)
    return parser


_FLAGS = (
    ("--namespace", "NS", "namespace of the LLMBackends (its own, or the kubeconfig context's)"),
    ("--listen", "HOST:PORT", "where applications connect (127.0.0.1:8000)"),
    ("--admin-listen", "HOST:PORT", "health, metrics and statistics (0.0.0.0:9090)"),
    ("--operator-url", "URL", f"where outcomes are reported ({OPERATOR_URL})"),
    ("--report-token-file", "FILE", "bearer token for the reports, read again for each"),
    ("--credentials-dir", "DIR", "mounted Secrets, one folder per Secret, one file per key"),
    ("--workers", "N", "processes that serve on the same port, one for each core (1)"),
    ("--manifests", "DIR", "standalone: read the objects from YAML files instead of a cluster"),
    (
        "--tls-cert-file",
        "FILE",
        "listen with TLS: certificate chain, PEM, followed when it changes",
    ),
    ("--tls-key-file", "FILE", "the private key of --tls-cert-file"),
    ("--client-keys-file", "FILE|DIR", "clients must send one of these keys as a bearer token"),
    ("--drain-seconds", "N", "how long requests may go on after SIGTERM (3600)"),
    ("--log-format", "json|text", "how log lines are written (text)"),
    ("--log-level", "LEVEL", f"{', '.join(LOG_LEVELS)} (info)"),
)


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isdigit() and int(port) < 65536):
        raise ValueError(f"{text!r} is no HOST:PORT, such as 127.0.0.1:8000")
    return Address(host, int(port))


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{text!r} is no URL, such as {OPERATOR_URL}")
    return text.rstrip("/")


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise ValueError(f"no such folder: {text}")
    return path


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise ValueError(f"no such file: {text}")
    return path


def _present(text: str) -> Path:
    path = Path(text)
    if not path.exists():
        raise ValueError(f"no such file or folder: {text}")
    return path


def _name(text: str) -> str:
    if not text.replace("-", "").isalnum() or len(text) > 63:
        raise ValueError(f"{text!r} is no namespace name")
    return text


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{text!r} is no positive number")
    return int(text)


def _workers(text: str) -> int:
    number = _positive(text)
    if number > MAX_WORKERS:
        raise ValueError(f"{text} are too many, {MAX_WORKERS} at the most: one for each core")
    return number


def _one_of(choices: Sequence[str]) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}")
        return text.lower()

    return convert
