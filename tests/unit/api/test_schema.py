"""The schemas keep the rules of the contract: bounded, described, defaults where they belong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from nexus_api.meta import GROUP, KINDS, PLURALS, VERSION
from nexus_devtools.schemas import (
    assert_valid_backend_status,
    crd,
    object_schema,
    spec_problems,
    status_problems,
)

Schema = dict[str, Any]
LEAVES = ("string", "integer", "boolean")


def fields(schema: Schema, path: str, in_list: bool = False) -> Iterator[tuple[str, Schema, bool]]:
    """All fields below a schema: path, schema, and whether it lies inside a list item."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}.{name}", inner, in_list
        yield from fields(inner, f"{path}.{name}", in_list)
        if "items" in inner:
            yield f"{path}.{name}[]", inner["items"], True
            yield from fields(inner["items"], f"{path}.{name}[]", True)


def all_fields() -> list[tuple[str, Schema, bool]]:
    return [
        found
        for kind in KINDS
        for part in ("spec", "status")
        for found in fields(object_schema(kind)["properties"][part], f"{kind}.{part}")
    ]


def test_every_field_has_a_description_of_whole_sentences() -> None:
    for path, schema, _ in all_fields():
        if not path.endswith("[]"):
            description = schema.get("description", "")
            assert description.endswith(".") and description.count(" ") >= 1, path


def test_descriptions_say_the_default() -> None:
    for path, schema, _ in all_fields():
        if schema["type"] in LEAVES and "default" in schema:
            default = schema["default"]
            shown = str(default).lower() if isinstance(default, bool) else default
            assert re.search(f'Default: "?{shown}"?\\.', schema["description"]), path


def test_no_default_inside_a_list_item() -> None:
    assert [path for path, schema, in_list in all_fields() if in_list and "default" in schema] == []


def test_every_list_string_and_integer_is_bounded() -> None:
    bounds = {
        "string": ("maxLength",),
        "integer": ("minimum", "maximum"),
        "array": ("maxItems", "x-kubernetes-list-type"),
    }
    for path, schema, _ in all_fields():
        for bound in bounds.get(schema["type"], ()):
            assert bound in schema or "enum" in schema, f"{path} has no {bound}"
        if "additionalProperties" in schema:
            assert "maxProperties" in schema, path


def test_rates_and_prices_are_no_floating_point_numbers() -> None:
    assert {schema["type"] for _, schema, _ in all_fields()} == {*LEAVES, "array", "object"}


@pytest.mark.parametrize(
    ("path", "bound", "value"),
    [
        ("LLMBackend.spec.url", "maxLength", 2048),
        ("LLMBackend.spec.models", "maxItems", 256),
        ("LLMBackend.spec.models[].name", "maxLength", 253),
        ("LLMBackend.status.models", "maxItems", 512),
        ("LLMBackend.status.modelQuality", "maxItems", 32),
        ("QualityPolicy.status.wouldExclude", "maxItems", 50),
        ("RoutingPolicy.spec.aliases", "maxItems", 128),
        ("RoutingPolicy.spec.fallbacks", "maxItems", 64),
        ("RoutingPolicy.spec.fallbacks[].to", "maxItems", 8),
        ("RoutingPolicy.spec.trafficPolicies", "maxItems", 64),
    ],
)
def test_bounds_of_the_contract(path: str, bound: str, value: int) -> None:
    assert {found: schema for found, schema, _ in all_fields()}[path][bound] == value


def test_intervals_are_one_second_to_an_hour() -> None:
    for path, schema, _ in all_fields():
        if path.endswith("Seconds") and ".spec." in path and "shortWindow" not in path:
            assert (schema["minimum"], schema["maximum"]) == (1, 3600), path


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("LLMBackend.status.quality", "x-kubernetes-map-type"),
        ("LLMBackend.status.modelQuality", "x-kubernetes-list-type"),
    ],
)
def test_figures_are_replaced_as_a_whole(path: str, kind: str) -> None:
    assert {found: schema for found, schema, _ in all_fields()}[path][kind] == "atomic"


def test_lists_with_names_are_maps() -> None:
    keys = {
        path: schema["x-kubernetes-list-map-keys"]
        for path, schema, _ in all_fields()
        if schema.get("x-kubernetes-list-type") == "map"
    }
    assert keys == {
        "LLMBackend.spec.models": ["name"],
        "LLMBackend.status.conditions": ["type"],
        "QualityPolicy.status.conditions": ["type"],
        "RoutingPolicy.spec.aliases": ["name"],
        "RoutingPolicy.spec.fallbacks": ["model"],
        "RoutingPolicy.status.conditions": ["type"],
    }


@pytest.mark.parametrize(
    ("kind", "short"), [("LLMBackend", "llmb"), ("QualityPolicy", "qp"), ("RoutingPolicy", "rp")]
)
def test_names_of_the_definitions(kind: str, short: str) -> None:
    definition = crd(kind)
    names = definition["spec"]["names"]
    (version,) = definition["spec"]["versions"]
    assert definition["metadata"]["name"] == f"{PLURALS[kind]}.{GROUP}"
    assert (definition["spec"]["group"], definition["spec"]["scope"]) == (GROUP, "Namespaced")
    assert (version["name"], version["subresources"]) == (VERSION, {"status": {}})
    assert (names["kind"], names["plural"]) == (kind, PLURALS[kind])
    assert (names["shortNames"], names["categories"]) == ([short], ["nexus"])


def test_the_status_validator_names_every_problem() -> None:
    problems = status_problems("LLMBackend", {"state": "Gone", "quality": {"errorRate1h": 1}})
    assert sorted(problem.split(":")[0] for problem in problems) == [
        "$.quality.errorRate1h",
        "$.state",
    ]
    with pytest.raises(AssertionError, match=r"invalid LLMBackend status:\n\$\.state"):
        assert_valid_backend_status({"state": "Gone"})
    assert_valid_backend_status({"state": "Active"})


def test_the_validator_takes_labels_as_they_are() -> None:
    selector = {"targetSelector": {"matchLabels": {"team": "a"}}}
    assert spec_problems("QualityPolicy", selector) == []
    assert spec_problems("QualityPolicy", {"targetSelector": {"matchLabel": {}}}) != []


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="use one of LLMBackend, QualityPolicy, RoutingPolicy"):
        crd("Pod")
