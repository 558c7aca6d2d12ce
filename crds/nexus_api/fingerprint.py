"""The fingerprint of what makes a backend the same backend to the verdict.

Promises: equal for specs that reach the same server in the same way, different after a change of
`url`, `type`, `auth`, `tls`, an `upstreamName` or `suspend`. Writing a default out is no change.
Not here: what happens on a change.
"""

from __future__ import annotations

import hashlib

import msgspec

from nexus_api.backend import Auth, LLMBackendSpec, Tls
from nexus_api.resolve import auth_header, auth_mode


def verdict_fingerprint(spec: LLMBackendSpec) -> str:
    """32 hexadecimal digits, stable across processes and versions."""
    renamed = {
        model.name: model.upstream_name
        for model in spec.models or ()
        if model.upstream_name not in (None, model.name)
    }
    identity = (
        spec.url,
        spec.type,
        auth_mode(spec),
        auth_header(spec),
        (spec.auth or Auth()).secret_ref,
        spec.tls or Tls(),
        renamed,
        spec.suspend,
    )
    canonical = msgspec.json.encode(identity, order="deterministic")
    return hashlib.sha256(canonical).hexdigest()[:32]
