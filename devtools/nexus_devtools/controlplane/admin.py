"""Plain HTTPS requests as the administrator of an instance of ours, where a kubectl would take too
long.

For readiness and the housekeeping of namespaces only; it is no Kubernetes client.
"""

from __future__ import annotations

import http.client
import json
import ssl
from types import TracebackType
from typing import Any, Self

from nexus_devtools.controlplane.certificates import Certificates
from nexus_devtools.controlplane.errors import ControlPlaneError

TIMEOUT_SECONDS = 15.0


class AdminClient:
    """One connection, opened at the first request; a context manager that closes it."""

    def __init__(self, port: int, pki: Certificates) -> None:
        context = ssl.create_default_context(cafile=str(pki.authority.certificate))
        context.load_cert_chain(str(pki.admin.certificate), str(pki.admin.key))
        self._connection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=TIMEOUT_SECONDS, context=context
        )

    def answers(self, path: str) -> bool:
        """Whether GET ``path`` is answered with 200; False also while nothing listens."""
        try:
            return self._exchange("GET", path, None)[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return False

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send it and return the answer's object; anything but success is a ControlPlaneError."""
        try:
            status, content = self._exchange(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ControlPlaneError(f"{method} {path}: {error!r}") from error
        answer = json.loads(content)
        if status >= http.client.BAD_REQUEST:
            raise ControlPlaneError(f"{method} {path}: {status} {answer.get('message', '')}")
        return dict(answer)

    def _exchange(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, body=content, headers=headers)
        response = self._connection.getresponse()
        return response.status, response.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
