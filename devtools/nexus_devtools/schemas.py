"""The schemas of `crds/*.yaml` as plain JSON schema, to check what the operator writes.

Promises: `status_problems(kind, status)` finds what the API server would refuse or silently drop:
wrong types, bounds, enums, formats and unknown fields. A clone of the repository is needed.
Not here: CEL rules and list-map uniqueness of specs, which only a real API server judges.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from nexus_api.meta import BACKEND_KIND, PLURALS, QUALITY_POLICY_KIND, ROUTING_POLICY_KIND
from nexus_api.quantities import parse_time

CRD_DIRECTORY = Path(__file__).resolve().parents[2] / "crds"
CRD_FILES = {kind: CRD_DIRECTORY / f"{plural}.yaml" for kind, plural in PLURALS.items()}

_FORMATS = jsonschema.FormatChecker(formats=())


@_FORMATS.checks("date-time", raises=ValueError)
def _is_time(value: object) -> bool:
    if isinstance(value, str):
        parse_time(value)
    return True


@functools.cache
def crd(kind: str) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind, as written in its file."""
    try:
        text = CRD_FILES[kind].read_text(encoding="utf-8")
    except KeyError:
        raise ValueError(f"{kind!r} is no Nexus kind: use one of {', '.join(CRD_FILES)}") from None
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def object_schema(kind: str) -> dict[str, Any]:
    """The OpenAPI schema of a kind's whole object, `spec` and `status` among its properties."""
    schema: dict[str, Any] = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def status_schema(kind: str) -> dict[str, Any]:
    """The JSON schema of a kind's status, closed: an unknown field is an error."""
    return _closed(object_schema(kind)["properties"]["status"])


def spec_schema(kind: str) -> dict[str, Any]:
    """The JSON schema of a kind's spec, closed: an unknown field is an error."""
    return _closed(object_schema(kind)["properties"]["spec"])


def status_problems(kind: str, status: Mapping[str, Any]) -> list[str]:
    """What is wrong with a status, one `path: problem` for each; empty if it is valid."""
    return _problems(status_schema(kind), status) + _duplicate_conditions(status)


def spec_problems(kind: str, spec: Mapping[str, Any]) -> list[str]:
    """What is wrong with a spec but for its CEL rules, one `path: problem` for each."""
    return _problems(spec_schema(kind), spec)


def assert_valid_status(kind: str, status: Mapping[str, Any]) -> None:
    """AssertionError with all problems if the API server would not take this status as it is."""
    problems = status_problems(kind, status)
    if problems:
        raise AssertionError(f"invalid {kind} status:\n" + "\n".join(problems))


assert_valid_backend_status = functools.partial(assert_valid_status, BACKEND_KIND)
assert_valid_quality_policy_status = functools.partial(assert_valid_status, QUALITY_POLICY_KIND)
assert_valid_routing_policy_status = functools.partial(assert_valid_status, ROUTING_POLICY_KIND)


def _problems(schema: Mapping[str, Any], value: Mapping[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(schema, format_checker=_FORMATS)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def _duplicate_conditions(status: Mapping[str, Any]) -> list[str]:
    types = [condition.get("type") for condition in status.get("conditions", ())]
    twice = sorted({str(name) for name in types if types.count(name) > 1})
    return [f"$.conditions: type {name} is there twice" for name in twice]


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    closed = dict(schema)
    if "properties" in schema:
        closed["properties"] = {key: _closed(sub) for key, sub in schema["properties"].items()}
        closed.setdefault("additionalProperties", False)
    if isinstance(schema.get("items"), Mapping):
        closed["items"] = _closed(schema["items"])
    return closed
