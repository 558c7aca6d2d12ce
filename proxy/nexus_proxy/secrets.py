"""Where the proxy finds API keys and CA certificates: a mounted folder, or what the standalone mode
has read.

A source answers with text or None; it never logs, prints or raises a value. Secrets are read again
on every ask that follows a change, so a rotated key needs no restart.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class SecretSource(Protocol):
    """Keys of Secrets by name."""

    def get(self, secret: str, key: str) -> str | None:
        """The value without surrounding white space, None if there is none."""

    def has(self, secret: str) -> bool:
        """Whether there is a Secret of this name, whatever is in it."""

    def missing(self, secret: str, key: str) -> str:
        """What a person must do to provide this key, in one line."""


class NoSecrets:
    """No source was configured."""

    def get(self, secret: str, key: str) -> str | None:
        return None

    def has(self, secret: str) -> bool:
        return False

    def missing(self, secret: str, key: str) -> str:
        return f"Mount Secret {secret} as DIR/{secret}, and start with --credentials-dir DIR"


class MountedSecrets:
    """A folder with one folder per Secret and one file per key, as Kubernetes mounts them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, secret: str, key: str) -> str | None:
        if not (_is_plain(secret) and _is_plain(key)):
            return None
        try:
            return (self._folder / secret / key).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return None

    def has(self, secret: str) -> bool:
        return _is_plain(secret) and (self._folder / secret).is_dir()

    def missing(self, secret: str, key: str) -> str:
        return f"Provide the file {self._folder / secret / key} by mounting Secret {secret} there"


class FileSecrets:
    """Secret manifests of the standalone mode, else `NEXUS_SECRET_<NAME>_<KEY>` of the
    environment.
    """

    def __init__(
        self, secrets: Mapping[str, Mapping[str, str]], environ: Mapping[str, str] = os.environ
    ) -> None:
        self._secrets = secrets
        self._environ = environ

    def replace(self, secrets: Mapping[str, Mapping[str, str]]) -> None:
        """Take in the Secrets of changed manifests."""
        self._secrets = secrets

    def get(self, secret: str, key: str) -> str | None:
        value = self._secrets.get(secret, {}).get(key)
        return (
            self._environ.get(variable(secret, key), "") if value is None else value
        ).strip() or None

    def has(self, secret: str) -> bool:
        return secret in self._secrets

    def missing(self, secret: str, key: str) -> str:
        return (
            f"Add a Secret {secret} with key {key} to the manifests, or set {variable(secret, key)}"
        )


def variable(secret: str, key: str) -> str:
    """The environment variable that stands for a key of a Secret."""
    return "NEXUS_SECRET_" + "_".join(
        re.sub(r"[^A-Z0-9]", "_", part.upper()) for part in (secret, key)
    )


def _is_plain(name: str) -> bool:
    return bool(name) and "/" not in name and name not in (".", "..")
