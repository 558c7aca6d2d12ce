"""How clients come in: with TLS or without, with a key of ours or without.

Promises that what the flags name is usable when the proxy starts, and followed afterwards: `look`
is called once a second. It listens nowhere itself.
"""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING, Any

from nexus_proxy.http.client_keys import ClientKeys
from nexus_proxy.http.tls import ListenerTls

if TYPE_CHECKING:
    from nexus_proxy.settings import Settings

_log = logging.getLogger("nexus.proxy")

HANDSHAKE_SECONDS = 10.0
SHUTDOWN_SECONDS = 5.0


class Listener:
    """Neither TLS nor keys by default."""

    def __init__(self, tls: ListenerTls | None = None, keys: ClientKeys | None = None) -> None:
        self.tls = tls
        self.keys = keys

    def __str__(self) -> str:
        parts = {"TLS": self.tls, "client keys": self.keys}
        named = " and ".join(name for name, part in parts.items() if part is not None)
        return f" with {named}" if named else ""

    def look(self) -> None:
        """Follow the files."""
        if self.tls is not None:
            self.tls.look()
        if self.keys is not None:
            self.keys.look()

    def options(self) -> dict[str, Any]:
        """What the event loop is to be told of each connection."""
        if self.tls is None:
            return {}
        return {
            "ssl": self.tls.context,
            "ssl_handshake_timeout": HANDSHAKE_SECONDS,
            "ssl_shutdown_timeout": SHUTDOWN_SECONDS,
        }


def listener_of(settings: Settings) -> Listener:
    """The listener that the flags ask for. Raises UnusableFile."""
    certificate, key = settings.tls_cert_file, settings.tls_key_file
    tls = ListenerTls(certificate, key) if certificate and key else None
    keys = ClientKeys(settings.client_keys_file) if settings.client_keys_file else None
    if keys is not None and tls is None and not is_loopback(settings.listen.host):
        _log.warning("clients' keys travel in clear: give --tls-cert-file and --tls-key-file too")
    return Listener(tls, keys)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine (or pod) alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
