"""What routing needs to know about a request, read from its body without decoding the rest.

`analyze` decodes the few fields that decide where a request may go (msgspec skips everything else)
and never copies or changes the body. It does not validate the request: what a backend would refuse,
the backend refuses. It is not the place for headers (the byte path hands over the two that matter)
nor for the choice of a backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.routing.fields import (
    ChatFields,
    Fields,
    decode_any,
    decode_chat,
    decode_fields,
    decode_parts,
)
from nexus_proxy.routing.outline import outline

if TYPE_CHECKING:
    from nexus_proxy.routing.queue import Waiter
    from nexus_proxy.routing.router import Choice

VISION = 1
TOOLS = 2
JSON = 4
EMBEDDINGS = 8
CAPABILITY_NAMES = {VISION: "vision", TOOLS: "tools", JSON: "json", EMBEDDINGS: "embeddings"}


class BadRequest(Exception):
    """The request cannot be routed as it stands: HTTP 400, OpenAI error envelope."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class Call:
    """One client request on its way: what was asked, what it needs, what has been tried.

    `needs` is a bit set of VISION, TOOLS, JSON and EMBEDDINGS. `tried` holds one `(choice, outcome
    text)` per attempt that failed, oldest first; only the byte path appends to it. `waiter` belongs
    to the queue, None as long as the call never had to wait.
    """

    __slots__ = (
        "body",
        "endpoint",
        "flexible",
        "high_priority",
        "model",
        "needs",
        "stream",
        "tried",
        "waiter",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        *,
        stream: bool = False,
        body: bytes = b"",
        needs: int = 0,
        flexible: bool = False,
        high_priority: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.model = model
        self.stream = stream
        self.body = body
        self.needs = needs
        self.flexible = flexible
        self.high_priority = high_priority
        self.tried: list[tuple[Choice, str]] = []
        self.waiter: Waiter | None = None

    def estimated_tokens(self) -> int:
        """Tokens the context must hold: a quarter of the prompt's text, plus the output asked for.

        Reads the body again, so it is asked for only where a candidate has a `contextLength`.
        """
        fields = _all_fields(self.body)
        outputs = ("max_completion_tokens", "max_output_tokens", "max_tokens")
        asked = next((v for v in map(fields.get, outputs) if type(v) is int and v > 0), 0)
        return _prompt_tokens(fields) + asked


def prompt_tokens(body: bytes) -> int:
    """Tokens of a request's prompt, estimated: a quarter of its text."""
    return _prompt_tokens(_all_fields(body))


def _all_fields(body: bytes) -> dict[str, Any]:
    """The body decoded; where something in it that nobody looked at is no JSON, all of it counts
    as the prompt.
    """
    try:
        return decode_any(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"prompt": body.decode("latin-1")}


def _prompt_tokens(fields: dict[str, Any]) -> int:
    return sum(text_bytes(fields.get(name)) for name in ("messages", "input", "prompt")) // 4


def text_bytes(value: object) -> int:
    """UTF-8 bytes of all text in a prompt: a string, or messages and parts at any depth; images
    count nothing.
    """
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, list):
        return sum(map(text_bytes, value))
    if isinstance(value, dict):
        return text_bytes(value.get("content")) + text_bytes(value.get("text"))
    return 0


# Up to here a search for the word beats looking at every message; beyond, the search costs as much
# as the decoding.
_SEARCHED_BYTES = 16 * 1024
_OUTLINED_BYTES = 64 * 1024
_IMAGE_WORDS = {Endpoint.CHAT: b'"image_url"', Endpoint.RESPONSES: b'"input_image"'}
_IMAGE_PARTS = frozenset(("image_url", "input_image"))
_JSON_FORMATS = frozenset(("json_object", "json_schema"))


def analyze(
    endpoint: Endpoint, body: bytes, *, flexible: bool = False, high_priority: bool = False
) -> Call:
    """The `Call` of a request body.

    `flexible` is the presence of `X-Nexus-Flexible: true`, `high_priority` of `X-Nexus-Priority:
    high`. Raises `BadRequest` when the body is no JSON object or names no model.
    """
    word = _IMAGE_WORDS.get(endpoint)
    try:
        if len(body) <= _SEARCHED_BYTES and (word is None or word not in body):
            fields = decode_fields(body)
        else:
            fields = _fields(body, word)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body must be a JSON object: {error}") from None
    except RecursionError:
        raise BadRequest("the body must be a JSON object: it is nested too deeply") from None
    model = fields.model
    if not isinstance(model, str) or not model:
        raise BadRequest("model must be a non-empty string: name the model to use", param="model")
    needs = EMBEDDINGS if endpoint is Endpoint.EMBEDDINGS else 0
    if fields.tools and _has_items(fields.tools):
        needs |= TOOLS
    if (fields.response_format is not None or fields.text is not None) and _wants_json(fields):
        needs |= JSON
    if type(fields) is ChatFields and _has_images(fields):
        needs |= VISION
    return Call(
        endpoint,
        model,
        stream=fields.stream is True,
        body=body,
        needs=needs,
        flexible=flexible,
        high_priority=high_priority,
    )


def _fields(body: bytes, word: bytes | None) -> Fields:
    if len(body) <= _OUTLINED_BYTES:
        return _decoded(body, messages=word is not None)
    fields = _decoded(outline(body), messages=word is not None)
    # An empty name may be a long one: it is looked at again, for the message that it gets.
    return fields if fields.model else _decoded(body, messages=False)


def _decoded(body: bytes, *, messages: bool) -> Fields:
    if messages:
        try:
            return decode_chat(body)
        except msgspec.ValidationError:
            pass  # messages of a shape of their own: for the backend to judge
    return decode_fields(body)


def _has_items(raw: msgspec.Raw) -> bool:
    head = bytes(raw)[:64].translate(None, b" \t\r\n")
    return head.startswith(b"[") and head != b"[]"


def _wants_json(fields: Fields) -> bool:
    wanted = fields.response_format
    if wanted is None and isinstance(fields.text, dict):
        wanted = fields.text.get("format")
    return isinstance(wanted, dict) and wanted.get("type") in _JSON_FORMATS


def _has_images(fields: ChatFields) -> bool:
    messages = fields.messages or fields.input
    if isinstance(messages, str):
        return False
    return any(message.content and _holds_image(message.content) for message in messages)


def _holds_image(content: msgspec.Raw) -> bool:
    if memoryview(content)[0] != ord("["):
        return False
    try:
        parts = decode_parts(content)
    except msgspec.ValidationError:
        return False
    return any(part.get("type") in _IMAGE_PARTS for part in parts)
