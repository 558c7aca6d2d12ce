"""The certificate of the operator's HTTPS server, read again when its files change.

Promises that a handshake which begins a second after the files changed is made with what is in them
then, that connections there are stay, and that files which cannot be used (one of the two is not
renewed yet) leave the certificate of before in force, with one line that says so. It renews nothing
by itself: cert-manager, or whoever else issues certificates, does.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from nexus_operator.problems import Fatal

LOOK_SECONDS = 1.0
Stamp = tuple[tuple[int, int, int], ...]

log = logging.getLogger(__name__)


class ServerTls:
    """`context` is for the listener. Raises `Fatal` if the files cannot be used at the start."""

    def __init__(
        self, certificate: Path, key: Path, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._files = (certificate, key)
        self._now = monotonic
        self._trouble = ""
        try:
            self._stamp = stamp(*self._files)
            self.context = self._current = self._load()
        except (OSError, ssl.SSLError) as error:
            raise Fatal(f"{self._names}: {error}") from None
        self._looked = self._now()
        # Called in each handshake, with a name or without one, before a certificate is chosen.
        self.context.sni_callback = self._choose

    @property
    def _names(self) -> str:
        certificate, key = self._files
        return f"--tls-cert-file {certificate} and --tls-key-file {key}"

    def _choose(self, connection: ssl.SSLObject, *_: object) -> None:
        if self._now() - self._looked >= LOOK_SECONDS:
            self._look()
        connection.context = self._current

    def _look(self) -> None:
        """Takes over files that changed."""
        self._looked = self._now()
        try:
            seen = stamp(*self._files)
            if seen == self._stamp:
                return
            self._stamp = seen
            self._current = self._load()
        except (OSError, ssl.SSLError) as error:
            if self._trouble != str(error):
                self._trouble = str(error)
                log.error("%s: %s; the certificate of before is served", self._names, error)
        else:
            self._trouble = ""
            log.info("%s: the new certificate is served", self._names)

    def _load(self) -> ssl.SSLContext:
        certificate, key = self._files
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        return context


def stamp(*paths: str | Path | None) -> Stamp:
    """What tells these files from those that take their place; OSError if one is not there."""
    found = (Path(path).stat() for path in paths if path is not None)
    return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in found)
