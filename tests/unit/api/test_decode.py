"""Decoding: what a message names, and that newer fields do no harm."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nexus_api import (
    BackendState,
    BackendType,
    InvalidObject,
    LLMBackend,
    QualityPolicy,
    RoutingPolicy,
    decode_backend,
    decode_object,
    decode_quality_policy,
    decode_routing_policy,
)
from nexus_api.wire import wire_name

BACKEND: dict[str, Any] = {
    "apiVersion": "nexus.dev/v1alpha1",
    "kind": "LLMBackend",
    "metadata": {
        "name": "a",
        "namespace": "n",
        "uid": "u",
        "generation": 3,
        "resourceVersion": "42",
        "labels": {"team": "x"},
        "creationTimestamp": "2026-01-31T12:00:00Z",
        "managedFields": [],
    },
    "spec": {"url": "http://a", "newerField": 1},
    "status": {"state": "Probation", "quality": {"p50TtftMilliseconds": 3, "newer": {}}},
}


def test_an_object_of_a_newer_version_is_read() -> None:
    backend = decode_backend(BACKEND)
    assert backend.metadata.resource_version == "42"
    assert backend.metadata.generation == 3
    assert backend.metadata.labels == {"team": "x"}
    assert backend.metadata.creation_timestamp == "2026-01-31T12:00:00Z"
    assert backend.spec.type is BackendType.GENERIC
    assert backend.spec.timeouts.first_token_seconds == 120
    assert backend.status.state is BackendState.PROBATION
    assert backend.status.quality is not None
    assert backend.status.quality.p50_ttft_milliseconds == 3


def test_an_object_without_a_status_has_an_empty_one() -> None:
    backend = decode_backend({"metadata": {"name": "a"}, "spec": {"url": "http://a"}})
    assert backend.status.state is None
    assert backend.status.conditions == ()


def test_a_policy_without_a_spec_has_the_defaults() -> None:
    assert decode_quality_policy({"metadata": {"name": "a"}}).spec.error_rate_threshold == "50%"
    assert decode_routing_policy({"metadata": {"name": "a"}}).spec.weights.priority == 50


def test_objects_are_decoded_by_kind() -> None:
    assert isinstance(decode_object(BACKEND), LLMBackend)
    policy = {"apiVersion": "nexus.dev/v1alpha1", "metadata": {"name": "a"}}
    assert isinstance(decode_object(policy | {"kind": "QualityPolicy"}), QualityPolicy)
    assert isinstance(decode_object(policy | {"kind": "RoutingPolicy"}), RoutingPolicy)


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"kind": "Pod"}, "kind", "Pod n/a: kind: write one of LLMBackend, QualityPolicy"),
        ({"kind": None}, "kind", "kind: write one of"),
        (
            {"apiVersion": "nexus.dev/v1"},
            "apiVersion",
            "LLMBackend n/a: apiVersion: write nexus.dev/v1alpha1",
        ),
        ({"spec": {}}, "spec", "LLMBackend n/a: spec: Object missing required field `url`"),
        ({"spec": 3}, "spec", "LLMBackend n/a: spec: Expected `object`, got `int`"),
        ({"metadata": 1}, "metadata", "LLMBackend (without a name): metadata: Expected"),
        ({"metadata": {"name": "b"}, "spec": {"url": 1}}, "spec.url", "LLMBackend b: spec.url:"),
        (
            {"spec": {"url": "http://a", "models": [{"name": "m"}, {"name": 3}]}},
            "spec.models[1].name",
            "spec.models[1].name: Expected `str`",
        ),
        ({"spec": {"url": "http://a", "priority": 101}}, "spec.priority", "Expected `int` <= 100"),
    ],
)
def test_a_message_names_the_object_and_the_field(
    change: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(InvalidObject) as refused:
        decode_object(BACKEND | change)
    assert refused.value.field == field
    assert message in str(refused.value)


def test_missing_objects_are_named_as_well_as_can_be() -> None:
    with pytest.raises(InvalidObject, match=r"^object \(without a name\): kind: write one of"):
        decode_object({})


@pytest.mark.parametrize(
    ("attribute", "wire"),
    [
        ("url", "url"),
        ("error_rate_1h", "errorRate1h"),
        ("success_rate_24h", "successRate24h"),
        ("p50_ttft_milliseconds", "p50TtftMilliseconds"),
        ("ttft_samples_1h", "ttftSamples1h"),
        ("input_usd_per_million_tokens", "inputUSDPerMillionTokens"),
        ("monthly_limit_usd", "monthlyLimitUSD"),
        ("spent_usd", "spentUSD"),
        ("as_of", "asOf"),
        ("ca_secret_ref", "caSecretRef"),
    ],
)
def test_attributes_are_spelled_as_in_the_contract(attribute: str, wire: str) -> None:
    assert wire_name(attribute) == wire


def test_encoding_leaves_defaults_out_and_round_trips() -> None:
    backend = decode_backend(BACKEND)
    wire = msgspec.to_builtins(backend)
    assert wire["status"] == {"state": "Probation", "quality": {"p50TtftMilliseconds": 3}}
    assert wire["spec"] == {"url": "http://a", "timeouts": {}, "healthCheck": {}}
    assert decode_backend(wire) == backend


def test_objects_are_immutable() -> None:
    with pytest.raises(AttributeError):
        decode_backend(BACKEND).spec.url = "http://b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("kind", "spec", "said"),
    [
        (
            "LLMBackend",
            {"url": "http://a", "type": "vlm"},
            "spec.type: Invalid enum value 'vlm': write one of vllm, ollama, llamacpp, lmstudio,"
            " exo, openai, anthropic, google, generic",
        ),
        (
            "LLMBackend",
            {"url": "http://a", "models": [{"name": "m", "capabilities": ["tools", "sight"]}]},
            "spec.models[0].capabilities[1]: Invalid enum value 'sight': write one of vision,"
            " tools, json, embeddings",
        ),
        (
            "LLMBackend",
            {"url": "http://a", "auth": {"mode": "secret"}},
            "spec.auth.mode: Invalid enum value 'secret': write one of None, Secret, PassThrough",
        ),
        (
            "QualityPolicy",
            {"enforcement": "Enforced"},
            "spec.enforcement: Invalid enum value 'Enforced': write one of Enforce, Audit",
        ),
        (
            "RoutingPolicy",
            {"trafficPolicies": [{"modelPattern": "*", "privacy": "Open"}]},
            "spec.trafficPolicies[0].privacy: Invalid enum value 'Open': write one of Restricted,"
            " Unrestricted",
        ),
    ],
)
def test_a_value_outside_a_vocabulary_is_answered_with_the_vocabulary(
    kind: str, spec: dict[str, Any], said: str
) -> None:
    document = BACKEND | {"kind": kind, "spec": spec}
    with pytest.raises(InvalidObject) as error:
        decode_object(document)
    assert str(error.value) == f"{kind} n/a: {said}"
