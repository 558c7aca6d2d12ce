"""The keys that clients must show where the listening side asks for one.

Promises that a key is compared in a time which tells nothing of any, that only digests are kept,
and that no message, log line or metric holds one. A file that cannot be used leaves the last good
keys in force; one that holds none lets nobody in. What becomes of a client's key after that is the
matter of the backend's `auth`.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from nexus_proxy.http.tls import UnusableFile
from nexus_proxy.secrets import Stamp, stamp

if TYPE_CHECKING:
    from nexus_proxy.http.request_head import Request

MAX_KEYS = 1000
STATUS = 401
CODE = "invalid_api_key"
CHALLENGE = b"www-authenticate: Bearer\r\n"
_NAME = b"authorization"
_MISSING = "this proxy wants a key: send the header Authorization: Bearer KEY"
_WRONG = "the key is not one of this proxy's: ask who runs it for another"

_log = logging.getLogger("nexus.proxy")

Digests = tuple[bytes, ...]


class ClientKeys:
    """The keys in a file, one a line (`#` begins a comment), or in the files of a folder, as a
    Secret is mounted. `current` is another object after each change. Raises UnusableFile.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _stamps(path)
        self.current = _read(path)
        if not self.current:
            raise UnusableFile(f"{path} holds no key: write one a line")

    def look(self) -> None:
        """Take in the file or folder if it changed."""
        seen = _stamps(self._path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.current = _read(self._path)
        except UnusableFile as error:
            _log.error("%s; the last good keys stay in force", error)
            return
        if not self.current:
            _log.error("%s holds no key: no client is let in", self._path)
        else:
            _log.info("%s: %d keys in force", self._path, len(self.current))

    def refusal(self, request: Request) -> tuple[int, str] | None:
        """The status and the message for a request without a key of ours. None: it has one, and is
        marked as admitted by the keys of now.
        """
        shown = [line for name, line in request.credentials if name == _NAME]
        if len(shown) != 1:
            return STATUS, _MISSING
        scheme, _, key = shown[0][len(_NAME) + 2 : -2].partition(b" ")
        if scheme.lower() != b"bearer":
            return STATUS, _MISSING
        digest = hashlib.sha256(key.strip()).digest()
        known = False
        for each in self.current:  # all of them, whichever it is
            known |= hmac.compare_digest(each, digest)
        if not known:
            return STATUS, _WRONG
        request.admitted = self.current
        return None


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(
        each for each in path.iterdir() if not each.name.startswith(".") and each.is_file()
    )


def _stamps(path: Path) -> tuple[tuple[Path, Stamp], ...]:
    try:
        return tuple((each, stamp(each)) for each in _files(path))
    except OSError:
        return ()


def _read(path: Path) -> Digests:
    found: dict[bytes, None] = {}
    try:
        for each in _files(path):
            for number, line in enumerate(each.read_bytes().splitlines(), 1):
                key = line.strip()
                if key and not key.startswith(b"#"):
                    found[_digest(key, f"{each} line {number}")] = None
    except OSError as error:
        raise UnusableFile(f"{path}: {error.strerror}") from None
    if len(found) > MAX_KEYS:
        raise UnusableFile(f"{path} holds {len(found)} keys: {MAX_KEYS} at most")
    return tuple(found)


def _digest(key: bytes, where: str) -> bytes:
    if not key.isascii() or any(byte <= 32 or byte == 127 for byte in key):
        raise UnusableFile(f"{where} is no key: it has a space or a character no header can carry")
    return hashlib.sha256(key).digest()
