"""The schemas in crds/*.yaml and the types of nexus_api say the same, field by field."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

import msgspec
import msgspec.inspect as inspect
import pytest

from nexus_api import (
    LLMBackendSpec,
    LLMBackendStatus,
    QualityPolicySpec,
    QualityPolicyStatus,
    RoutingPolicySpec,
    RoutingPolicyStatus,
)
from nexus_api.meta import BACKEND_KIND, QUALITY_POLICY_KIND, ROUTING_POLICY_KIND
from nexus_devtools.schemas import object_schema

PAIRS: list[tuple[str, str, type[msgspec.Struct]]] = [
    (BACKEND_KIND, "spec", LLMBackendSpec),
    (BACKEND_KIND, "status", LLMBackendStatus),
    (QUALITY_POLICY_KIND, "spec", QualityPolicySpec),
    (QUALITY_POLICY_KIND, "status", QualityPolicyStatus),
    (ROUTING_POLICY_KIND, "spec", RoutingPolicySpec),
    (ROUTING_POLICY_KIND, "status", RoutingPolicyStatus),
]
Schema = dict[str, Any]
INTEGER_BOUNDS = {"minimum": "ge", "maximum": "le"}
STRING_BOUNDS = {"minLength": "min_length", "maxLength": "max_length", "pattern": "pattern"}
ARRAY_BOUNDS = {"minItems": "min_length", "maxItems": "max_length"}
MAP_BOUNDS = {"minProperties": "min_length", "maxProperties": "max_length"}


def differences(schema: Schema, kind: inspect.Type, path: str) -> Iterator[str]:
    """Every difference between a schema and a type, each led by its path."""
    expected, compare = _expectation(kind)
    if schema.get("type") != expected:
        yield f"{path}: schema type {schema.get('type')!r}, Python has {kind!r}"
    elif compare is not None:
        yield from compare(schema, kind, path)


def _expectation(kind: inspect.Type) -> tuple[str, Callable[..., Iterator[str]] | None]:
    table: dict[type[inspect.Type], tuple[str, Callable[..., Iterator[str]] | None]] = {
        inspect.BoolType: ("boolean", None),
        inspect.IntType: ("integer", _bounds(INTEGER_BOUNDS)),
        inspect.StrType: ("string", _bounds(STRING_BOUNDS)),
        inspect.EnumType: ("string", _enum),
        inspect.VarTupleType: ("array", _array),
        inspect.DictType: ("object", _map),
        inspect.StructType: ("object", _struct),
    }
    return table.get(type(kind), ("nothing a schema can say", None))


def _bounds(names: Mapping[str, str]) -> Callable[[Schema, Any, str], Iterator[str]]:
    def compare(schema: Schema, kind: Any, path: str) -> Iterator[str]:
        for in_schema, in_type in names.items():
            if schema.get(in_schema) != getattr(kind, in_type):
                yield (
                    f"{path}: schema {in_schema} {schema.get(in_schema)!r},"
                    f" Python {getattr(kind, in_type)!r}"
                )
        if "enum" in schema:
            yield f"{path}: the schema has an enum, Python a plain string"

    return compare


def _enum(schema: Schema, kind: inspect.EnumType, path: str) -> Iterator[str]:
    members = [member.value for member in kind.cls]
    if schema.get("enum") != members:
        yield f"{path}: schema enum {schema.get('enum')}, Python {members}"


def _array(schema: Schema, kind: inspect.VarTupleType, path: str) -> Iterator[str]:
    yield from _bounds(ARRAY_BOUNDS)(schema, kind, path)
    yield from differences(schema["items"], kind.item_type, f"{path}[]")


def _map(schema: Schema, kind: inspect.DictType, path: str) -> Iterator[str]:
    yield from _bounds(MAP_BOUNDS)(schema, kind, path)
    yield from differences(schema["additionalProperties"], kind.value_type, f"{path}{{}}")


def _struct(schema: Schema, kind: inspect.StructType, path: str) -> Iterator[str]:
    properties = schema["properties"]
    fields = {field.encode_name: field for field in kind.fields}
    for name in sorted(properties.keys() - fields.keys()):
        yield f"{path}.{name}: in the schema only"
    for name in sorted(fields.keys() - properties.keys()):
        yield f"{path}.{name}: in Python only"
    required = {name for name, field in fields.items() if field.required}
    if set(schema.get("required", ())) != required:
        yield f"{path}: schema requires {schema.get('required', [])}, Python {sorted(required)}"
    for name in properties.keys() & fields.keys():
        yield from _field(properties[name], fields[name], f"{path}.{name}")


def _field(schema: Schema, field: inspect.Field, path: str) -> Iterator[str]:
    kind, optional = _without_none(field.type)
    default = _default(field)
    if optional and default is not None:
        yield f"{path}: an optional type whose default is {default!r}, not None"
    if isinstance(kind, inspect.VarTupleType) and default == ():
        default = None  # an empty list and no list mean the same
    if isinstance(kind, inspect.DictType) and default == {}:
        default = None
    if schema.get("default") != default:
        yield f"{path}: schema default {schema.get('default')!r}, Python {default!r}"
    yield from differences(schema, kind, path)


def _without_none(kind: inspect.Type) -> tuple[inspect.Type, bool]:
    if not isinstance(kind, inspect.UnionType):
        return kind, False
    (rest,) = (each for each in kind.types if not isinstance(each, inspect.NoneType))
    return rest, len(kind.types) == 2


def _default(field: inspect.Field) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return field.default.value if isinstance(field.default, Enum) else field.default
    if field.default_factory is not msgspec.NODEFAULT:
        made = field.default_factory()
        return msgspec.to_builtins(made) if isinstance(made, msgspec.Struct) else made
    return None


def compare(schema: Schema, struct: type[msgspec.Struct]) -> list[str]:
    return list(differences(schema, inspect.type_info(struct), "$"))


@pytest.mark.parametrize(("kind", "part", "struct"), PAIRS, ids=lambda value: str(value))
def test_schema_and_types_are_the_same(kind: str, part: str, struct: type[msgspec.Struct]) -> None:
    assert compare(object_schema(kind)["properties"][part], struct) == []


def test_a_default_of_a_nested_struct_is_the_default_of_its_fields() -> None:
    """`default: {}` on an object stands for the defaults of its fields, as in the types."""
    for kind, part, _ in PAIRS:
        for path, schema in walk(object_schema(kind)["properties"][part]):
            if schema.get("type") == "object" and "default" in schema:
                assert schema["default"] == {}, path


def walk(schema: Schema, path: str = "$") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from walk(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from walk(schema[key], f"{path}[]")


def _set(path: str, key: str, value: Any) -> Callable[[Schema], None]:
    def mutate(schema: Schema) -> None:
        dict(walk(schema))[path][key] = value

    return mutate


def _drop(path: str, key: str) -> Callable[[Schema], None]:
    def mutate(schema: Schema) -> None:
        del dict(walk(schema))[path][key]

    return mutate


MUTATIONS: list[tuple[str, Callable[[Schema], None], str]] = [
    ("another default", _set("$.priority", "default", 51), "$.priority: schema default 51"),
    ("no default", _drop("$.suspend", "default"), "$.suspend: schema default None"),
    ("a default more", _set("$.privacyZone", "default", "Open"), "$.privacyZone: schema default"),
    ("another type", _set("$.priority", "type", "string"), "$.priority: schema type 'string'"),
    ("a wider bound", _set("$.priority", "maximum", 101), "$.priority: schema maximum 101"),
    ("no bound", _drop("$.url", "maxLength"), "$.url: schema maxLength None"),
    ("fewer items", _set("$.models", "maxItems", 5), "$.models: schema maxItems 5"),
    ("an enum value more", _set("$.type", "enum", ["vllm", "tgi"]), "$.type: schema enum"),
    ("an enum for a string", _set("$.url", "enum", ["a"]), "$.url: the schema has an enum"),
    ("required", _set("$", "required", ["url", "type"]), "$: schema requires"),
    ("not required", _drop("$.models[]", "required"), "$.models[]: schema requires []"),
    ("nested default", _set("$.timeouts.idleSeconds", "default", 1), "$.timeouts.idleSeconds"),
    ("no default object", _drop("$.timeouts", "default"), "$.timeouts: schema default None"),
]


@pytest.mark.parametrize(
    ("mutate", "reported"),
    [(mutate, reported) for _, mutate, reported in MUTATIONS],
    ids=[name for name, _, _ in MUTATIONS],
)
def test_a_changed_schema_is_reported(mutate: Callable[[Schema], None], reported: str) -> None:
    schema = copy.deepcopy(object_schema(BACKEND_KIND)["properties"]["spec"])
    mutate(schema)
    found = compare(schema, LLMBackendSpec)
    assert any(line.startswith(reported) for line in found), found


@pytest.mark.parametrize("name", ["url", "priority", "timeouts", "models"])
def test_a_field_missing_in_the_schema_is_reported(name: str) -> None:
    schema = copy.deepcopy(object_schema(BACKEND_KIND)["properties"]["spec"])
    del schema["properties"][name]
    assert f"$.{name}: in Python only" in compare(schema, LLMBackendSpec)


def test_a_field_more_in_the_schema_is_reported() -> None:
    schema = copy.deepcopy(object_schema(BACKEND_KIND)["properties"]["status"])
    schema["properties"]["quality"]["properties"]["errorRate5m"] = {"type": "string"}
    assert compare(schema, LLMBackendStatus) == ["$.quality.errorRate5m: in the schema only"]
