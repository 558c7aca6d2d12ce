"""Fields that no version of this program knows: what kubectl's strict validation would refuse.

Promises paths into the `spec` of an object, such as `spec.models[0].nmae`. Reading an object never
looks at them (a newer schema may have more); whoever reads files that a person wrote should.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect


def unknown_fields(spec: object, kind: type[msgspec.Struct]) -> list[str]:
    """The paths of fields in `spec` that the spec type `kind` does not have."""
    return list(_walk(spec, _type_info(kind), "spec"))


@cache
def _type_info(kind: type) -> inspect.Type:
    return inspect.type_info(kind)


def _walk(value: object, info: inspect.Type, path: str) -> Iterator[str]:
    for choice in info.types if isinstance(info, inspect.UnionType) else (info,):
        if isinstance(choice, inspect.StructType) and isinstance(value, Mapping):
            yield from _walk_struct(value, choice, path)
        elif isinstance(choice, inspect.VarTupleType) and isinstance(value, list):
            for index, item in enumerate(value):
                yield from _walk(item, choice.item_type, f"{path}[{index}]")


def _walk_struct(value: Mapping[Any, object], info: inspect.StructType, path: str) -> Iterator[str]:
    fields = {field.encode_name: field.type for field in info.fields}
    for name, item in value.items():
        if name in fields:
            yield from _walk(item, fields[name], f"{path}.{name}")
        else:
            yield f"{path}.{name}"
