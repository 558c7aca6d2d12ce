"""What is compiled is what can be: seen without a compiler."""

from __future__ import annotations

import enum
from importlib import import_module

import msgspec
import pytest

from nexus_devtools.compiled import modules


@pytest.mark.parametrize("name", [*modules()])
def test_a_compiled_module_defines_nothing_that_mypyc_would_change(name: str) -> None:
    own = [
        each
        for each in vars(import_module(name)).values()
        if isinstance(each, type) and each.__module__ == name
    ]
    # msgspec finds the fields of a compiled Struct without their types, and decodes nothing.
    assert [each for each in own if issubclass(each, msgspec.Struct)] == []
    enums = [each for each in own if issubclass(each, enum.Enum)]
    assert [each for each in enums if "__init__" in vars(each)] == []
