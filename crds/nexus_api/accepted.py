"""The values that a field with a fixed vocabulary takes, for the message about any other.

Promises the values in the order of the schema, for any path into a type that decoding can name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
from msgspec import inspect

_STEP = re.compile(r"\[[^]]*\]|\.?[^.\[]+")


def accepted_values(kind: type[msgspec.Struct], path: str) -> tuple[str, ...]:
    """The values of the field at `path`, such as `spec.models[0].capabilities[1]`; () if any."""
    found = [inspect.type_info(kind)]
    for step in _STEP.findall(path):
        found = [inner for info in found for inner in _within(info, step.removeprefix("."))]
    enums = [info for outer in found for info in _choices(outer)]
    return tuple(
        str(member.value)
        for info in enums
        if isinstance(info, inspect.EnumType)
        for member in info.cls
    )


def _within(outer: inspect.Type, step: str) -> Iterator[inspect.Type]:
    for info in _choices(outer):
        if isinstance(info, inspect.StructType):
            yield from (field.type for field in info.fields if field.encode_name == step)
        elif isinstance(info, inspect.VarTupleType) and step.startswith("["):
            yield info.item_type


def _choices(info: inspect.Type) -> tuple[inspect.Type, ...]:
    if isinstance(info, inspect.Metadata):
        return _choices(info.type)
    return info.types if isinstance(info, inspect.UnionType) else (info,)
