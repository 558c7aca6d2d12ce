"""What the operator is told on its command line or in its environment.

`parse` turns arguments and `NEXUS_…` variables into one frozen `Settings`; a flag wins over its
twin in the environment. Anything wrong raises `WrongUsage` with one line that names the flag and
says what to write. It opens no file but to see that it is there, and knows nothing of Kubernetes.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

LISTEN = "0.0.0.0:8080"
LOG_FORMATS = ("json", "text")
LOG_LEVELS = ("debug", "info", "warning", "error")
NAMESPACE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS = frozenset({"", "0", "false", "no", "off"})


class WrongUsage(ValueError):
    """A flag or variable that cannot be obeyed; its text is the line to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every knob of the process. `namespaces` empty and not `all_namespaces`: the own one."""

    namespaces: tuple[str, ...] = ()
    all_namespaces: bool = False
    host: str = "0.0.0.0"
    port: int = 8080
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    data_dir: Path | None = None
    log_format: str = "json"
    log_level: str = "info"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise WrongUsage(message)


def parse(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from flags and environment; raises `WrongUsage` (or exits 0 after --help)."""
    environ = os.environ if environment is None else environment
    given = _parser().parse_args(list(arguments))
    namespaces, everywhere = _namespaces(given, environ)
    host, port = split_address(_text(given.listen, environ, "NEXUS_LISTEN") or LISTEN)
    certificate, key = _tls_files(given, environ)
    return Settings(
        namespaces=namespaces,
        all_namespaces=everywhere,
        host=host,
        port=port,
        tls_cert_file=certificate,
        tls_key_file=key,
        data_dir=_folder(_text(given.data_dir, environ, "NEXUS_DATA_DIR")),
        log_format=_word(given.log_format, environ, "--log-format", LOG_FORMATS) or "json",
        log_level=_word(given.log_level, environ, "--log-level", LOG_LEVELS) or "info",
    )


def split_address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[V6]:PORT` or `:PORT` as (host, port); port 0 asks for any free one."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise WrongUsage(f"--listen {text!r}: write HOST:PORT, for example {LISTEN}")
    if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
        raise WrongUsage(f"--listen {text!r}: write an IPv6 address in brackets, [::]:8080")
    return host.strip("[]") or "0.0.0.0", int(port)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="nexus-operator",
        description="Keeps the shared quality verdict of LLM backends in a Kubernetes cluster.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--namespace", action="append", metavar="NS", help="watch this namespace (repeatable)")
    add("--all-namespaces", action="store_true", help="watch every namespace")
    add("--listen", metavar="HOST:PORT", help=f"address of the HTTP server ({LISTEN})")
    add("--tls-cert-file", metavar="FILE", help="serve HTTPS with this certificate chain")
    add("--tls-key-file", metavar="FILE", help="private key of --tls-cert-file")
    add("--data-dir", metavar="DIR", help="folder that outlives the process")
    add("--log-format", metavar="|".join(LOG_FORMATS), help="json (default) or text")
    add("--log-level", metavar="|".join(LOG_LEVELS), help="info by default")
    return parser


def _text(flag: str | None, environ: Mapping[str, str], variable: str) -> str | None:
    return flag if flag is not None else environ.get(variable) or None


def _namespaces(
    given: argparse.Namespace, environ: Mapping[str, str]
) -> tuple[tuple[str, ...], bool]:
    if given.namespace and given.all_namespaces:
        raise WrongUsage("--namespace and --all-namespaces exclude each other: give one of them")
    if given.namespace or given.all_namespaces:
        names, everywhere = given.namespace or [], given.all_namespaces
    else:
        names = [name for name in environ.get("NEXUS_NAMESPACE", "").split(",") if name.strip()]
        everywhere = _truth("NEXUS_ALL_NAMESPACES", environ)
        if names and everywhere:
            raise WrongUsage("NEXUS_NAMESPACE and NEXUS_ALL_NAMESPACES exclude each other")
    cleaned = tuple(dict.fromkeys(name.strip() for name in names))
    for name in cleaned:
        if not NAMESPACE_NAME.fullmatch(name):
            raise WrongUsage(f"--namespace {name!r} is not a namespace name")
    return cleaned, everywhere


def _truth(variable: str, environ: Mapping[str, str]) -> bool:
    word = environ.get(variable, "").strip().lower()
    if word not in TRUE_WORDS | FALSE_WORDS:
        raise WrongUsage(f"{variable}={word!r}: write true or false")
    return word in TRUE_WORDS


def _word(
    flag: str | None, environ: Mapping[str, str], name: str, allowed: tuple[str, ...]
) -> str | None:
    word = _text(flag, environ, "NEXUS_" + name.strip("-").replace("-", "_").upper())
    if word is not None and word not in allowed:
        raise WrongUsage(f"{name} {word!r}: write one of {', '.join(allowed)}")
    return word


def _tls_files(
    given: argparse.Namespace, environ: Mapping[str, str]
) -> tuple[Path | None, Path | None]:
    certificate = _file(
        "--tls-cert-file", _text(given.tls_cert_file, environ, "NEXUS_TLS_CERT_FILE")
    )
    key = _file("--tls-key-file", _text(given.tls_key_file, environ, "NEXUS_TLS_KEY_FILE"))
    if (certificate is None) != (key is None):
        raise WrongUsage("--tls-cert-file and --tls-key-file belong together: give both or none")
    return certificate, key


def _file(name: str, text: str | None) -> Path | None:
    if text is None:
        return None
    if not Path(text).is_file():
        raise WrongUsage(f"{name} {text!r}: there is no such file")
    return Path(text)


def _folder(text: str | None) -> Path | None:
    if text is None:
        return None
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise WrongUsage(f"--data-dir {text!r} is no folder: write the path of one")
    return path
