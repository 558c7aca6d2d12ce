"""The certificate of the listening side, which may be another tomorrow.

Promises that a handshake sees one certificate with its own key, the present one; and that files
which cannot be used leave the last good pair in force and say so. It accepts no connection.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from nexus_proxy.secrets import stamp

_log = logging.getLogger("nexus.proxy")


class UnusableFile(ValueError):
    """A file that a flag names cannot be used; the message is one line, without what is in it."""


class ListenerTls:
    """`context` is for the server, for as long as it listens. Raises UnusableFile."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._paths = certificate, key
        self._seen = stamp(certificate), stamp(key)
        self._current = self._loaded()
        self.context = self._loaded()
        # Each handshake asks which pair it is to show: that is how they change under a server.
        self.context.sni_callback = self._show

    def look(self) -> None:
        """Take in the files if they changed."""
        certificate, key = self._paths
        seen = stamp(certificate), stamp(key)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._current = self._loaded()
        except UnusableFile as error:
            _log.error("%s; the last good certificate stays in use", error)
        else:
            _log.info("%s: new certificate in use", certificate)

    def _loaded(self) -> ssl.SSLContext:
        certificate, key = self._paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ValueError) as error:
            raise UnusableFile(f"{certificate}, {key}: {_said(error)}") from None
        return context

    def _show(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current


def _no_password() -> str:
    raise ValueError("the private key is encrypted: write it without a passphrase")


def _said(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"no PEM certificate chain with its own private key ({error.reason or 'not PEM'})"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
