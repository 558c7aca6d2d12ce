"""Where the proxy finds API keys and CA certificates: a mounted folder, or what the standalone mode
has read.

A source answers with text or None; it never logs, prints or raises a value. Secrets are read again
on every ask that follows a change, so a rotated key needs no restart; whether one may have changed
since it was asked for costs no reading.
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

    def changed(self) -> bool:
        """Whether a value that was asked for may be another by now; True once per change."""


class NoSecrets:
    """No source was configured."""

    def get(self, secret: str, key: str) -> str | None:
        return None

    def has(self, secret: str) -> bool:
        return False

    def missing(self, secret: str, key: str) -> str:
        return f"Mount Secret {secret} as DIR/{secret}, and start with --credentials-dir DIR"

    def changed(self) -> bool:
        return False


class MountedSecrets:
    """A folder with one folder per Secret and one file per key, as Kubernetes mounts them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._asked: dict[Path, Stamp] = {}

    def get(self, secret: str, key: str) -> str | None:
        if not (_is_plain(secret) and _is_plain(key)):
            return None
        path = self._folder / secret / key
        self._asked[path] = stamp(path)  # before it is read: a change in between is seen later
        try:
            # What is no text stays something that is there: its user says what is wrong with it.
            return path.read_bytes().decode("utf-8", "replace").strip()
        except OSError:
            return None

    def has(self, secret: str) -> bool:
        return _is_plain(secret) and (self._folder / secret).is_dir()

    def missing(self, secret: str, key: str) -> str:
        return f"Provide the file {self._folder / secret / key} by mounting Secret {secret} there"

    def changed(self) -> bool:
        if all(stamp(path) == seen for path, seen in self._asked.items()):
            return False
        self._asked.clear()  # what is still in use will be asked for again
        return True


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

    def all(self) -> dict[str, dict[str, str]]:
        """Those of the manifests."""
        return {name: dict(values) for name, values in self._secrets.items()}

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

    def changed(self) -> bool:
        return False  # who replaces them says so


Stamp = tuple[int, int, int] | None


def stamp(path: Path) -> Stamp:
    """What is another after every change of a file, also through a swapped link; None: no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def variable(secret: str, key: str) -> str:
    """The environment variable that stands for a key of a Secret."""
    return "NEXUS_SECRET_" + "_".join(
        re.sub(r"[^A-Z0-9]", "_", part.upper()) for part in (secret, key)
    )


def _is_plain(name: str) -> bool:
    return bool(name) and "/" not in name and name not in (".", "..")
