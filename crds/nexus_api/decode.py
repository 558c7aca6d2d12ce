"""From parsed JSON or YAML to the API types.

Promises: one typed object, or `InvalidObject` with a one-line message naming object and field.
Unknown fields are ignored, so that a newer schema does not stop an older program; a null is the
same as nothing.
Not here: reading files or the API server; the formats and rules (see `validate`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from nexus_api.accepted import accepted_values
from nexus_api.backend import LLMBackend
from nexus_api.meta import (
    API_VERSION,
    BACKEND_KIND,
    QUALITY_POLICY_KIND,
    ROUTING_POLICY_KIND,
)
from nexus_api.policy import QualityPolicy
from nexus_api.routing import RoutingPolicy
from nexus_api.validate import violations

NexusObject = LLMBackend | QualityPolicy | RoutingPolicy
_T = TypeVar("_T", LLMBackend, QualityPolicy, RoutingPolicy)


class InvalidObject(ValueError):
    """An object that is not what its kind requires.

    `kind`, `namespace`, `name` say which (empty when the object does not), `field` is a path such
    as `spec.models[0].name` (empty for the object as a whole), `problem` what is wrong with it.
    """

    def __init__(self, *, kind: str, namespace: str, name: str, field: str, problem: str) -> None:
        where = f"{namespace}/{name}" if namespace else name or "(without a name)"
        super().__init__(f"{kind} {where}: {f'{field}: ' if field else ''}{problem}")
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.field = field
        self.problem = problem


def decode_backend(mapping: Mapping[str, Any]) -> LLMBackend:
    """Decode an LLMBackend; raises InvalidObject."""
    return _convert(mapping, BACKEND_KIND, LLMBackend)


def decode_quality_policy(mapping: Mapping[str, Any]) -> QualityPolicy:
    """Decode a QualityPolicy; raises InvalidObject."""
    return _convert(mapping, QUALITY_POLICY_KIND, QualityPolicy)


def decode_routing_policy(mapping: Mapping[str, Any]) -> RoutingPolicy:
    """Decode a RoutingPolicy; raises InvalidObject."""
    return _convert(mapping, ROUTING_POLICY_KIND, RoutingPolicy)


DECODERS: dict[str, Callable[[Mapping[str, Any]], NexusObject]] = {
    BACKEND_KIND: decode_backend,
    QUALITY_POLICY_KIND: decode_quality_policy,
    ROUTING_POLICY_KIND: decode_routing_policy,
}


def decode_object(mapping: Mapping[str, Any]) -> NexusObject:
    """Decode an object by its `kind`; raises InvalidObject for another kind or version too."""
    kind = str(mapping.get("kind", ""))
    decoder = DECODERS.get(kind)
    if decoder is None:
        known = ", ".join(DECODERS)
        raise _invalid(mapping, kind or "object", "kind", f"write one of {known}")
    if mapping.get("apiVersion") != API_VERSION:
        raise _invalid(mapping, kind, "apiVersion", f"write {API_VERSION}")
    return decoder(mapping)


def _convert(mapping: Mapping[str, Any], kind: str, target: type[_T]) -> _T:
    try:
        found = _read(mapping, target)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `")
        field = path.rstrip("`").removeprefix("$").removeprefix(".")
        if problem.startswith("Invalid enum value") and (words := accepted_values(target, field)):
            problem = f"{problem}: write one of {', '.join(words)}"
        raise _invalid(mapping, kind, field, problem) from None
    for field, problem in violations(found):
        raise _invalid(mapping, kind, field, problem)
    return found


def _read(mapping: Mapping[str, Any], target: type[_T]) -> _T:
    try:
        return msgspec.convert(mapping, target)
    except msgspec.ValidationError:
        # `timeouts:` with nothing after it is null; the API server fills in the default.
        return msgspec.convert(_without_nulls(mapping), target)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value


def _invalid(mapping: Mapping[str, Any], kind: str, field: str, problem: str) -> InvalidObject:
    metadata = mapping.get("metadata")
    known = metadata if isinstance(metadata, Mapping) else {}
    return InvalidObject(
        kind=kind,
        namespace=str(known.get("namespace") or ""),
        name=str(known.get("name") or ""),
        field=field,
        problem=problem,
    )
