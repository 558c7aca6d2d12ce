"""What is asked of etcd itself: to forget its history, as it does every few minutes in a cluster.

Spoken over etcd's own JSON gateway, with etcd's own certificate. It reads and writes no keys.
"""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any

from nexus_devtools.controlplane.certificates import Certificates
from nexus_devtools.controlplane.errors import ControlPlaneError

TIMEOUT_SECONDS = 15.0


def compact(port: int, pki: Certificates) -> int:
    """Forget every revision before the present one, which is returned."""
    context = ssl.create_default_context(cafile=str(pki.authority.certificate))
    context.load_cert_chain(str(pki.etcd.certificate), str(pki.etcd.key))
    connection = http.client.HTTPSConnection(
        "127.0.0.1", port, timeout=TIMEOUT_SECONDS, context=context
    )
    try:
        status = _post(connection, "/v3/maintenance/status", {})
        revision = int(status["header"]["revision"])
        _post(connection, "/v3/kv/compaction", {"revision": str(revision), "physical": True})
    except (OSError, http.client.HTTPException) as error:
        raise ControlPlaneError(f"etcd on port {port}: {error!r}") from error
    finally:
        connection.close()
    return revision


def _post(
    connection: http.client.HTTPSConnection, path: str, body: dict[str, Any]
) -> dict[str, Any]:
    connection.request("POST", path, body=json.dumps(body))
    response = connection.getresponse()
    content = response.read()
    if response.status != http.client.OK:
        raise ControlPlaneError(f"etcd: POST {path}: {response.status} {content.decode()[:200]}")
    return dict(json.loads(content))
