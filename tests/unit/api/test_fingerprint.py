"""What makes a backend a new one to the verdict, and what does not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nexus_api import LLMBackendSpec
from nexus_api.fingerprint import verdict_fingerprint

KEY = {"name": "s", "key": "k"}
BASE: dict[str, Any] = {
    "url": "http://x",
    "type": "vllm",
    "models": [{"name": "a", "upstreamName": "A"}, {"name": "b"}],
    "auth": {"secretRef": KEY},
    "tls": {"serverName": "x"},
}


def fingerprint(**changes: Any) -> str:
    return verdict_fingerprint(msgspec.convert(BASE | changes, LLMBackendSpec))


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://y"},
        {"type": "generic"},
        {"suspend": True},
        {"auth": None},
        {"auth": {"secretRef": KEY | {"key": "other"}}},
        {"auth": {"secretRef": KEY, "header": "api-key"}},
        {"auth": {"secretRef": KEY, "scheme": ""}},
        {"auth": {"mode": "PassThrough"}},
        {"tls": None},
        {"tls": {"serverName": "x", "insecureSkipVerify": True}},
        {"tls": {"serverName": "x", "caSecretRef": KEY}},
        {"models": [{"name": "a", "upstreamName": "B"}, {"name": "b"}]},
        {"models": [{"name": "a"}, {"name": "b"}]},
        {"models": None},
    ],
    ids=str,
)
def test_a_change_of_identity_is_a_new_backend(change: dict[str, Any]) -> None:
    assert fingerprint(**change) != fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"priority": 1},
        {"privacyZone": "Open"},
        {"capabilityTier": 3},
        {"maxConcurrency": 3},
        {"timeouts": {"idleSeconds": 1}},
        {"healthCheck": {"enabled": False}},
        {"pricing": {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "1"}},
        {"models": [{"name": "b"}, {"name": "a", "upstreamName": "A", "contextLength": 5}]},
        {"models": [{"name": "a", "upstreamName": "A"}, {"name": "b"}, {"name": "c"}]},
        {"models": [{"name": "a", "upstreamName": "A"}, {"name": "b", "upstreamName": "b"}]},
        {"auth": {"mode": "Secret", "secretRef": KEY, "scheme": "Bearer"}},
        {"tls": {"serverName": "x", "insecureSkipVerify": False}},
        {"suspend": False},
    ],
    ids=str,
)
def test_any_other_change_is_none(change: dict[str, Any]) -> None:
    assert fingerprint(**change) == fingerprint()


def test_a_fingerprint_is_the_same_in_every_process_and_version() -> None:
    minimal = msgspec.convert({"url": "http://x"}, LLMBackendSpec)
    assert verdict_fingerprint(minimal) == "b361947f8fe7024d2c50281ac8005f75"
