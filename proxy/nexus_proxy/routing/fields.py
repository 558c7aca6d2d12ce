"""The few fields of a request's body that decide where it may go, and how they are decoded.

msgspec skips all others. Everything of which the type is a client's choice is `Any` or raw: what is
not what it should be is for the backend to judge. What the fields mean is `request`'s matter.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Fields(msgspec.Struct, gc=False):
    """Those of every endpoint."""

    model: Any = None
    stream: Any = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    response_format: Any = None
    text: Any = None


class Message(msgspec.Struct, gc=False):
    """One message, for its parts."""

    content: msgspec.Raw = msgspec.Raw(b"")


class ChatFields(Fields, gc=False):
    """The same with the messages."""

    messages: list[Message] = []
    input: list[Message] | str = []


decode_fields = msgspec.json.Decoder(Fields).decode
decode_chat = msgspec.json.Decoder(ChatFields).decode
decode_any = msgspec.json.Decoder(dict[str, Any]).decode
decode_parts = msgspec.json.Decoder(list[dict[str, Any]]).decode
