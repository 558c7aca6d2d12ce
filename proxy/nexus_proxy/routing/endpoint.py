"""The OpenAI endpoints that carry a model call, and how they are told apart.

Nothing but names: what a call to one of them needs is `request`'s matter, where a backend has it
`reach`'s.
"""

from __future__ import annotations

import enum


class Endpoint(enum.Enum):
    """One of them; the value is the path clients use, `number` its place among them."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"
    RESPONSES = "/v1/responses"

    def __init__(self, path: str) -> None:
        self.number = len(type(self).__members__)

    # Members are singletons; the hash of `Enum` is Python code, and every request looks some up.
    __hash__ = object.__hash__

    @property
    def path(self) -> str:
        return self.value


ENDPOINTS: dict[bytes, Endpoint] = {e.value.encode(): e for e in Endpoint}
