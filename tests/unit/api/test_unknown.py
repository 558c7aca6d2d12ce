"""Misspelt fields are found wherever they stand."""

from __future__ import annotations

from typing import Any

import pytest

from nexus_api.backend import LLMBackendSpec
from nexus_api.policy import QualityPolicySpec
from nexus_api.unknown import unknown_fields


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ({"url": "http://x", "type": "vllm"}, []),
        ({"url": "http://x", "typ": "vllm", "modls": []}, ["spec.typ", "spec.modls"]),
        ({"url": "http://x", "models": [{"name": "m"}, {"nmae": "n"}]}, ["spec.models[1].nmae"]),
        ({"url": "http://x", "auth": {"secretRef": {"nam": "s"}}}, ["spec.auth.secretRef.nam"]),
        ({"url": "http://x", "models": "none"}, []),
    ],
)
def test_a_backends_unknown_fields(spec: dict[str, Any], found: list[str]) -> None:
    assert unknown_fields(spec, LLMBackendSpec) == found


def test_labels_are_free() -> None:
    spec = {"targetSelector": {"matchLabels": {"anything": "goes"}}}
    assert unknown_fields(spec, QualityPolicySpec) == []
