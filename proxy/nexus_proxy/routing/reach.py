"""How a backend is reached: origin, timeouts, credentials and answer headers, resolved from its
spec.

What keeps a backend from being reached as configured (a missing key, a CA that is none) comes back
as an obstacle, a `(reason, suggested action)`; no key is ever part of one. Nothing is opened here.
"""

from __future__ import annotations

import ssl
import weakref
from dataclasses import dataclass

from nexus_api import AuthMode, LLMBackend, LLMBackendSpec, SecretKeyRef, Tls, reasons, resolve
from nexus_proxy.routing.candidate import CREDENTIAL_HEADERS, Credentials, Origin, Timeouts
from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.secrets import SecretSource
from nexus_quality import words
from nexus_quality.keys import KeyFacts

Obstacle = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Reach:
    """Everything the byte path needs to reach a backend; `obstacle` says why it must not try,
    `key` what the fleet may hear of its Secrets.
    """

    origin: Origin
    timeouts: Timeouts
    credentials: Credentials
    answer_headers: bytes
    obstacle: Obstacle | None
    key: KeyFacts


class TlsContexts:
    """TLS contexts by what they trust: building one reads the whole system trust store, so
    each is kept as long as a backend uses it.
    """

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[tuple[str, bool], ssl.SSLContext] = (
            weakref.WeakValueDictionary()
        )

    def get(self, *, ca: str, insecure: bool) -> ssl.SSLContext:
        """A context that trusts `ca` (PEM; empty: the system), or anything. Raises
        ssl.SSLError for a bad PEM.
        """
        context = self._known.get((ca, insecure))
        if context is None:
            # Bundles name their authorities in comments of any alphabet; PEM itself is ASCII.
            pem = ca.encode("ascii", "replace").decode("ascii")
            context = ssl.create_default_context(cadata=pem or None)
            context.set_alpn_protocols(["http/1.1"])
            if insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._known[ca, insecure] = context
        return context


def reach(backend: LLMBackend, secrets: SecretSource, contexts: TlsContexts) -> Reach:
    """Resolve one backend. Raises ValueError when its URL is none (the schema refuses such
    objects).
    """
    spec = backend.spec
    context, tls_obstacle = _tls(spec, secrets, contexts)
    credentials, key_obstacle = _credentials(spec, secrets)
    return Reach(
        origin=_origin(spec, context),
        timeouts=Timeouts(
            connect=float(spec.timeouts.connect_seconds),
            first_token=float(spec.timeouts.first_token_seconds),
            idle=float(spec.timeouts.idle_seconds),
            response=float(spec.timeouts.response_seconds),
        ),
        credentials=credentials,
        answer_headers=_answer_headers(backend),
        obstacle=key_obstacle or tls_obstacle,
        key=_key_facts(spec, secrets, credentials),
    )


def _origin(spec: LLMBackendSpec, context: ssl.SSLContext | None) -> Origin:
    endpoint = resolve.endpoint(spec)
    return Origin(
        scheme="https" if endpoint.tls else "http",
        host=endpoint.host,
        port=endpoint.port,
        authority=endpoint.authority.encode(),
        base_path=endpoint.prefix.encode(),
        paths={e: resolve.api_path(spec, e.path).encode() for e in Endpoint},
        tls=context,
        server_name=(spec.tls or Tls()).server_name or (endpoint.host if endpoint.tls else None),
    )


def _tls(
    spec: LLMBackendSpec, secrets: SecretSource, contexts: TlsContexts
) -> tuple[ssl.SSLContext | None, Obstacle | None]:
    if not resolve.endpoint(spec).tls:
        return None, None
    tls = spec.tls or Tls()
    ca = ""
    if tls.ca_secret_ref is not None:
        found = secrets.get(tls.ca_secret_ref.name, tls.ca_secret_ref.key)
        if not found:  # an empty file must not come to mean the system's trust
            return None, _missing(tls.ca_secret_ref, secrets)
        ca = found
    try:
        return contexts.get(ca=ca, insecure=tls.insecure_skip_verify), None
    except ssl.SSLError:
        ref = tls.ca_secret_ref
        return None, words.ca_unusable(secret=ref.name, key=ref.key) if ref else words.NO_TRUST


def unverified(origin: Origin) -> bool:
    """Whether anybody may answer there in the backend's place: TLS whose certificate nobody
    verifies.
    """
    return origin.tls is not None and origin.tls.verify_mode == ssl.CERT_NONE


def _credentials(
    spec: LLMBackendSpec, secrets: SecretSource
) -> tuple[Credentials, Obstacle | None]:
    mode = resolve.auth_mode(spec)
    if mode is AuthMode.PASS_THROUGH:
        return Credentials(mode=mode.value, strip=frozenset()), None
    ref = spec.auth.secret_ref if spec.auth else None
    if mode is AuthMode.NONE or ref is None:
        return Credentials(), None
    header = resolve.auth_header(spec)
    strip = CREDENTIAL_HEADERS | {header.name.lower().encode()}
    key = secrets.get(ref.name, ref.key)
    if not key:
        return Credentials(mode=mode.value, strip=strip), _missing(ref, secrets)
    if not (key.isascii() and key.isprintable()):
        problem = words.key_unusable(secret=ref.name, key=ref.key)
        return Credentials(mode=mode.value, strip=strip), problem
    line = f"{header.name}: {header.value(key)}\r\n".encode("ascii")
    return Credentials(mode=mode.value, header_line=line, strip=strip), None


def _missing(ref: SecretKeyRef, secrets: SecretSource) -> Obstacle:
    said = words.secret_key_missing if secrets.has(ref.name) else words.secret_missing
    return said(secret=ref.name, key=ref.key).reason, secrets.missing(ref.name, ref.key)


def _key_facts(spec: LLMBackendSpec, secrets: SecretSource, credentials: Credentials) -> KeyFacts:
    """What the fleet may hear: which Secret is read, whether it is there, never what is in it."""
    auth = spec.auth.secret_ref if spec.auth and credentials.mode == AuthMode.SECRET else None
    ca = spec.tls.ca_secret_ref if spec.tls and resolve.endpoint(spec).tls else None
    lacking = next((ref for ref in (auth, ca) if ref and not secrets.get(ref.name, ref.key)), None)
    missing = ""
    if lacking is not None:
        there = secrets.has(lacking.name)
        missing = reasons.SECRET_KEY_NOT_FOUND if there else reasons.SECRET_NOT_FOUND
    return KeyFacts(
        secret=auth.name if auth else "",
        key=auth.key if auth else "",
        content=hash(credentials.header_line),
        missing=missing,
        ca=lacking is not None and lacking is not auth,
    )


def _answer_headers(backend: LLMBackend) -> bytes:
    zone = resolve.privacy_zone(backend.spec).value.lower()
    return (
        f"X-Nexus-Backend: {backend.metadata.name}\r\n"
        f"X-Nexus-Backend-Type: {resolve.locality(backend.spec)}\r\n"
        f"X-Nexus-Privacy-Zone: {zone}\r\n"
    ).encode()
