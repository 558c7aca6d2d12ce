"""nexus_api refuses what the API server refuses, in the words of the schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nexus_api import InvalidObject, decode_object, formats
from nexus_api.meta import API_VERSION, KINDS
from nexus_devtools.schemas import object_schema, spec_problems

MANIFESTS = Path(__file__).parents[2] / "apiserver"
Manifest = dict[str, Any]


def load(name: str) -> list[Manifest]:
    loaded: list[Manifest] = yaml.safe_load((MANIFESTS / name).read_text(encoding="utf-8"))
    return loaded


BAD = load("manifests_bad.yaml")
GOOD = load("manifests_good.yaml")


def manifest(case: Manifest) -> Manifest:
    whole = {"apiVersion": API_VERSION, "kind": case["kind"]}
    whole |= {"metadata": {"name": "x", "namespace": "n"}}
    return whole | ({"spec": case["spec"]} if "spec" in case else {})


def what(case: Manifest) -> str:
    return str(case["what"])


@pytest.mark.parametrize("case", [case for case in BAD if "python" not in case], ids=what)
def test_a_bad_manifest_is_refused(case: Manifest) -> None:
    with pytest.raises(InvalidObject) as refused:
        decode_object(manifest(case))
    message = str(refused.value)
    last_part = re.sub(r"\[\d+\]", "", case["field"]).split(".")[-1]
    assert message.startswith(f"{case['kind']} n/x: spec")
    assert "\n" not in message
    assert last_part in message
    if case.get("ours"):
        assert case["says"] in refused.value.problem
        assert refused.value.field.startswith(case["field"])


@pytest.mark.parametrize("case", [case for case in BAD if "python" in case], ids=what)
def test_an_unknown_field_is_ignored(case: Manifest) -> None:
    decode_object(manifest(case))


@pytest.mark.parametrize("case", GOOD, ids=what)
def test_a_good_manifest_is_accepted(case: Manifest) -> None:
    decode_object(manifest(case))
    if "left empty" not in case["what"]:
        assert spec_problems(case["kind"], case.get("spec", {})) == []


def rules(schema: Manifest) -> Iterator[Manifest]:
    yield from schema.get("x-kubernetes-validations", ())
    for inner in schema.get("properties", {}).values():
        yield from rules(inner)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from rules(schema[key])


def all_rules() -> list[Manifest]:
    return [rule for kind in KINDS for rule in rules(object_schema(kind))]


def test_every_format_of_the_schema_is_the_one_of_nexus_api() -> None:
    ours = {value for value in vars(formats).values() if isinstance(value, formats.Format)}
    for rule in all_rules():
        for literal in re.findall(r"matches\('((?:\\.|[^'\\])*)'\)", rule["rule"]):
            pattern = re.sub(r"\\(.)", r"\1", literal)
            forbids = rule["rule"].startswith("!")
            assert formats.Format(pattern, rule["message"], forbids) in ours, rule


def test_every_rule_of_the_schema_has_a_bad_manifest_in_its_own_words() -> None:
    said = [case["says"] for case in BAD if case.get("ours")]
    for rule in all_rules():
        assert any(words in rule["message"] for words in said), rule


def test_every_message_of_ours_is_in_the_schema() -> None:
    messages = [rule["message"] for rule in all_rules()]
    for case in BAD:
        if case.get("ours"):
            assert any(case["says"] in message for message in messages), case


def test_a_trailing_newline_is_refused() -> None:
    with pytest.raises(InvalidObject, match=r"spec\.errorRateThreshold: write a percentage"):
        decode_object(manifest({"kind": "QualityPolicy", "spec": {"errorRateThreshold": "50%\n"}}))
