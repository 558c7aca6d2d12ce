"""The string formats of the schemas: each a pattern, and the words that say what to write instead.

Promises: pattern and message are those of the CEL rule in `crds/*.yaml`; a test compares them.
Not here: where a format applies (see `validate`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from nexus_api.wire import MONEY_PATTERN, PERCENT_PATTERN

Violation = tuple[str, str]


class Format(NamedTuple):
    """A pattern (RE2 syntax) and the message that says what to write instead.

    `forbids` turns it round: a value that matches is the violation.
    """

    pattern: str
    message: str
    forbids: bool = False

    def check(self, field: str, value: str | None) -> Iterator[Violation]:
        """A violation if the value is there and does not match."""
        if value is not None and self.forbids == bool(re.fullmatch(self.pattern, value)):
            yield field, self.message


PERCENT = Format(
    PERCENT_PATTERN,
    'write a percentage from "0%" to "100%" in quotes, with at most two decimals, such as "4.76%"',
)
MONEY = Format(
    MONEY_PATTERN,
    'write an amount in USD as a decimal number in quotes, at most nine decimals, such as "2.50"',
)
URL = Format(
    r"^https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?)"
    r"(:[0-9]{1,5})?(/[^\s?#@]*)?$",
    "write a base URL http(s)://host[:port][/prefix], such as http://vllm.models.svc:8000"
    " or https://api.openai.com/v1",
)
URL_WITHOUT_USER = Format(
    r"^[^@]*$",
    "a URL must not contain '@'; put credentials into a Secret and name it in auth.secretRef",
)
URL_WITHOUT_QUERY = Format(
    r"^[^?#]*$",
    "a base URL has no query ('?') and no fragment ('#'); write http(s)://host[:port][/prefix]",
)
URL_PORT = Format(
    r"^https?://[^/]*:(0+|6553[6-9]|655[4-9][0-9]|65[6-9][0-9]{2}|6[6-9][0-9]{3}|[7-9][0-9]{4})"
    r"(/.*)?$",
    "write a port from 1 to 65535",
    forbids=True,
)
HEADER = Format(
    r"^[-!#$%&'*+.^_`|~0-9A-Za-z]+$",
    "write the name of an HTTP header without colon or spaces, such as Authorization or api-key",
)
SCHEME = Format(
    r"^[-!#$%&'*+.^_`|~0-9A-Za-z]*$",
    'write one word without spaces, such as Bearer, or "" for a key that stands alone',
)
HEALTH_PATH = Format(
    r'^/[!-"$-~]*$',
    "write a path that starts with '/' and has no spaces and no '#', such as /health",
)
SECRET_NAME = Format(
    r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
    "write the name of a Secret, lower-case letters, digits, '-' and '.', such as openai-key",
)
SECRET_KEY = Format(
    r"^[-._a-zA-Z0-9]+$",
    "write a key of the Secret's data, letters, digits, '-', '_' and '.', such as api-key",
)
SERVER_NAME = Format(
    r"^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$",
    "write a DNS name without scheme or port, such as models.example.com",
)
LABEL_KEY = Format(
    r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
    "write a label key as [prefix/]name with letters, digits, '-', '_' and '.',"
    " such as team or example.com/team",
)
LABEL_VALUE = Format(
    r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
    "write a label value with letters, digits, '-', '_' and '.', at most 63 of them",
)

CONNECTION_HEADERS = (
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "expect",
)
