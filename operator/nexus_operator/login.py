"""kopf's login: the same credentials as our own client, and only once the API server takes them.

kopf gives up when a login handler returns credentials that failed before. A starting API server
refuses good tokens for a moment, so each login carries a new priority, which makes it new to kopf.
"""

from __future__ import annotations

import itertools

import kopf

from nexus_operator.credentials import Credentials

_attempts = itertools.count(1)


def connection(credentials: Credentials) -> kopf.ConnectionInfo:
    """The credentials in kopf's terms."""
    return kopf.ConnectionInfo(
        server=credentials.server,
        ca_path=credentials.ca_path,
        insecure=credentials.insecure or None,
        username=credentials.username,
        password=credentials.password,
        token=credentials.token,
        certificate_path=credentials.certificate_path,
        private_key_path=credentials.key_path,
        default_namespace=credentials.namespace,
        proxy_url=credentials.proxy_url,
        priority=next(_attempts),
    )
