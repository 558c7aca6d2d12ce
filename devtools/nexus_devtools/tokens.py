"""Tokens as attackers and pods have them, for tests of the operator's intake.

Promises tokens of pods that exist, and tokens that would be good but for one thing. It is NOT a way
into anything: the keys are those of a test's own control plane.
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from nexus_devtools.controlplane import ControlPlane

AUDIENCE = "nexus-operator"
IMAGE = "example.invalid/never-run"


def pod_token(plane: ControlPlane, namespace: str, pod: str, *, account: str = "app") -> str:
    """A token for the intake as the kubelet gives it to a pod; both are created for it."""
    plane.identity(namespace, account, audience=AUDIENCE)
    spec = {"serviceAccountName": account, "containers": [{"name": "app", "image": IMAGE}]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "spec": spec}
    scope = f"--namespace={namespace}"
    plane.run_kubectl("apply", "-f", "-", scope, input=json.dumps(body), check=True)
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod}")
    created = plane.run_kubectl(
        "create", "token", account, f"--audience={AUDIENCE}", *bound, scope, check=True
    )
    return created.stdout.strip()


def signed(token: str, key: Path | None, **claims: Any) -> str:
    """The token with other claims, signed with `key`, None for a key nobody knows."""
    head, payload, _ = token.split(".")
    body = _packed(json.dumps(_unpacked(payload) | claims).encode())
    private = generate_private_key(SECP256R1()) if key is None else _load(key)
    first, second = decode_dss_signature(private.sign(f"{head}.{body}".encode(), ECDSA(_HASH)))
    return f"{head}.{body}.{_packed(first.to_bytes(32, 'big') + second.to_bytes(32, 'big'))}"


def expired(token: str, key: Path) -> str:
    """The token as it will be an hour after its end."""
    now = int(time.time())
    return signed(token, key, iat=now - 7200, nbf=now - 7200, exp=now - 3600)


_HASH = hashes.SHA256()


def _load(key: Path) -> EllipticCurvePrivateKey:
    private = load_pem_private_key(key.read_bytes(), password=None)
    assert isinstance(private, EllipticCurvePrivateKey)
    return private


def _unpacked(part: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def _packed(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")
