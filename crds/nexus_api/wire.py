"""How the API types are spelled on the wire: camelCase names, and the bounded scalars.

Promises: `Wire` is the base of every API type; a bound stated here is the bound of the schema.
Not here: the types themselves, and rules across fields (those are in `validate`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

_UPPER_CASE_WORDS = {"usd": "USD"}


def wire_name(attribute: str) -> str:
    """Spell a snake_case attribute as it is on the wire, `error_rate_1h` as `errorRate1h`.

    Units that are written in capitals stay so: `spent_usd` is `spentUSD`.
    """
    first, *rest = attribute.split("_")
    return first + "".join(_UPPER_CASE_WORDS.get(word, word.capitalize()) for word in rest)


class Wire(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name):
    """Base of all API types: immutable, keyword-only, unknown fields ignored on decode."""


# The formats of rates, money and months; `validate` says in words what to write.
PERCENT_PATTERN = r"^(100(\.0{1,2})?|[1-9]?[0-9](\.[0-9]{1,2})?)%$"
MONEY_PATTERN = r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,9})?$"
MONTH_PATTERN = r"^[0-9]{4}-(0[1-9]|1[0-2])$"

# Percent and Money are written by users, Rate and Amount by the operator.
Percent = Annotated[str, Meta(max_length=7)]
Money = Annotated[str, Meta(max_length=22)]
Rate = Annotated[str, Meta(pattern=PERCENT_PATTERN, max_length=7)]
Amount = Annotated[str, Meta(pattern=MONEY_PATTERN, max_length=22)]
Month = Annotated[str, Meta(pattern=MONTH_PATTERN, max_length=7)]
Time = Annotated[str, Meta(max_length=64)]
Name = Annotated[str, Meta(min_length=1, max_length=253)]
Text = Annotated[str, Meta(max_length=1024)]
Count = Annotated[int, Meta(ge=0, le=9_007_199_254_740_991)]
Seconds = Annotated[int, Meta(ge=1, le=3600)]
Milliseconds = Annotated[int, Meta(ge=0, le=3_600_000)]
Tier = Annotated[int, Meta(ge=1, le=5)]
